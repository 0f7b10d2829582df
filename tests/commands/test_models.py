"""`relay models` with models of one's own, and `relay transcribe` with them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import soundfile

from relay.cli import models_dir, run

Capture = pytest.CaptureFixture[str]


def json_lines(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    from tests.engine.ears_models import speech

    path = tmp_path / "recording.wav"
    soundfile.write(path, speech(48_000), 16_000)
    return path


def test_a_folder_is_a_recogniser(exported_ears: Path, recording: Path, capsys: Capture) -> None:
    texts = set()
    for asked in ([], ["--lookahead-ms", "80"], ["--lookahead-ms", "0"]):
        assert run(["transcribe", str(recording), "--engine", str(exported_ears), "--json", *asked], {}) == 0
        *partials, final = json_lines(capsys)
        assert len(partials) > 3
        assert (final["type"], final["audio_s"]) == ("final", 3.0)
        assert final["words"]
        texts.add(final["text"])
    assert len(texts) == 2  # the first two are the same look-ahead


def test_a_model_is_imported_listed_used_and_verified(
    exported_ears: Path, recording: Path, tmp_path: Path, capsys: Capture
) -> None:
    environ = {"RELAY_HOME": str(tmp_path / "home")}
    assert run(["models", "import", str(exported_ears), "--as", "mine", "--json"], environ) == 0
    (imported,) = json_lines(capsys)
    assert imported["weights"][0]["name"] == "mine"
    assert run(["models", "list", "--json"], environ) == 0
    (listed,) = json_lines(capsys)
    assert {"name": "mine", "kind": "ears", "problem": None}.items() <= listed["weights"][-1].items()
    assert run(["models", "list"], environ) == 0
    assert "mine" in capsys.readouterr().out
    assert run(["transcribe", str(recording), "--engine", "mine"], environ) == 0
    assert capsys.readouterr().out.strip()
    assert run(["models", "verify"], environ) == 0
    assert "mine: verified" in capsys.readouterr().out
    weights = tmp_path / "home" / "models" / "mine" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run(["models", "verify"], environ) == 1
    assert "mine/model.safetensors is damaged; import or pull it again" in capsys.readouterr().out
    assert run(["transcribe", str(recording), "--engine", "mine"], environ) == 1
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["transcribe", "x.wav", "--engine", "nemotron"], 1, "relay models pull nemotron"),
        (["transcribe", "x.wav", "--engine", "no-such"], 2, "or give a folder"),
        (["models", "pull", "no-such"], 2, "OWNER/MODEL"),
        (["models", "import", "no-such"], 1, "import a folder"),
        (["models", "import"], 2, "FOLDER"),
    ],
)
def test_wrong_use(argv: list[str], status: int, message: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(argv, {"RELAY_HOME": str(tmp_path)}) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_pulling_without_a_network_is_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    assert run(["models", "pull", "somebody/some-ears"], {"RELAY_HOME": str(tmp_path)}) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "relay models import FOLDER" in err


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"RELAY_HOME": "/srv/relay"}, "/srv/relay/models"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/relay/models"),
        ("linux", {}, "~/.local/share/relay/models"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "~/Library/Application Support/relay/models"),
    ],
)
def test_where_models_are(
    platform: str, environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert models_dir(environ) == Path(expected).expanduser()
