from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import relay
from relay.client.files import load
from relay_benchmarks.quality_align import aligned
from relay_benchmarks.quality_set import Recording, RecordingSet, TimedWord

QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"
TEXT = "Can you help me find a restaurant?"


def align(*recordings: Recording) -> tuple[Recording, ...]:
    return aligned(RecordingSet("set", recordings)).recordings


def test_the_words_of_a_question_are_found_in_their_places() -> None:
    pcm = load(QUESTION, 16_000)
    begin_s, end_s = 0.4, len(pcm) / 16_000 - 0.4  # room noise lies around it
    (recording,) = align(Recording("question", TEXT, QUESTION))
    assert recording.words_by == "alignment"
    assert [word.text for word in recording.words] == TEXT.lower().rstrip("?").split()
    times = [second for word in recording.words for second in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(begin_s, abs=0.1)
    assert times[-1] == pytest.approx(end_s, abs=0.15)


def test_times_move_with_the_audio() -> None:
    pcm = load(QUESTION, 16_000)
    later = np.concatenate([pcm[:8_000][::-1] // 8, pcm])
    first, second = align(Recording("now", TEXT, pcm), Recording("later", TEXT, later))
    shifts = [b.start_s - a.start_s for a, b in zip(first.words[1:], second.words[1:], strict=True)]
    assert shifts == pytest.approx([0.5] * len(shifts), abs=0.05)


def test_what_cannot_be_placed_or_is_known_already_stays_as_it_is() -> None:
    known = (TimedWord("x", 0.0, 1.0),)
    silence = np.zeros(1_600, dtype=np.int16)
    unknown, empty, timed, long = align(
        Recording("unknown", "xyzzyx plugh", QUESTION),
        Recording("empty", "...", silence),
        Recording("timed", "x", silence, known),
        Recording("long", TEXT * 20, silence),
    )
    assert unknown.words == empty.words == long.words == ()
    assert (timed.words, timed.words_by) == (known, "reference")
