from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio import (
    BYTES_PER_SAMPLE,
    RATE_HZ,
    Format,
    Framer,
    Int16Array,
    Resampler,
    decode_bytes,
    encode_bytes,
    ms_of,
    samples_in,
    to_float32,
    to_int16,
)

FORMATS: tuple[Format, ...] = get_args(Format)
pcm_arrays = st.lists(st.integers(-32768, 32767), max_size=200).map(lambda x: np.array(x, dtype=np.int16))


def test_durations_are_exact() -> None:
    assert samples_in(20, 16_000) == 320
    assert samples_in(0, 24_000) == 0
    with pytest.raises(ValueError, match="not a whole number of samples"):
        samples_in(1, 22_050)


@given(st.integers(0, 10_000_000), st.sampled_from([8_000, 16_000, 24_000]))
def test_milliseconds_round_to_nearest(duration_ms: int, rate_hz: int) -> None:
    samples = samples_in(duration_ms, rate_hz)
    assert ms_of(samples, rate_hz) == duration_ms
    assert ms_of(samples + rate_hz // 4000, rate_hz) == duration_ms  # a quarter of a millisecond more


@pytest.mark.parametrize("form", ["g711_ulaw", "g711_alaw"])
def test_every_byte_of_g711_survives(form: Format) -> None:
    codes = bytes(range(256))
    pcm = decode_bytes(codes, form)
    again = decode_bytes(encode_bytes(pcm, form), form)
    np.testing.assert_array_equal(again, pcm)
    # u-law has two codes for zero; every other code is the only one of its value.
    assert len(set(pcm.tolist())) == (255 if form == "g711_ulaw" else 256)


def test_g711_values_of_the_standard() -> None:
    """ITU-T G.711 tables 1 and 2, scaled to 16 bits: the ends and the middle of both laws."""
    np.testing.assert_array_equal(
        decode_bytes(bytes([0x00, 0x7F, 0x80, 0xFF, 0xF0]), "g711_ulaw"), [-32124, 0, 32124, 0, 120]
    )
    np.testing.assert_array_equal(
        decode_bytes(bytes([0x2A, 0xAA, 0x55, 0xD5, 0xD4]), "g711_alaw"), [-32256, 32256, -8, 8, 24]
    )


@given(pcm_arrays, st.sampled_from(FORMATS))
def test_encoding_takes_the_nearest_level(pcm: Int16Array, form: Format) -> None:
    data = encode_bytes(pcm, form)
    assert len(data) == len(pcm) * BYTES_PER_SAMPLE[form]
    back = decode_bytes(data, form).astype(np.int32)
    assert back.shape == pcm.shape
    if form == "pcm16":
        np.testing.assert_array_equal(back, pcm)
        return
    levels = decode_bytes(bytes(range(256)), form).astype(np.int32)
    nearest = np.abs(levels[None, :] - pcm[:, None].astype(np.int32)).min(axis=1) if len(pcm) else pcm
    np.testing.assert_array_equal(np.abs(back - pcm), nearest)


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="even number of bytes"):
        decode_bytes(b"abc", "pcm16")


@given(pcm_arrays)
def test_float_round_trip(pcm: Int16Array) -> None:
    x = to_float32(pcm)
    assert x.dtype == np.float32
    assert np.abs(to_int16(x).astype(int) - pcm).max(initial=0) <= 1


def test_float_is_clipped() -> None:
    np.testing.assert_array_equal(to_int16(np.array([-9.0, -1.0, 0.0, 1.0, 9.0])), [-32768, -32767, 0, 32767, 32767])


@pytest.mark.parametrize(("from_hz", "to_hz"), list(itertools.permutations([8_000, 16_000, 24_000], 2)))
def test_resampling_keeps_a_tone(from_hz: int, to_hz: int) -> None:
    seconds, tone_hz = 0.5, 440.0
    pcm = to_int16(0.5 * np.sin(2 * np.pi * tone_hz * np.arange(int(from_hz * seconds)) / from_hz))
    out = Resampler(from_hz, to_hz).step(pcm, last=True)
    assert len(out) == int(to_hz * seconds)
    expected = 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(len(out)) / to_hz)
    edge = to_hz // 50
    assert np.abs(to_float32(out)[edge:-edge] - expected[edge:-edge]).max() < 0.005


@given(
    pcm=st.integers(0, 3000).map(lambda n: np.random.default_rng(n).integers(-9000, 9000, n).astype(np.int16)),
    chunk=st.integers(1, 500),
    rates=st.sampled_from([(8_000, 16_000), (24_000, 16_000), (24_000, 8_000), (16_000, 16_000)]),
)
def test_resampling_in_chunks_gives_the_same(pcm: Int16Array, chunk: int, rates: tuple[int, int]) -> None:
    whole = Resampler(*rates).step(pcm, last=True)
    stream = Resampler(*rates)
    parts = [stream.step(pcm[at : at + chunk]) for at in range(0, len(pcm), chunk)]
    parts.append(stream.step(pcm[:0], last=True))
    chunked = np.concatenate(parts)
    assert abs(len(chunked) - len(pcm) * rates[1] / rates[0]) <= 1
    np.testing.assert_allclose(chunked, whole[: len(chunked)], atol=1)
    stream.reset()
    np.testing.assert_array_equal(stream.step(pcm, last=True), whole)


def test_resampling_needs_little_look_ahead() -> None:
    stream = Resampler(24_000, 16_000)
    out = sum(len(stream.step(np.zeros(480, np.int16))) for _ in range(50))
    assert out >= 50 * 320 - samples_in(10, 16_000)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 30))
def test_framer_cuts_without_loss(lengths: list[int], frame_samples: int) -> None:
    framer = Framer(frame_samples)
    stream = np.arange(sum(lengths), dtype=np.int16)
    edges = [0, *itertools.accumulate(lengths)]
    frames = [frame for a, b in itertools.pairwise(edges) for frame in framer.step(stream[a:b])]
    assert all(len(frame) == frame_samples for frame in frames)
    assert len(frames) == len(stream) // frame_samples
    if frames:
        np.testing.assert_array_equal(np.concatenate(frames), stream[: len(frames) * frame_samples])


def test_framer_does_not_hold_on_to_the_callers_buffer() -> None:
    framer = Framer(4)
    buffer = np.ones(3, np.int16)
    assert framer.step(buffer) == []
    buffer[:] = 9
    np.testing.assert_array_equal(framer.step(np.ones(1, np.int16))[0], [1, 1, 1, 1])


def test_every_format_has_a_rate() -> None:
    assert set(RATE_HZ) == set(BYTES_PER_SAMPLE) == set(FORMATS)
