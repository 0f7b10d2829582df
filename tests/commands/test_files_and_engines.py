"""`transcribe`, `say`, `models` and `doctor`, with the engines that ship."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

import relay
from relay.cli import run
from relay.client.files import load
from relay.commands import doctor as doctor_command
from relay.commands import models
from relay.errors import WeightsError
from relay_models import loading
from relay_models.draft_config import DRAFT

QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"
TEXT = "can you help me find a restaurant"

Capture = pytest.CaptureFixture[str]


def json_lines(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_bundled_question_is_understood_in_any_format(tmp_path: Path, capsys: Capture) -> None:
    pcm, from_hz = soundfile.read(QUESTION)
    files = [QUESTION]
    for rate_hz, channels, suffix in ((8_000, 1, "wav"), (44_100, 2, "flac"), (16_000, 2, "ogg")):
        path = tmp_path / f"question-{rate_hz}.{suffix}"
        soundfile.write(path, np.repeat(soxr.resample(pcm, from_hz, rate_hz)[:, None], channels, axis=1), rate_hz)
        files.append(path)
    assert run(["transcribe", *map(str, files)], {}) == 0
    out, err = capsys.readouterr()
    texts = dict(line.split(": ", 1) for line in out.splitlines())
    assert list(texts) == [str(path) for path in files]
    assert texts[str(QUESTION)] == TEXT
    assert all(text.split() for text in texts.values())
    assert err == ""


@pytest.mark.parametrize("how", [["--engine", "baseline"], ["--lookahead-ms", "80"]], ids=" ".join)
def test_recognition_streams(how: list[str], capsys: Capture) -> None:
    assert run(["transcribe", "--json", *how, str(QUESTION)], {}) == 0
    *partials, final = json_lines(capsys)
    assert len(partials) > 5
    assert {line["type"] for line in partials} == {"partial"}
    times = [line["audio_s"] for line in (*partials, final)]
    assert times == sorted(times)
    assert partials[0]["audio_s"] < 1.2
    assert (final["type"], final["text"], final["audio_s"]) == ("final", TEXT, 2.88)
    assert [word["text"] for word in final["words"]] == TEXT.split()
    assert all(0 <= word["start_s"] < word["end_s"] <= 2.88 for word in final["words"])


def test_a_bad_file_does_not_keep_the_others_from_being_done(tmp_path: Path, capsys: Capture) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(QUESTION.read_bytes()[:40_000])
    assert run(["transcribe", str(bad), str(QUESTION)], {}) == 1
    out, err = capsys.readouterr()
    assert out.endswith(f"{TEXT}\n")
    assert err.count("\n") == 1
    assert "truncated" in err


@pytest.mark.parametrize(
    "argv",
    [
        ["transcribe", str(QUESTION), "--engine", "no-such-engine"],
        ["transcribe", str(QUESTION), "--engine", "baseline", "--lookahead-ms", "80"],
        ["say", "hello", "--engine", "no-such-engine", "--out", "x.wav"],
        ["say", "  ", "--out", "x.wav"],
    ],
    ids=" ".join,
)
def test_wrong_use_of_engines(argv: list[str], capsys: Capture) -> None:
    assert run(argv, {}) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_what_is_said_can_be_heard(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "said.wav"
    assert run(["say", "The table is booked for seven.", "--out", str(path), "--json"], {}) == 0
    (said,) = json_lines(capsys)
    assert [word["text"] for word in said["words"]] == ["The", "table", "is", "booked", "for", "seven."]
    assert said["first_audio_ms"] > 0
    assert said["rtf"] > 0
    pcm = load(path, 24_000)
    assert len(pcm) / 24_000 == pytest.approx(said["audio_s"], abs=0.01)
    assert np.abs(pcm).max() > 3000
    assert run(["transcribe", str(path)], {}) == 0
    assert "table" in capsys.readouterr().out


def test_a_text_without_sound_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    assert run(["say", "—", "--out", str(tmp_path / "x.wav")], {}) == 1
    assert "no sound" in capsys.readouterr().err


def test_saying_into_a_folder_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert run(["say", "hello", "--out", str(tmp_path / "no" / "x.wav")], {}) == 1
    assert "choose another place" in capsys.readouterr().err


def test_models_are_listed_and_verified(capsys: Capture) -> None:
    assert run(["models", "list"], {}) == 0
    out = capsys.readouterr().out
    assert "pocketsphinx" in out
    assert "espeak" in out
    assert run(["models", "list", "--json"], {}) == 0
    (listed,) = json_lines(capsys)
    assert {engine["kind"] for engine in listed["engines"]} == {"ears", "voice"}
    assert run(["models", "verify", "--json"], {}) == 0
    (verified,) = json_lines(capsys)
    assert all(model["problem"] is None for model in verified["weights"])


def test_damaged_weights_are_named(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    broken = models.Weights("brain", "brain", "a brain", "Apache-2.0", 1, "the weights file brain/x is damaged")
    monkeypatch.setattr(models, "shipped", lambda: [broken])
    assert run(["models", "verify"], {}) == 1
    assert "brain/x is damaged" in capsys.readouterr().out


def test_the_doctor_finds_this_machine_fit(capsys: Capture) -> None:
    assert run(["doctor", "--json"], {}) == 0
    (report,) = json_lines(capsys)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert {"python", "packages", "gpu", "onnxruntime", "ears", "voice", "weights", "path", "portaudio", "port"} <= set(
        findings
    )
    for finding in findings.values():
        assert finding["status"] in ("ok", "warn")
        assert finding["todo"] or finding["status"] == "ok"
    assert run(["doctor"], {}) == 0
    assert "python" in capsys.readouterr().out


def test_the_doctor_says_how_replies_are_made(monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path) -> None:
    def finding() -> dict[str, str]:
        run(["doctor", "--json"], {"RELAY_HOME": str(tmp_path)})
        (report,) = json_lines(capsys)
        (found,) = (finding for finding in report["findings"] if finding["name"] == "path")
        return dict(found)

    assert (finding()["status"], finding()["detail"].split(":")[0]) == ("ok", "relay")
    own = tmp_path / "models" / "draft"
    shutil.copytree(loading.locate("draft"), own)
    (own / DRAFT).write_bytes(b"no graph")
    assert finding()["status"] == "warn"
    assert "language model alone" in finding()["detail"]
    assert DRAFT in finding()["detail"]
    assert finding()["todo"]
    shutil.rmtree(own)
    shipped = loading.read_manifest()
    monkeypatch.setattr(
        loading, "read_manifest", lambda *_, **__: {n: m for n, m in shipped.items() if n != "verifier"}
    )
    assert finding()["status"] == "warn"
    assert "the weights of the verifier model" in finding()["detail"]


def test_the_doctor_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def damaged() -> list[models.Weights]:
        raise WeightsError("the list of shipped weights is damaged")

    monkeypatch.setattr(doctor_command, "shipped", damaged)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["doctor", "--port", str(port)], {}) == 1
    out = capsys.readouterr().out
    assert "the list of shipped weights is damaged" in out
    assert f"{port} is taken" in out
    assert "relay serve --port 0" in out
