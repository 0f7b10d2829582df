from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.dialogue import Reply
from relay.client.duplex import PacedCard, Room, Script
from relay.client.playout import PlayoutClock
from relay.client.timing import first_audible, onset_of, speech_bounds


def test_first_audible_sample() -> None:
    assert first_audible(np.array([0, 5, -90, 103, -104, 9], dtype=np.int16)) == 4
    assert first_audible(np.array([-32768], dtype=np.int16)) == 0
    assert first_audible(np.zeros(10, dtype=np.int16)) is None
    assert first_audible(np.zeros(0, dtype=np.int16)) is None


@given(st.integers(0, 40), st.integers(5, 60), st.integers(0, 40), st.booleans())
def test_speech_is_found_to_the_frame(before: int, long: int, after: int, noisy: bool) -> None:
    tone = (8000 * np.sin(np.arange(long * 240) * 0.3)).astype(np.int16)
    pcm = np.concatenate([np.zeros(before * 240, np.int16), tone, np.zeros(after * 240, np.int16)])
    if noisy:
        pcm = pcm + Room(level_dbfs=-60.0).read(len(pcm))
    assert speech_bounds(pcm) == (before * 240, (before + long) * 240 - 1)


@pytest.mark.parametrize("samples", [0, 100, 24_000])
def test_silence_has_no_speech(samples: int) -> None:
    with pytest.raises(ValueError):
        speech_bounds(np.zeros(samples, dtype=np.int16))


def card() -> PacedCard:
    async def send(pcm: object) -> None: ...

    made = PacedCard(Script(), PlayoutClock(), send, block_ms=10)
    made.started_s = 100.0
    return made


def test_the_parts_of_an_onset_add_up() -> None:
    # Speech ends at 1.000 s; the server decides when it has 1.525 s and says so at 1.532 s; it takes 170 ms more, its
    # audio arrives at 1.703 s, and the first audible sample is played at 1.750 s.
    reply = Reply("r", created_s=101.6, turn_ended_s=101.532, first_audio_s=101.703)
    reply.metrics = {
        "decided_ms": 1525,
        "speech_end_ms": 1010,
        "stages_ms": {"endpointing": 515, "ears": 30.0, "llm_first": 60.0, "voice_first": 80.0, "made_up": 1.0},
    }
    onset = onset_of(reply, card(), speech_end=24_000, first_played=42_000)
    assert onset.onset_ms == pytest.approx(750.0)
    assert onset.stages_ms == pytest.approx(
        {
            "endpointing": 525.0,
            "ears": 30.0,
            "llm_first": 60.0,
            "voice_first": 80.0,
            "transport": 7.0,
            "playout": 47.0,
        }
    )
    assert onset.unaccounted_ms == pytest.approx(1.0)


def test_a_server_without_metrics_leaves_its_time_unaccounted() -> None:
    reply = Reply("r", created_s=101.6, first_audio_s=101.7)
    onset = onset_of(reply, card(), speech_end=24_000, first_played=42_000)
    assert onset.stages_ms == pytest.approx({"playout": 50.0})
    assert onset.unaccounted_ms == pytest.approx(700.0)
