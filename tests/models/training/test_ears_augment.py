from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from relay_models.features import FeatureConfig, LogMel
from relay_models.training.ears_augment import (
    ROOM_SAMPLES,
    Dice,
    TractFrontEnd,
    coloured_noise,
    companded,
    loudness,
    mask_bands,
    restyle,
    room_bank,
    simulated_rooms,
    spoil,
)
from relay_models.training.ears_data import style_of

CPU = torch.device("cpu")


def speech(rows: int = 3, samples: int = 24_000) -> Tensor:
    time = torch.arange(samples) / 16_000
    pitch = torch.linspace(90, 260, rows)[:, None]
    tone = sum(torch.sin(2 * torch.pi * pitch * k * time) / k for k in range(1, 12))
    return 0.1 * tone * (1 + torch.sin(2 * torch.pi * 4 * time))


def rooms() -> Tensor:
    return simulated_rooms(2, Dice(7, CPU))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_spoilt_speech_is_finite_and_repeatable(strength: float) -> None:
    first = spoil(speech(), rooms(), strength, Dice(3, CPU))
    assert first.shape == speech().shape
    assert torch.isfinite(first).all()
    assert torch.equal(first, spoil(speech(), rooms(), strength, Dice(3, CPU)))
    assert not torch.equal(first, spoil(speech(), rooms(), strength, Dice(4, CPU)))


def test_without_strength_only_the_gain_changes() -> None:
    x = speech()
    y = spoil(x, rooms(), 0.0, Dice(0, CPU))
    for a, b in zip(x, y, strict=True):
        assert torch.corrcoef(torch.stack((a, b)))[0, 1] > 0.999


def test_silence_stays_harmless() -> None:
    y = spoil(torch.zeros(2, 16_000), rooms(), 1.0, Dice(1, CPU))
    assert torch.isfinite(y).all()
    assert y.abs().max() < 1


def test_rooms_begin_with_their_direct_sound() -> None:
    recorded = np.zeros(9000, np.int16)
    recorded[400] = -20_000
    recorded[900:5000:7] = 700
    bank = torch.cat((room_bank([recorded]), rooms()))
    assert bank.shape == (3, ROOM_SAMPLES)
    assert torch.equal(bank[:, 0], torch.ones(3))
    assert bank[:, 1:].square().sum(1) == pytest.approx(torch.ones(3), rel=1e-3)
    assert bank[0, 500] < 0  # the direct sound was negative: everything is turned


def test_noise_has_loudness_one() -> None:
    assert loudness(coloured_noise(3, 16_000, Dice(5, CPU)))[:, 0] == pytest.approx(torch.ones(3), rel=1e-3)


def test_companding_costs_what_eight_bits_cost() -> None:
    x = speech().clamp(-1, 1)
    noise_db = 20 * torch.log10(loudness(companded(x) - x) / loudness(x))
    assert (noise_db > -45).all()
    assert (noise_db < -30).all()


def test_a_longer_tract_moves_spectra_down() -> None:
    config = FeatureConfig(mel_bins=40)
    front = TractFrontEnd(config, (0.8, 1.0, 1.2))
    lengths = torch.full((3,), 24_000)
    features, counts = front.forward_moved(speech(1).expand(3, -1), lengths, torch.tensor([0, 1, 2]))
    plain, plain_counts = LogMel(config)(speech(1), lengths[:1])
    assert torch.equal(counts[:1], plain_counts)
    assert torch.allclose(features[1], plain[0], atol=1e-3)
    places = torch.arange(40)
    centres = [(row.exp().mean(0) * places).sum() / row.exp().mean(0).sum() for row in features]
    assert centres[0] > centres[1] > centres[2]
    assert torch.equal(front(speech(1), lengths[:1])[0], plain)  # and the plain filters are back


def test_a_borrowed_style_is_taken_on() -> None:
    torch.manual_seed(0)
    features, counts = torch.randn(4, 50, 8) * 2 - 9, torch.tensor([50, 30, 50, 20])
    styles = torch.stack((torch.full((1, 8), -5.0), torch.full((1, 8), 0.5)), dim=1)
    moved = restyle(features, counts, styles, 1.0, Dice(2, CPU))
    own, taken = style_of(features, counts), style_of(moved, counts)
    share = (taken - own) / (styles - own)
    assert share.std((1, 2)) == pytest.approx(torch.zeros(4), abs=1e-3)  # one share for a row's means and deviations
    assert ((share > -1e-3) & (share < 1.001)).all()
    assert torch.equal(moved[3, 20:], torch.zeros(30, 8))
    assert torch.allclose(restyle(features, counts, styles, 0.0, Dice(2, CPU))[0], features[0], atol=1e-4)


def test_masks_hide_bands_and_spans_but_never_beyond_the_end() -> None:
    torch.manual_seed(0)
    features, counts = torch.randn(6, 300, 80), torch.tensor([300, 300, 300, 300, 300, 40])
    masked = mask_bands(features, counts, 1.0, Dice(0, CPU))
    hidden = (masked != features).float().mean((1, 2))[:5]
    assert (hidden > 0.02).all()
    assert (hidden < 0.8).all()
    assert torch.equal(masked[5, 40:], torch.zeros(260, 80))
