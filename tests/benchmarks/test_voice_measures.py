"""Measures of speech on sounds whose measures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay_benchmarks.voice_measures import HOP_SAMPLES, likeness, log_bands, mel_cepstra, pitch_hz, seam, warped

Float = NDArray[np.float64]


def pcm_of(samples: Float, peak: float = 8000) -> Int16Array:
    return np.rint(samples / np.abs(samples).max() * peak).astype(np.int16)


def buzz(hertz: float | Float, seconds: float = 0.5) -> Float:
    """Harmonics that fall by 6 dB an octave, like a voice without a mouth."""
    pitch = np.broadcast_to(hertz, round(seconds * VOICE_RATE_HZ))
    phase = np.cumsum(2 * np.pi * pitch / VOICE_RATE_HZ)
    count = int(8000 / np.max(pitch))
    return np.sum([np.sin(n * phase) / n for n in range(1, count)], axis=0)


def glide(low: float, high: float, seconds: float) -> Float:
    return np.geomspace(low, high, round(seconds * VOICE_RATE_HZ))


@pytest.mark.parametrize("hertz", [80.0, 123.4, 220.0, 410.0])
def test_the_pitch_of_a_buzz(hertz: float) -> None:
    found = pitch_hz(pcm_of(buzz(hertz)))[3:-3]
    np.testing.assert_allclose(found, hertz, rtol=0.01)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = pcm_of(np.random.default_rng(0).standard_normal(VOICE_RATE_HZ))
    assert np.isnan(pitch_hz(noise)).mean() > 0.9
    assert np.isnan(pitch_hz(np.zeros(VOICE_RATE_HZ, np.int16))).all()
    assert len(pitch_hz(np.zeros(0, np.int16))) == 0


def test_a_sound_is_like_itself_at_any_level() -> None:
    sound = buzz(glide(100, 200, 1.0), 1.0)
    same = likeness(pcm_of(sound), pcm_of(sound, peak=2000))
    assert same.distortion_db < 0.1
    assert same.pitch_correlation == pytest.approx(1, abs=0.01)
    assert same.pitch_semitones == pytest.approx(0, abs=0.1)
    assert same.length_ratio == 1


def test_another_melody_is_told_from_the_same_one_transposed() -> None:
    rising, higher, falling = (buzz(glide(*ends, 1.0), 1.0) for ends in ((100, 160), (125, 200), (160, 100)))
    transposed, turned = likeness(pcm_of(rising), pcm_of(higher)), likeness(pcm_of(rising), pcm_of(falling))
    assert transposed.pitch_correlation is not None
    assert turned.pitch_correlation is not None
    assert transposed.pitch_correlation > 0.95
    assert turned.pitch_correlation < 0.5


def test_distortion_is_the_difference_of_spectra_in_decibels() -> None:
    """Of a smooth filter: the root mean square over the bands of its gain in dB, the mean taken away."""
    noise = np.random.default_rng(1).standard_normal(8 * VOICE_RATE_HZ)
    filtered = noise + 0.8 * np.roll(noise, 1)
    cepstra = (mel_cepstra(pcm_of(noise)) - mel_cepstra(pcm_of(filtered))).mean(axis=0)
    found = 10 / math.log(10) * math.sqrt(2 * (cepstra**2).sum())
    gain = (log_bands(pcm_of(filtered)) - log_bands(pcm_of(noise))).mean(axis=0) * 20 / math.log(10)
    assert found == pytest.approx(float(np.std(gain)), rel=0.05)
    # |1 + 0.8 exp(-iw)| falls from 1.8 at 0 Hz to 1.012 in the middle of the last band, 7.48 kHz: by 5.0 dB.
    assert np.ptp(gain) == pytest.approx(5.0, abs=0.2)


def test_too_little_to_compare() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        likeness(np.ones(HOP_SAMPLES - 1, np.int16), np.ones(VOICE_RATE_HZ, np.int16))
    short = likeness(pcm_of(buzz(100, 0.1)), pcm_of(buzz(100, 0.1)))
    assert short.pitch_correlation is None


NUMBERS = arrays.arrays(np.float64, st.tuples(st.integers(1, 6), st.just(1)), elements=st.integers(-3, 3).map(float))


def cheapest(one: Float, other: Float) -> float:
    """The slow, obvious way: every path."""

    def rest(i: int, j: int) -> float:
        here = float(np.linalg.norm(one[i] - other[j]))
        steps = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
        ahead = [rest(*step) for step in steps if step[0] < len(one) and step[1] < len(other)]
        return here + (min(ahead) if ahead else 0)

    return rest(0, 0)


@given(NUMBERS, NUMBERS)
def test_warping_takes_the_cheapest_path(one: Float, other: Float) -> None:
    first, second = warped(one, other)
    assert (first[0], second[0]) == (0, 0)
    assert (first[-1], second[-1]) == (len(one) - 1, len(other) - 1)
    steps = set(zip(np.diff(first).tolist(), np.diff(second).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    cost = sum(float(np.linalg.norm(one[i] - other[j])) for i, j in zip(first, second, strict=True))
    assert cost == pytest.approx(cheapest(one, other))


def test_a_jump_of_pitch_is_seen_at_the_seam_and_nowhere_else() -> None:
    low, high = buzz(120), buzz(180)
    both = pcm_of(np.concatenate([low, high]))
    place = len(low)
    at, before = seam(both, place), seam(both, place - 10 * HOP_SAMPLES)
    assert at.pitch_jump_semitones == pytest.approx(12 * math.log2(180 / 120), abs=0.3)
    assert before.pitch_jump_semitones == pytest.approx(0, abs=0.1)
    assert at.flux_db > 3 * before.flux_db


def test_a_gap_is_seen_at_the_seam() -> None:
    tone = buzz(120)
    gap = np.zeros(VOICE_RATE_HZ // 10)
    whole, cut = pcm_of(np.concatenate([tone, tone])), pcm_of(np.concatenate([tone, gap, tone]))
    assert seam(cut, len(tone)).flux_db > seam(whole, len(tone)).flux_db + 10
    assert seam(cut, len(tone)).pitch_jump_semitones is None


@pytest.mark.parametrize("sample", [0, -240, VOICE_RATE_HZ])
def test_a_seam_outside(sample: int) -> None:
    with pytest.raises(ValueError, match="not inside"):
        seam(np.ones(VOICE_RATE_HZ, np.int16), sample)
