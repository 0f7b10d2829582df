from __future__ import annotations

import builtins
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio import Int16Array
from relay.client.duplex import Room
from relay.client.echo import FRAME_SAMPLES, Canceller, EchoControl, Guard, Through, echo_control
from relay.errors import EngineUnavailable, UsageError

SECOND = 100 * FRAME_SAMPLES


def voice(seed: int, pitch_hz: float, seconds: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Something like speech: harmonics whose formants and loudness change from syllable to syllable, with pauses."""
    rng = np.random.default_rng(seed)
    syllables = []
    while sum(map(len, syllables)) < seconds * SECOND:
        samples = int(rng.integers(15, 30)) * FRAME_SAMPLES
        harmonics = np.arange(1, int(6000 / pitch_hz))
        formants = rng.uniform((250, 900, 2200), (800, 2200, 3500))
        gain = sum(np.exp(-(((harmonics * pitch_hz - f) / 200.0) ** 2)) for f in formants) + 0.01
        time_s = np.arange(samples) / SECOND
        pitch = pitch_hz * rng.uniform(0.85, 1.2)
        tone = (gain[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * time_s)).sum(axis=0)
        syllables.append(tone * np.sin(np.pi * np.arange(samples) / samples) ** 0.5)
        syllables.append(np.zeros(int(rng.integers(2, 8)) * FRAME_SAMPLES))
    joined = np.concatenate(syllables)[: int(seconds * SECOND)]
    return joined * (3000 / np.sqrt(np.mean(joined**2)))


def through_room(played: Int16Array, delay_frames: int, level_db: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The echo of what is played, in a room of its own, exactly `level_db` above it."""
    rng = np.random.default_rng(delay_frames)
    tail = rng.standard_normal(SECOND // 4) * np.exp(-np.arange(SECOND // 4) / (0.05 * SECOND)) * 0.02
    response = np.concatenate((np.zeros(delay_frames * FRAME_SAMPLES + 77), [1.0], tail))
    size = 1 << (len(played) + len(response)).bit_length()
    echo = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(response, size), size)[: len(played)]
    return echo * 10 ** (level_db / 20) * np.sqrt(np.mean(played.astype(float) ** 2) / np.mean(echo**2))


def int16(x: np.ndarray[Any, np.dtype[np.float64]]) -> Int16Array:
    return np.clip(np.rint(x), -32768, 32767).astype(np.int16)


def level_db(pcm: Int16Array) -> float:
    return float(10 * np.log10(np.mean(pcm.astype(float) ** 2) + 1e-9))


@pytest.mark.parametrize("control", [Through(), Guard(), Canceller()])
@pytest.mark.parametrize(("heard", "played"), [(240, 480), (100, 100), (241, 241)])
def test_what_is_not_the_same_frames_is_refused(control: EchoControl, heard: int, played: int) -> None:
    with pytest.raises(ValueError, match="frames"):
        control.step(np.zeros(heard, np.int16), np.zeros(played, np.int16))


@settings(max_examples=30)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=40), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_guard_takes_anything_and_gives_as_much(spikes: list[int], frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    guard = Guard()
    for _ in range(5):
        heard, played = (np.tile(rng.permutation(np.array(spikes, np.int16)), 240)[: frames * 240] for _ in range(2))
        count = len(heard) // 240 * 240
        out = guard.step(heard[:count], played[:count])
        assert out.dtype == np.int16
        assert len(out) == count


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_nothing_played_means_nothing_changed(seed: int) -> None:
    heard = np.random.default_rng(seed).integers(-32768, 32768, 60 * 240).astype(np.int16)
    guard = Guard()
    assert np.array_equal(guard.step(heard, np.zeros_like(heard)), heard)
    assert guard.is_open


@settings(max_examples=20)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_the_guard_does_not_mind_how_the_stream_is_cut(cuts: list[int]) -> None:
    played = int16(voice(1, 120, 3))
    heard = int16(through_room(played, 4, -20)) + Room(2).read(len(played))
    guard, at, pieces = Guard(), 0, []
    for frames in cuts:
        block = slice(at, at + frames * FRAME_SAMPLES)
        pieces.append(guard.step(heard[block], played[block]))
        at += len(pieces[-1])
    whole = Guard().step(heard[:at], played[:at])
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(
    ("delay", "echo_db", "seed"), [(0, -20.0, 0), (20, -10.0, 5), (40, -30.0, 9), (7, -20.0, 700), (30, -20.0, 33)]
)
def test_the_guard_shuts_out_the_echo_and_lets_another_voice_in(delay: int, echo_db: float, seed: int) -> None:
    played = int16(voice(seed, 110, 8))
    echo = through_room(played, delay, echo_db)
    noise = Room(seed % 7).read(len(played))
    guard = Guard()
    alone = guard.step(int16(echo + noise), played)
    assert level_db(alone[SECOND:]) < level_db(noise) + 10  # next to nothing but the room
    user = np.zeros(2 * SECOND)
    user[SECOND:] = voice(seed + 1, 210, 1)
    user *= np.sqrt(np.mean(echo**2) / np.mean(user[SECOND:] ** 2))
    both = int16(echo[: 2 * SECOND] + user + noise[: 2 * SECOND])
    out = guard.step(both, played[: 2 * SECOND])
    assert np.mean(out[SECOND + SECOND // 5 :] == both[SECOND + SECOND // 5 :]) > 0.5


def test_the_canceller_removes_the_echo_and_keeps_the_voice() -> None:
    played = int16(voice(3, 110, 6))
    noise = Room(1).read(len(played))
    heard = int16(through_room(played, 5, -20) + noise)
    canceller = Canceller()
    alone = canceller.step(heard, played)
    assert level_db(alone[2 * SECOND :]) < level_db(heard[2 * SECOND :]) - 15
    user = int16(voice(4, 210, 2))
    kept = canceller.step(user, np.zeros_like(user))
    assert level_db(kept) > level_db(user) - 3


def test_names() -> None:
    assert isinstance(echo_control("auto"), Canceller)
    assert isinstance(echo_control("cancel"), Canceller)
    assert isinstance(echo_control("guard"), Guard)
    assert isinstance(echo_control("off"), Through)
    with pytest.raises(UsageError, match="choose one of auto, cancel, guard, off"):
        echo_control("loud")  # type: ignore[arg-type]


def test_without_the_package_the_guard_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "pywebrtc_audio":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(echo_control("auto"), Guard)
    with pytest.raises(EngineUnavailable, match=r"relay-dialogue\[talk\]"):
        echo_control("cancel")
