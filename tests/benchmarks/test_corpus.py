from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from relay.client.timing import speech_bounds
from relay.errors import EngineUnavailable
from relay_benchmarks.corpus import INTERRUPTIONS, TURNS, interruptions, make_question, utterances
from relay_benchmarks.espeak import Spoken, speak
from relay_benchmarks.latency import plan


def test_utterances_are_labelled_to_the_frame() -> None:
    made = utterances(24, seed=5)
    paused = [utterance for utterance in made if utterance.pause is not None]
    assert len(paused) == 8
    assert len({utterance.text for utterance in made}) == len(TURNS)
    for utterance in made:
        assert (utterance.speech_start, utterance.speech_end) == (0, len(utterance.pcm) - 1)
        if utterance.pause is None:
            first, last = speech_bounds(utterance.pcm)
            assert first <= 480  # rounding after scaling may move a frame that was on the edge
            assert last >= len(utterance.pcm) - 1 - 480
        assert 0.45 < np.abs(utterance.pcm).max() / 32768 < 0.55
        if utterance.pause is not None:
            begin, end = utterance.pause
            assert 0.3 * 24_000 <= end - begin < 1.5 * 24_000
            assert not utterance.pcm[begin:end].any()
            assert utterance.pcm[begin - 240 : begin].any()
            assert utterance.pcm[end : end + 240].any()


def test_the_same_seed_plans_the_same_turns() -> None:
    first, again = plan(9, seed=3), plan(9, seed=3)
    key = [(turn.utterance.text, turn.utterance.pause, turn.gap_ms, turn.offset_samples) for turn in first]
    assert key == [(turn.utterance.text, turn.utterance.pause, turn.gap_ms, turn.offset_samples) for turn in again]
    assert sum(1 + (turn.interruption is not None) for turn in first) == 9
    assert any(turn.interruption is not None for turn in first)


def test_interruptions_are_short() -> None:
    made = interruptions(5, seed=0)
    assert {utterance.text for utterance in made} == set(INTERRUPTIONS)
    assert all(utterance.pause is None and len(utterance.pcm) < 4 * 24_000 for utterance in made)


def test_the_bundled_question_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    make_question(path)
    pcm, rate_hz = soundfile.read(path, dtype="int16")
    assert rate_hz == 24_000
    assert pcm.ndim == 1
    assert path.stat().st_size < 300_000
    zeros = np.convolve(pcm == 0, np.ones(24), "valid")
    assert zeros.max() < 24  # not one millisecond of digital silence
    first, last = speech_bounds(pcm)
    assert first >= 9_600 - 240
    assert last <= len(pcm) - 9_600


def test_a_voice_that_does_not_exist_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="no-such-voice"):
        speak([Spoken("hello", voice="no-such-voice")])
