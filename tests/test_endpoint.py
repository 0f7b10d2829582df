"""Endpointing on the sample clock."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import FRAME_MS, FRAME_SAMPLES, Ended, Endpointer, Endpointing, Started

FLAGS = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=30).map(
    lambda runs: [flag for flag, count in runs for _ in range(count)]
)
SETTINGS = st.builds(
    Endpointing,
    start_ms=st.integers(1, 12).map(lambda n: n * FRAME_MS),
    silence_ms=st.integers(1, 50).map(lambda n: n * FRAME_MS),
    padding_ms=st.integers(0, 25).map(lambda n: n * FRAME_MS),
    max_utterance_ms=st.integers(30, 300).map(lambda n: n * FRAME_MS),
)


@given(FLAGS, SETTINGS)
def test_utterances_alternate_do_not_overlap_and_end_as_set(flags: list[bool], settings: Endpointing) -> None:
    endpointer = Endpointer(settings)
    found: list[Started | Ended] = []
    for number, flag in enumerate(flags, 1):
        event = endpointer.step(flag)
        if event is not None:
            found.append(event)
        if isinstance(event, Started):
            first = event.speech_sample // FRAME_SAMPLES
            assert flags[first]
            assert sum(flags[first:number]) * FRAME_MS >= settings.start_ms
            assert event.speech_sample - event.audio_sample <= settings.padding_ms * 16
        if isinstance(event, Ended):
            assert event.decided_sample == number * FRAME_SAMPLES
            silent_ms = (event.decided_sample - event.speech_sample) // 16
            begun = next(e for e in reversed(found) if isinstance(e, Started))
            too_long = event.decided_sample - begun.speech_sample >= settings.max_utterance_ms * 16
            assert silent_ms == settings.silence_ms or too_long
            assert flags[event.speech_sample // FRAME_SAMPLES - 1]
    assert [type(event) for event in found] == [Started, Ended] * (len(found) // 2) + [Started] * (len(found) % 2)
    for before, after in pairwise(found):
        if isinstance(before, Ended):
            assert isinstance(after, Started)
            assert after.audio_sample >= before.decided_sample


def test_a_click_is_not_speech_and_a_pause_does_not_end_a_turn() -> None:
    endpointer = Endpointer(Endpointing(start_ms=100, silence_ms=500))
    flags = [False] * 20 + [True] * 3 + [False] * 20 + [True] * 20 + [False] * 24 + [True] * 10 + [False] * 25
    events = [event for flag in flags if (event := endpointer.step(flag)) is not None]
    assert events == [
        Started(43 * FRAME_SAMPLES, 28 * FRAME_SAMPLES),
        Ended(97 * FRAME_SAMPLES, 122 * FRAME_SAMPLES),
    ]


@given(FLAGS, SETTINGS)
def test_silence_counts_from_the_last_speech_of_an_utterance(flags: list[bool], settings: Endpointing) -> None:
    endpointer = Endpointer(settings)
    for number, flag in enumerate(flags, 1):
        endpointer.step(flag)
        if not endpointer.in_utterance or flag:
            assert endpointer.silence_ms == 0
        else:
            assert endpointer.silence_ms < settings.silence_ms
            silent = next(n for n, spoken in enumerate(reversed(flags[:number])) if spoken)
            assert endpointer.silence_ms == silent * FRAME_MS
