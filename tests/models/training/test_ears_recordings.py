"""Recordings of people: what is cut out of them, and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from relay_models.training.ears_batches import group_of
from relay_models.training.ears_data import RATE_HZ, Clips, Guard
from relay_models.training.ears_natural import main, trimmed, usable
from relay_models.training.ears_pseudo import LONGEST_S, PAUSE_FRAMES, SHORTEST_S, Segment, cut


def tone(seconds: float, level: float = 8000.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (level * np.sin(2 * np.pi * 220 * time)).astype(np.int16)


def hush(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 6, int(seconds * RATE_HZ)).astype(np.int16)


def test_quiet_before_and_after_speech_is_cut_and_the_peak_set() -> None:
    kept = trimmed(np.concatenate((hush(1.0), tone(1.0), hush(0.3), tone(0.5), hush(2.0))))
    assert kept is not None
    assert len(kept) / RATE_HZ == pytest.approx(1.8 + 0.28, abs=0.05)
    assert np.abs(kept).max() == 16_000


@pytest.mark.parametrize("pcm", [hush(0.05), np.zeros(RATE_HZ, np.int16)])
def test_a_recording_of_nobody_is_refused(pcm: np.ndarray) -> None:
    assert trimmed(pcm) is None


def manifest(folder: Path, rows: dict[str, tuple[str, float]]) -> Path:
    folder.mkdir()
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for name, (text, seconds) in rows.items():
            soundfile.write(folder / name, np.concatenate((hush(0.4), tone(seconds), hush(0.4))), RATE_HZ)
            file.write(json.dumps({"wav": name, "text": text, "speaker": name[0]}) + "\n")
    return folder


def test_held_out_texts_and_texts_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    folder = manifest(
        tmp_path / "people",
        {
            "a.flac": ("Dr. Smith has 3 dogs.", 1.5),
            "b.flac": ("one two three four five six seven", 2.0),
            "c.flac": ("far too many words for so short a time as this one is", 0.7),
            "d.flac": ("hm", 9.0),
            "e.flac": ("§§", 1.0),
        },
    )
    guard = Guard(["he said one two three four five six and stopped"])
    assert [(text, speaker) for _, text, speaker in usable(folder, guard)] == [("doctor smith has three dogs", "a")]


def test_packing_and_unpacking_keeps_clips_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = manifest(tmp_path / "people", {f"{i}.flac": (f"word number {i}", 1.0) for i in range(1, 5)})
    for name in ("kathleen", "strangers"):
        Clips.join([(tone(0.5), "held out", "x")]).save(tmp_path / "clips" / name, compression=1.0)
    for arguments in ([str(folder), "--part-hours", "0.001"], ["--unpack", str(tmp_path / "shards")]):
        monkeypatch.setattr("sys.argv", ["ears_natural", str(tmp_path), str(tmp_path / "out"), *arguments])
        main()
    shards = sorted((tmp_path / "shards").glob("*.json"))
    assert len(shards) == 2
    assert {group_of(path.stem) for path in shards} == {"people"}
    texts = [text for path in shards for text in json.loads(path.read_text())["texts"]]
    assert sorted(texts) == ["word number four", "word number one", "word number three", "word number two"]


@given(st.lists(st.tuples(st.integers(10, 120), st.integers(0, 40), st.booleans()), max_size=30))
def test_pieces_end_at_pauses_and_hold_every_word_between(rows: list[tuple[int, int, bool]]) -> None:
    segments, now = [], 0
    for number, (word, pause, noise) in enumerate(rows):
        segments.append(Segment(f"w{chr(97 + number % 26)}({number % 3})", now, now + word - 1, -1.0))
        now += word
        if pause:
            segments.append(Segment("[NOISE]" if noise else "<sil>", now, now + pause - 1, 0.0))
            now += pause
    spoken = [segment for segment in segments if segment.spoken]
    pieces = list(cut(segments))
    for piece in pieces:
        assert SHORTEST_S * 100 <= piece.last - piece.first + 1 <= LONGEST_S * 100
        inside = [s for s in spoken if piece.first <= s.first and s.last <= piece.last]
        assert piece.text.split() == [s.word.partition("(")[0] for s in inside]
        after = [s for s in spoken if s.first > piece.last]
        assert not after or after[0].first - piece.last - 1 >= PAUSE_FRAMES
        assert piece.sureness == pytest.approx(-1.0)
    assert all(one.last < other.first for one, other in pairwise(pieces))
