"""What happens to training speech on its way into the ears: rooms, microphones, noise, other mouths. All on the device.

Every random choice comes from one generator, so that a step of a run can be repeated. `strength` scales how often each
effect is used, from 0 (clean) to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from relay_models.features import FFT_SAMPLES, FeatureConfig, LogMel, mel_filters
from relay_models.framing import SAMPLE_RATE_HZ
from relay_models.state import valid_positions
from relay_models.training.ears_data import style_of

ROOM_SAMPLES = SAMPLE_RATE_HZ
"""Longest room response used: a second."""
_TINY = 1e-6


class Dice:
    """Random tensors of one device from one generator."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Between `low` and `high`."""
        return torch.rand(shape, generator=self._generator, device=self._device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """Mean 0, variance 1."""
        return torch.randn(shape, generator=self._generator, device=self._device)

    def below(self, limit: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to `limit` - 1."""
        return torch.randint(limit, shape, generator=self._generator, device=self._device)

    def happens(self, rows: int, chance: float) -> Tensor:
        """[rows, 1] bool, each true with this probability."""
        return self.uniform(rows, 1) < chance


def loudness(x: Tensor) -> Tensor:
    """Root mean square of each row: [rows, samples] -> [rows, 1]."""
    return x.square().mean(1, keepdim=True).sqrt()


def room_bank(rooms: Sequence[NDArray[np.int16]]) -> Tensor:
    """Recorded responses [rooms, ROOM_SAMPLES], each from its direct sound on, which is 1; the rest has energy 1."""
    bank = torch.zeros(len(rooms), ROOM_SAMPLES)
    for row, room in zip(bank, rooms, strict=True):
        x = torch.from_numpy(room.astype(np.float32))
        direct = int(x.abs().argmax())
        tail = x[direct : direct + ROOM_SAMPLES] / x[direct]
        row[: len(tail)] = tail / tail[1:].square().sum().sqrt()
        row[0] = 1
    return bank


def simulated_rooms(rows: int, dice: Dice) -> Tensor:
    """Responses like those of `room_bank`: a few early echoes, and noise that decays over 0.1 to 0.9 s."""
    seconds = torch.arange(ROOM_SAMPLES, device=dice.uniform(1).device) / SAMPLE_RATE_HZ
    decay_s = 0.1 + 0.8 * dice.uniform(rows, 1) ** 1.5
    tail = dice.normal(rows, ROOM_SAMPLES) * torch.exp(-6.9 * seconds / decay_s)
    tail[:, :48] = 0
    tail = tail / tail.square().sum(1, keepdim=True).sqrt()
    echoes = torch.zeros_like(tail)
    places = 16 + dice.below(480, rows, 6)
    echoes.scatter_(1, places, dice.uniform(rows, 6, low=-0.4, high=0.4))
    room = echoes + tail
    room /= room.square().sum(1, keepdim=True).sqrt()
    room[:, 0] = 1
    return room


def equaliser(rows: int, bins: int, strength: float, dice: Dice) -> Tensor:
    """Gains [rows, bins] over 0 to 8 kHz: a smooth curve of up to 9 dB either way, at times a low or a high cut."""
    place = torch.linspace(0, 1, bins, device=dice.uniform(1).device)
    octave = torch.log2(1 + place * 63) / 6 * 5.999
    low = octave.long()
    knots = dice.uniform(rows, 7, low=-9, high=9) * dice.happens(rows, 0.8 * strength)
    share = octave - low
    curve_db = knots[:, low] * (1 - share) + knots[:, low + 1] * share
    top = torch.where(dice.happens(rows, 0.2 * strength), dice.uniform(rows, 1, low=0.4, high=0.9), 4.0)
    bottom = torch.where(dice.happens(rows, 0.3 * strength), dice.uniform(rows, 1, low=0.005, high=0.04), 0.0)
    telephone = dice.happens(rows, 0.12 * strength)
    top, bottom = torch.where(telephone, 0.425, top), torch.where(telephone, 0.0375, bottom)
    return 10 ** (curve_db / 20) / (1 + (place / top) ** 16) / (1 + (bottom / (place + 1e-4)) ** 6)


def coloured_noise(rows: int, samples: int, dice: Dice) -> Tensor:
    """Noise of loudness 1 between white and brown that swells and ebbs: [rows, samples]."""
    spectrum = torch.fft.rfft(dice.normal(rows, samples))
    place = torch.linspace(0, 200, spectrum.shape[1], device=spectrum.device)
    noise = torch.fft.irfft(spectrum * (place + 1) ** -dice.uniform(rows, 1, high=1.3), samples)
    knots = max(2, samples // (SAMPLE_RATE_HZ // 2))
    swell = functional.interpolate(dice.uniform(rows, 1, knots, low=-1), samples, mode="linear")[:, 0]
    noise = noise * 10 ** (swell * dice.uniform(rows, 1, high=8) / 20)
    return noise / (loudness(noise) + _TINY)


def babble(x: Tensor) -> Tensor:
    """Three other rows of the batch at once, one of them backwards, loudness 1."""
    mixed = x.roll(1, 0) + 0.7 * x.roll(2, 0) + 0.5 * x.roll(3, 0).flip(1)
    return mixed / (loudness(mixed) + _TINY)


def companded(x: Tensor) -> Tensor:
    """Through 8-bit mu-law (ITU-T G.711) and back; full scale 1."""
    mu = 255.0
    squeezed = x.clamp(-1, 1).sign() * torch.log1p(mu * x.abs().clamp(max=1)) / math.log1p(mu)
    coarse = torch.round(squeezed * 128) / 128
    return coarse.sign() * torch.expm1(coarse.abs() * math.log1p(mu)) / mu


def spoil(x: Tensor, rooms: Tensor, strength: float, dice: Dice) -> Tensor:
    """Speech as a microphone in the world gives it: [rows, samples] -> [rows, samples], full scale 1.

    Args:
        x: Clean speech.
        rooms: Of `room_bank`.
        strength: 0 leaves everything but the gain as it is.
        dice: Source of chance.
    """
    rows, samples = x.shape
    if strength > 0:
        length = math.ceil((samples + ROOM_SAMPLES) / 4096) * 4096
        responses = torch.where(
            dice.happens(rows, 0.4), rooms[dice.below(len(rooms), rows)], simulated_rooms(rows, dice)
        )
        direct_db = dice.uniform(rows, 1, low=-2, high=20)  # direct sound over all that follows it
        responses[:, 1:] *= dice.happens(rows, 0.5 * strength) * 10 ** (-direct_db / 20)
        spectrum = torch.fft.rfft(x, length) * torch.fft.rfft(responses, length)
        y = torch.fft.irfft(spectrum * equaliser(rows, spectrum.shape[1], strength, dice), length)[:, :samples]
        level = loudness(y) + _TINY
        noise_db = -5 - dice.uniform(rows, 1, high=40)
        y = y + coloured_noise(rows, samples, dice) * level * 10 ** (noise_db / 20) * dice.happens(rows, 0.7 * strength)
        babble_db = -8 - dice.uniform(rows, 1, high=27)
        y = y + babble(x) * level * 10 ** (babble_db / 20) * dice.happens(rows, 0.25 * strength)
        peak = y.abs().amax(1, keepdim=True) + _TINY
        clipped = y.clamp(-0.3 * peak, 0.3 * peak)
        x = torch.where(dice.happens(rows, 0.06 * strength), clipped, y)
    peak = x.abs().amax(1, keepdim=True) + _TINY
    x = x / peak * 10 ** (dice.uniform(rows, 1, low=-26, high=-0.5) / 20)
    x = torch.where(dice.happens(rows, 0.15 * strength), companded(x), x)
    return x + dice.normal(rows, samples) * 10 ** (-dice.uniform(rows, 1, low=70, high=96) / 20)


class TractFrontEnd(LogMel):
    """The front end with a scale of frequency of its own for each row: other lengths of vocal tract.

    Vocal tract length perturbation (Jaitly and Hinton 2013): filters are moved by a factor up to 4.8 kHz, and what is
    above is squeezed or stretched to end at 8 kHz as before.

    Args:
        config: Settings of the front end.
        factors: The factors to draw from.
    """

    bank: Tensor

    def __init__(self, config: FeatureConfig, factors: Sequence[float]) -> None:
        super().__init__(config)
        plain = mel_filters(config.mel_bins)
        bank = torch.stack([self._moved(plain, factor) for factor in factors])
        self.register_buffer("bank", bank, persistent=False)

    @staticmethod
    def _moved(filters: Tensor, factor: float) -> Tensor:
        bins = FFT_SAMPLES // 2
        edge = 0.6 * bins * min(factor, 1.0)
        at = torch.arange(bins + 1, dtype=torch.float32)
        upper = bins - (bins - at) * (bins - edge / factor) / (bins - edge)
        place = torch.where(at <= edge, at / factor, upper).clamp(0, bins - 1e-3)
        low = place.long()
        share = (place - low)[:, None]
        moved = filters[low] * (1 - share) + filters[low + 1] * share
        area = moved.sum(0)
        return moved * torch.where(area > 0, filters.sum(0) / area.clamp(min=_TINY), 1.0)

    def forward_moved(self, pcm: Tensor, lengths: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """`forward`, row i with factor number which[i]."""
        plain, self.filters = self.filters, self.bank[which]
        try:
            return self(pcm, lengths)
        finally:
            self.filters = plain


def restyle(features: Tensor, counts: Tensor, styles: Tensor, chance: float, dice: Dice) -> Tensor:
    """Gives some rows the long-term spectrum and dynamics of a real recording, in part.

    Each mel band is moved to the mean and deviation that it has in a recording drawn from `styles` (as Huang and
    Belongie 2017, arXiv 1703.06868, do with images), so that formant and diphone voices meet real speakers' spectra, of
    which no text needs to be known.

    Args:
        features: [rows, frames, bins].
        counts: [rows], frames of each.
        styles: [recordings, 2, bins] of `style_of`.
        chance: Share of rows.
        dice: Source of chance.
    """
    rows = len(features)
    own = style_of(features, counts)
    aim = styles[dice.below(len(styles), rows)]
    aim = own + (aim - own) * dice.uniform(rows, 1)[:, None] * dice.happens(rows, chance)[:, None]
    moved = (features - own[:, None, 0]) / own[:, None, 1].clamp(min=0.1) * aim[:, None, 1] + aim[:, None, 0]
    return moved * valid_positions(counts, features.shape[1])[:, :, None]


def mask_bands(features: Tensor, counts: Tensor, strength: float, dice: Dice) -> Tensor:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779): two bands and a few spans of time become the mean.

    Args:
        features: [rows, frames, bins].
        counts: [rows], frames of each.
        strength: Scales the widths.
        dice: Source of chance.
    """
    rows, frames, bins = features.shape
    device = features.device
    places, times = torch.arange(bins, device=device), torch.arange(frames, device=device)
    hidden = torch.zeros(rows, frames, bins, dtype=torch.bool, device=device)
    for _ in range(2):
        width = dice.uniform(rows, 1, high=22) * strength
        first = dice.uniform(rows, 1) * (bins - width)
        hidden |= ((places >= first) & (places < first + width))[:, None]
    for _ in range(max(2, frames // 130)):
        width = dice.uniform(rows, 1) * min(26.0, 0.06 * frames) * strength
        first = dice.uniform(rows, 1) * (frames - width)
        hidden |= ((times >= first) & (times < first + width))[:, :, None]
    mean = style_of(features, counts)[:, :1]
    masked = torch.where(hidden, mean, features)
    return masked * valid_positions(counts, frames)[:, :, None]
