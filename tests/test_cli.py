from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import relay
from relay.cli import SERVE_FLAGS, build_parser, own_server, run, serve_settings
from relay.config import ServerConfig
from relay.errors import UsageError
from relay_models import loading

QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"
COMMANDS = (
    ["serve"],
    ["demo"],
    ["talk"],
    ["transcribe"],
    ["say"],
    ["bench"],
    ["bench", "latency"],
    ["bench", "turns"],
    ["bench", "quality"],
    ["bench", "echo"],
    ["bench", "page"],
    ["models"],
    ["models", "list"],
    ["models", "verify"],
    ["models", "pull"],
    ["models", "import"],
    ["doctor"],
)


def settings(argv: list[str], environ: dict[str, str]) -> dict[str, object]:
    return serve_settings(build_parser(environ).parse_args(["serve", *argv]), environ)


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run([*command, "--help"], {})
    assert ended.value.code == 0
    assert " ".join(["relay", *command]) in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["no-such-command"],
        ["serve", "--port", "eighty"],
        ["serve", "--device", "abacus"],
        ["serve", "--no-such-flag"],
        ["transcribe"],
        ["transcribe", "a.wav", "--lookahead-ms", "100"],
        ["say"],
        ["bench"],
        ["bench", "latency", "--turns", "0"],
        ["bench", "latency", "--brain-delay-ms", "-1"],
        ["bench", "latency", "--brain-delay-ms", "200", "--url", "ws://127.0.0.1:9"],
        ["bench", "turns", "--path", "cascade", "--path", "draft", "--url", "ws://127.0.0.1:9"],
        ["bench", "quality", "--part", "relay"],
        ["bench", "quality", "--part", "relay", "--manifest", "a.jsonl", "--plot", "a.png"],
        ["bench", "turns", "--plot", "/no/such/folder/turns.png"],
        ["bench", "latency", "--json", "/no/such/folder/report.json"],
        ["talk", "--url", "ftp://example.org", "--input", str(QUESTION)],
    ],
    ids=" ".join,
)
def test_wrong_use_is_status_2_and_one_line_that_says_what_to_do(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(argv, {})
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("relay: error: ")


@pytest.mark.parametrize(
    "argv",
    [
        ["latency", "--path", "draft"],
        ["latency", "--path", "cascade", "--path", "relay"],
        ["sessions", "--path", "relay"],
        ["sessions", "--callers", "1", "--path", "relay"],
        ["sessions", "--growth-minutes", "1", "--path", "draft"],
    ],
    ids=" ".join,
)
def test_a_path_without_weights_is_wrong_use_where_it_is_asked_for(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "read_manifest", lambda *_, **__: {})
    assert run(["bench", *argv], {"RELAY_HOME": "/no/such/folder"}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"relay: error: the path {argv[-1]} needs the weights of the draft and ")


def test_how_replies_are_made_is_the_servers_choice_unless_it_is_named() -> None:
    assert settings([], {})["path"] is ServerConfig().path is None
    assert settings([], {"RELAY_PATH": "draft"})["path"] == "draft"
    assert settings(["--path", "cascade"], {"RELAY_PATH": "draft"})["path"] == "cascade"


def test_serve_takes_flags_then_environment_then_defaults() -> None:
    assert settings([], {})["port"] == 8000
    assert settings([], {"RELAY_PORT": "9000"})["port"] == 9000
    assert settings(["--port", "9001"], {"RELAY_PORT": "9000"})["port"] == 9001
    assert settings(["--port", "9001"], {"RELAY_PORT": "nonsense"})["port"] == 9001
    assert settings([], {"RELAY_PORT": ""})["port"] == 8000
    assert settings([], {"RELAY_RECORD": "calls"})["record"] == Path("calls")


@pytest.mark.parametrize("flag", SERVE_FLAGS, ids=lambda flag: flag.name)
def test_every_flag_of_serve_has_its_variable(flag: object) -> None:
    assert isinstance(flag, type(SERVE_FLAGS[0]))
    if flag.negation is not None:
        for text, argument in (("1", flag.name), ("0", flag.negation)):
            assert settings([], {flag.variable: text})[flag.dest] == settings([f"--{argument}"], {})[flag.dest]
        return
    text = flag.choices[-1] if flag.choices else "7"
    assert settings([], {flag.variable: text})[flag.dest] == settings([f"--{flag.name}", text], {})[flag.dest]


@pytest.mark.parametrize(
    ("name", "value"), [("RELAY_PORT", "eighty"), ("RELAY_DEVICE", "abacus"), ("RELAY_SPECULATE", "yes")]
)
def test_a_bad_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        settings([], {name: value})


def test_serve_refuses_what_the_server_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--tls-cert", "cert.pem"], {}) == 2
    assert "--tls-key" in capsys.readouterr().err
    assert run(["serve", "--llm-url", "http://127.0.0.1:1", "--llm-key-env", "UNSET_KEY"], {}) == 2
    assert "UNSET_KEY" in capsys.readouterr().err


def test_replies_are_prepared_early_where_that_costs_nothing() -> None:
    url = "http://127.0.0.1:1"
    assert ServerConfig().speculates
    assert not ServerConfig(llm_url=url).speculates
    assert ServerConfig(llm_url=url, speculate=True).speculates
    assert not ServerConfig(speculate=False).speculates


def test_a_server_of_our_own_has_no_key_and_keeps_the_choice_of_engines() -> None:
    environ = {"RELAY_API_KEY": "secret", "RELAY_PORT": "8000", "RELAY_EARS": "baseline", "PATH": "/bin"}
    assert own_server(environ) == {"RELAY_EARS": "baseline", "PATH": "/bin"}


def test_a_file_that_is_missing_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["talk", "--input", str(tmp_path / "none.wav")], {}) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "none.wav" in err


def test_no_server_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["talk", "--url", "ws://127.0.0.1:9", "--input", str(QUESTION)], {}) == 1
    assert "relay serve" in capsys.readouterr().err


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("relay.cli._doctor", interrupted)
    assert run(["doctor"], {}) == 130


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("relay ")
    assert done.stderr == ""
