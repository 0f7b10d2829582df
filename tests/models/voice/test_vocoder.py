from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.state import StreamState
from relay_models.vocoder import (
    DELAY_FRAMES,
    FEATURES,
    MEL_BINS,
    PITCH_HZ,
    Vocoder,
    VocoderConfig,
    envelope_of_mel,
    mel_edges,
    null_frame,
)
from relay_models.vocoder_source import (
    BINS,
    CYCLE,
    HOP_SAMPLES,
    OVERLAP_GAIN,
    RATE_HZ,
    WINDOW_SAMPLES,
    fourier_basis,
    noise_angles,
    pulses,
    window,
)
from tests.models.voice.tiny import voice

DOUBLE = torch.zeros(1, dtype=torch.float64)


def some_features(rows: int, frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, frames, FEATURES, generator=generator, dtype=torch.float64)
    features[:, :, MEL_BINS + 1] = features[:, :, MEL_BINS + 1].sigmoid()
    return features


def test_pulses_are_the_sum_of_all_harmonics() -> None:
    hertz = torch.full((1, 6), 230.0, dtype=torch.float64)
    samples, phase = pulses(hertz, hertz, hertz, torch.ones_like(hertz), torch.tensor([0]))
    step = round(230 * CYCLE / RATE_HZ)
    turns = torch.arange(1, 6 * HOP_SAMPLES + 1, dtype=torch.float64) * step / CYCLE
    expected = sum(torch.cos(2 * math.pi * k * turns) for k in range(1, int(RATE_HZ / 2 / 230) + 1))
    torch.testing.assert_close(samples.flatten(), torch.as_tensor(expected), atol=2e-3, rtol=0)
    assert phase.tolist() == [6 * HOP_SAMPLES * step % CYCLE]


def test_pulses_do_not_drift_and_stand_still_where_there_is_no_sound() -> None:
    hertz = torch.linspace(90, 310, 12, dtype=torch.float64)[None]
    edge = torch.nn.functional.pad(hertz, (1, 1), value=PITCH_HZ)
    voice_ = torch.ones_like(hertz)
    whole, end = pulses(edge[:, :-2], hertz, edge[:, 2:], voice_, torch.tensor([77]))
    one, middle = pulses(edge[:, :5], hertz[:, :5], edge[:, 2:7], voice_[:, :5], torch.tensor([77]))
    two, last = pulses(edge[:, 5:-2], hertz[:, 5:], edge[:, 7:], voice_[:, 5:], middle)
    assert torch.equal(whole, torch.cat((one, two), dim=1))
    assert torch.equal(end, last)
    silent, still = pulses(hertz, hertz, hertz, torch.zeros_like(hertz), torch.tensor([77]))
    assert not silent.any()
    assert still.tolist() == [77]


def test_noise_is_even_and_without_pattern() -> None:
    angles = noise_angles(torch.arange(400)[None], DOUBLE)[0]
    assert angles.min() >= 0
    assert angles.max() < 2 * math.pi
    histogram = torch.histc(angles, 16) / angles.numel()
    assert (histogram - 1 / 16).abs().max() < 2e-3
    x = torch.exp(1j * angles)
    for one, other in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1]), (x[2:], x[:-2])):
        assert (one * other.conj()).mean().abs() < 0.01


def test_frames_that_are_not_filtered_add_up_to_the_source() -> None:
    """Filters of gain 1 give the pulses back: windows, transforms and overlap are exact."""
    shape = window(DOUBLE)
    x = torch.randn(2, 9 * HOP_SAMPLES, dtype=torch.float64)
    cosines, sines = fourier_basis(DOUBLE)
    frames = x.unfold(1, WINDOW_SAMPLES, HOP_SAMPLES) * shape
    spectrum = torch.complex(frames @ cosines, -(frames @ sines))
    torch.testing.assert_close(spectrum, torch.fft.rfft(frames))
    back = torch.fft.irfft(spectrum, WINDOW_SAMPLES) * shape / OVERLAP_GAIN
    total = torch.zeros_like(x)
    for number in range(frames.shape[1]):
        total[:, number * HOP_SAMPLES :][:, :WINDOW_SAMPLES] += back[:, number]
    inner = slice(2 * HOP_SAMPLES, 7 * HOP_SAMPLES)
    torch.testing.assert_close(total[:, inner], x[:, inner])


def test_a_vocoder_with_open_filters_gives_its_pulses() -> None:
    model = Vocoder(VocoderConfig(8, 8, 3, 1)).double().eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[2 * BINS :] = -99
        features = torch.zeros(1, 10, FEATURES, dtype=torch.float64)
        features[:, :, :MEL_BINS] = 2.5  # ln 1
        made = model(features)[0].reshape(10, HOP_SAMPLES)
    hertz = torch.full((1, 10), PITCH_HZ, dtype=torch.float64)
    source, _ = pulses(hertz, hertz, hertz, torch.ones_like(hertz), torch.tensor([0]))
    torch.testing.assert_close(made[2:-2], source[0, 2:-2])


def test_mel_bins_are_interpolated() -> None:
    matrix = envelope_of_mel()
    torch.testing.assert_close(matrix.sum(0), torch.ones(BINS))
    centres = mel_edges()[1:-1]
    frequencies = (centres.float() @ matrix)[20:340]
    expected = torch.linspace(0, RATE_HZ / 2, BINS)[20:340]
    torch.testing.assert_close(frequencies, expected, rtol=1e-4, atol=0.1)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 9))
def test_streams_are_whole_utterances_late(cuts: list[int], waits: int) -> None:
    model = voice().vocoder
    frames = sum(cuts)
    features = some_features(2, frames, seed=frames)
    with torch.no_grad():
        whole = model(features)
        state = StreamState(model.fresh_tensors(3))
        said, at = [], 0
        for cut in (*cuts, DELAY_FRAMES):
            given = torch.full((3, cut, FEATURES), float("nan"), dtype=torch.float64)
            given[:2] = null_frame(features)
            piece = features[:, at : at + cut]
            given[:2, : piece.shape[1]] = piece
            valid = (torch.arange(at, at + cut) < frames).expand(3, -1)
            if at % 10 == waits:  # a step that is not theirs
                model.step(torch.randn_like(given), valid, state, torch.tensor([False, False, True]))
            said.append(model.step(given, valid, state, torch.tensor([True, True, False]))[:2])
            at += cut
    late = torch.cat(said, dim=1)
    assert late.shape[1] == (frames + DELAY_FRAMES) * HOP_SAMPLES
    torch.testing.assert_close(late[:, DELAY_FRAMES * HOP_SAMPLES :], whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("changed", [0, 7, 19])
def test_a_sample_looks_as_far_ahead_as_it_says(changed: int) -> None:
    model = voice().vocoder
    features = some_features(1, 20)
    other = features.clone()
    other[:, changed:, :] += 0.3
    with torch.no_grad():
        one, two = model(features)[0], model(other)[0]
    first = max(0, changed - DELAY_FRAMES) * HOP_SAMPLES
    assert torch.equal(one[:first], two[:first])
    assert not torch.equal(one[first : first + 2 * HOP_SAMPLES], two[first : first + 2 * HOP_SAMPLES])
