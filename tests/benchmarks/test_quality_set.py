from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from relay.errors import AudioFileError, UsageError
from relay_benchmarks.quality_set import TimedWord, built_in, read_manifest
from relay_benchmarks.quality_sounds import non_speech


def write(folder: Path, *lines: Any, name: str = "manifest.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    (folder / "wavs").mkdir(parents=True)
    soundfile.write(folder / "wavs" / "a.wav", np.full((8_000, 2), 0.25), 8_000)
    soundfile.write(folder / "b.flac", np.full(44_100, 0.25), 44_100)
    return folder


def test_a_folder_with_a_manifest(folder: Path) -> None:
    words = [{"text": "hello", "start_s": 0.1, "end_s": 0.5}]
    write(folder, {"wav": "wavs/a.wav", "text": "hello", "words": words}, {"wav": "b.flac", "text": "bye"})
    found = read_manifest(folder)
    assert (found.name, found.synthetic) == ("voices", False)
    first, second = found.recordings
    assert first.words == (TimedWord("hello", 0.1, 0.5),)
    assert (second.text, second.words) == ("bye", ())
    for recording in found.recordings:
        pcm = recording.pcm()
        assert abs(len(pcm) - 16_000) <= 2
        assert abs(int(np.median(pcm)) - 8192) < 100
    assert len(read_manifest(folder, 1).recordings) == 1


def test_padding_is_faint_noise_around_the_recording(folder: Path) -> None:
    (recording,) = read_manifest(write(folder, {"wav": "b.flac", "text": ""}, name="own.jsonl")).recordings
    pcm, padded = recording.pcm(), recording.padded()
    assert len(padded) == 3_200 + len(pcm) + 9_600
    assert np.array_equal(padded[3_200:-9_600], pcm)
    for pad in (padded[:3_200], padded[-9_600:]):
        assert 0 < np.abs(pad).max() < 100
    assert np.array_equal(padded, recording.padded())


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "names no recording"),
        (["{"], "line 1: write"),
        (["[1, 2]"], "line 1: write"),
        ([{"wav": "b.flac", "text": "x"}, {"wav": "b.flac"}], "line 2: write"),
        ([{"wav": 3, "text": "x"}], "line 1: write"),
        ([{"wav": "b.flac", "text": "x", "words": [{"text": "x"}]}], "line 1: write"),
        ([{"wav": "no.wav", "text": "x"}], "line 1: there is no"),
    ],
    ids=str,
)
def test_a_wrong_manifest_is_refused_before_anything_is_heard(folder: Path, lines: list[Any], says: str) -> None:
    write(folder, *lines)
    with pytest.raises(UsageError, match=says) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def test_no_manifest(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.jsonl"):
        with pytest.raises(UsageError, match="cannot read the manifest"):
            read_manifest(path)


def test_a_recording_that_is_no_sound(folder: Path) -> None:
    (folder / "c.wav").write_text("no sound")
    (recording,) = read_manifest(write(folder, {"wav": "c.wav", "text": "x"})).recordings
    with pytest.raises(AudioFileError, match="not a sound file"):
        recording.padded()


def test_the_built_in_set_says_that_it_is_synthetic() -> None:
    found = built_in(5)
    assert found.synthetic
    assert "synthetic" in found.name
    assert len(found.recordings) == 5
    assert len({recording.name.split(":")[0] for recording in found.recordings}) == 4
    for recording in found.recordings:
        assert len(recording.pcm()) > 16_000
        assert np.abs(recording.pcm()).max() > 3_000


def test_the_sounds_without_words_differ_in_kind_and_repeat_by_seed() -> None:
    sounds, again = non_speech(1.5, seed=3), non_speech(1.5, seed=3)
    made_up = ("silence", "white noise", "pink noise", "tones")  # eSpeak itself varies by a hair
    assert list(sounds) == ["silence", "white noise", "pink noise", "tones", "babble", "foreign speech"]
    for kind, pcm in sounds.items():
        assert (len(pcm), pcm.dtype) == (24_000, np.int16)
        assert kind not in made_up or np.array_equal(pcm, again[kind])
    assert not sounds["silence"].any()
    rms = {kind: float(np.sqrt(np.mean(pcm.astype(float) ** 2))) for kind, pcm in sounds.items()}
    assert rms["white noise"] == pytest.approx(32768 * 10 ** (-30 / 20), rel=0.01)
    assert rms["tones"] == pytest.approx(32768 * 10 ** (-26 / 20), rel=0.01)

    def low_share(pcm: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(pcm.astype(float))) ** 2
        return float(power[: len(power) // 8].sum() / power.sum())  # below 1 kHz

    assert low_share(sounds["white noise"]) == pytest.approx(1 / 8, abs=0.03)
    assert low_share(sounds["pink noise"]) > 0.5
