"""From bytes to utterances: the same whatever the messages' sizes, and deaf to room noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio import Format, Resampler, encode_bytes
from relay.endpoint import Ended, Endpointing, Started
from relay.stages.listen import Intake, Speech

RATE_HZ = 24_000


def noise(seconds: float, level: float = 20.0, seed: int = 0) -> np.ndarray:
    """Room noise: white noise with its highs rolled off."""
    x = np.random.default_rng(seed).standard_normal(int(seconds * RATE_HZ))
    return np.convolve(x, np.ones(8) / 8**0.5, mode="same") * level


def vowel(seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return sum(np.sin(2 * np.pi * 110 * k * t) / k for k in range(1, 30)) * 4000 * (1 + 0.5 * np.sin(25 * t))


def audio() -> np.ndarray:
    parts = [noise(0.6), vowel(0.7), noise(0.3), vowel(0.5), noise(0.8), vowel(0.4), noise(0.7)]
    return np.clip(np.concatenate(parts) + noise(4.0, 5.0, seed=1)[: sum(map(len, parts))], -32768, 32767).astype(
        np.int16
    )


AUDIO = audio()


def take(data: bytes, cuts: list[int], form: Format = "pcm16", width: int = 2) -> list[object]:
    intake = Intake(form, Endpointing())
    found: list[object] = []
    edges = sorted({0, len(data), *(cut % len(data) // width * width for cut in cuts)})
    for begin, end in pairwise(edges):
        found += [item.pcm.tobytes() if isinstance(item, Speech) else item for item in intake.push(data[begin:end])]
    return found


WHOLE = take(AUDIO.tobytes(), [])


@settings(max_examples=25)
@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_any_split_into_messages_gives_the_same(cuts: list[int]) -> None:
    assert take(AUDIO.tobytes(), cuts) == WHOLE


def test_utterances_are_found_where_they_are() -> None:
    marks = [item for item in WHOLE if not isinstance(item, bytes)]
    assert [type(mark) for mark in marks] == [Started, Ended, Started, Ended]
    truth_s = [(0.6, 2.1), (2.9, 3.3)]
    for (begin_s, end_s), started, ended in zip(truth_s, marks[::2], marks[1::2], strict=True):
        assert isinstance(started, Started)
        assert isinstance(ended, Ended)
        assert abs(started.speech_sample / 16_000 - begin_s) < 0.08
        assert -0.04 < ended.speech_sample / 16_000 - end_s < 0.25  # WebRTC's own hangover
        assert ended.decided_sample - ended.speech_sample == 8000


def test_speech_is_what_lies_between_padding_included() -> None:
    at = WHOLE.index(next(item for item in WHOLE if isinstance(item, Ended)))
    started, ended = WHOLE[0], WHOLE[at]
    assert isinstance(started, Started)
    assert isinstance(ended, Ended)
    heard = np.frombuffer(b"".join(WHOLE[1:at]), dtype=np.int16)  # type: ignore[arg-type]
    resampled = Resampler(RATE_HZ, 16_000).step(AUDIO)
    assert np.array_equal(heard, resampled[started.audio_sample : ended.decided_sample])


def test_telephone_formats_are_heard_too() -> None:
    narrow = Resampler(RATE_HZ, 8_000).step(AUDIO)
    forms: tuple[Format, ...] = ("g711_ulaw", "g711_alaw")
    for form in forms:
        marks = [item for item in take(encode_bytes(narrow, form), [], form, 1) if not isinstance(item, bytes)]
        assert [type(mark) for mark in marks] == [Started, Ended, Started, Ended]


def test_ten_minutes_of_room_noise_are_silence() -> None:
    intake = Intake("pcm16", Endpointing())
    block = noise(10.0, 60.0).astype(np.int16).tobytes()
    for repeat in range(6 * 10):
        louder = (noise(10.0, 30.0 + repeat, seed=repeat)).astype(np.int16).tobytes() if repeat % 3 == 0 else block
        assert not list(intake.push(louder)), f"took noise for speech in minute {repeat / 6:.1f}"


def test_by_hand_the_client_alone_says_where_turns_end() -> None:
    intake = Intake("pcm16", None)
    first = list(intake.push(AUDIO.tobytes()))
    assert isinstance(first[0], Started)
    assert all(isinstance(item, Speech) for item in first[1:])
    assert intake.end() is not None
    assert intake.end() is None
    assert isinstance(next(iter(intake.push(AUDIO.tobytes()))), Started)
    intake.clear()
    assert intake.end() is None


def test_noise_that_a_browsers_gain_control_lifts_is_not_speech() -> None:
    intake = Intake("pcm16", Endpointing())
    quiet = noise(12.0, 1.0)
    rising_dbfs = np.interp(np.arange(len(quiet)) / RATE_HZ, [0.0, 1.0, 6.5, 12.0], [-77.0, -77.0, -45.0, -45.0])
    lifted = quiet / quiet.std() * 32768.0 * 10 ** (rising_dbfs / 20)
    assert not list(intake.push(np.rint(lifted).astype(np.int16).tobytes()))
