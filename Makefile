# make run | make test | make bench. Needs Python >= 3.11 and git; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The GPU set where an NVIDIA driver answers, else the light CPU set (no torch in it).
SET := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=

.PHONY: run test bench format clean

run: $(VENV)/.installed-run
	$(BIN)/relay demo
ifndef ONCE
	$(BIN)/relay serve $(ARGS)
endif

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/.installed-bench
	mkdir -p benchmarks/out
	$(BIN)/relay bench latency --json benchmarks/out/latency.json --plot benchmarks/out/latency.png $(ARGS)

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Relay needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/.installed-run: pyproject.toml $(VENV)/.created
	$(PIP) --editable '.[$(SET),baseline]'
	@touch $@

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.installed-run
	$(PIP) --editable '.[$(SET),baseline,bench]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints-test.txt $(VENV)/.created
	$(PIP) --editable '.[$(SET),baseline,bench,train,dev]' $(if $(filter cpu,$(SET)),--constraint constraints-test.txt)
	@touch $@ $(VENV)/.installed-run $(VENV)/.installed-bench
