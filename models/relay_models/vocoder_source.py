"""What a vocoder's filters are applied to: a pulse train at the pitch, noise, and the Fourier transform of frames.

Everything is a function of integers: phases are counted in 2^24ths of a cycle and noise is hashed from frame numbers,
so that a stream's samples do not depend on how it was cut into steps, and no random state is kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE_HZ = 24_000
HOP_SAMPLES = 240
"""10 ms."""
WINDOW_SAMPLES = 3 * HOP_SAMPLES
BINS = WINDOW_SAMPLES // 2 + 1
OVERLAP_GAIN = 1.125
"""Sum of the squares of three Hann windows that lie a hop apart."""
CYCLE = 1 << 24
"""Units of phase in a cycle: the most that float32 counts exactly, 0.0014 Hz as a frequency."""

_PRIME = 2**31 - 1


def window(like: Tensor) -> Tensor:
    """Periodic Hann window [WINDOW_SAMPLES], of the type and on the device of `like`."""
    angles = torch.arange(WINDOW_SAMPLES, device=like.device).to(like.dtype) * (2 * math.pi / WINDOW_SAMPLES)
    return 0.5 - 0.5 * torch.cos(angles)


def fourier_basis(like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [WINDOW_SAMPLES, BINS] of the discrete Fourier transform.

    A product with them is faster than a transform for the eight frames of a step, and is the same in every runner.
    """
    samples = torch.arange(WINDOW_SAMPLES, device=like.device)
    bins = torch.arange(BINS, device=like.device)
    turns = (samples[:, None] * bins) % WINDOW_SAMPLES
    angles = turns.to(like.dtype) * (2 * math.pi / WINDOW_SAMPLES)
    return torch.cos(angles), torch.sin(angles)


def pulses(previous: Tensor, current: Tensor, following: Tensor, voice: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonics of equal strength up to half the sampling rate, hop by hop.

    The frequency runs linearly from the middle of a hop to the middle of the next.

    Args:
        previous, current, following: [rows, hops] pitch in Hz of each hop and of its neighbours.
        voice: [rows, hops] 1, or 0 where there is no sound and time stands still.
        phase: [rows] int64 in [0, CYCLE), where the stream stands.

    Returns:
        Samples [rows, hops, HOP_SAMPLES], each harmonic with amplitude 1, and the phase [rows] after them.
    """
    place = (torch.arange(HOP_SAMPLES, device=phase.device).to(current.dtype) + 0.5) / HOP_SAMPLES - 0.5
    slope = torch.where(place < 0, (current - previous)[:, :, None], (following - current)[:, :, None])
    pitch = current[:, :, None] + place * slope
    advance = torch.round(pitch * (CYCLE / RATE_HZ) * voice[:, :, None]).long()
    inside = advance.cumsum(2)
    ends = inside[:, :, -1].cumsum(1)
    starts = phase[:, None] + ends - inside[:, :, -1]
    cycles = ((starts[:, :, None] + inside) % CYCLE).to(current.dtype) / CYCLE
    # Closed form of the sum of cos(2 pi k x) for k from 1 to `count`.
    half = math.pi * cycles
    count = torch.floor(RATE_HZ / 2 / pitch)
    below = torch.sin(half)
    at_peak = below.abs() < 1e-4
    summed = torch.sin(count * half) * torch.cos((count + 1) * half) / torch.where(at_peak, 1.0, below)
    samples = torch.where(at_peak, count, summed) * voice[:, :, None]
    return samples, (phase + ends[:, -1]) % CYCLE


def noise_angles(frames: Tensor, like: Tensor) -> Tensor:
    """Angles [rows, frames, BINS] in [0, 2 pi), as good as random, from frame numbers [rows, frames] int64 >= 0."""
    bins = torch.arange(BINS, device=frames.device)
    x = ((frames[:, :, None] * BINS + bins) * 48_271 + 11) % _PRIME
    for factor in (69_621, 39_373, 16_807):
        x = (x * x + x * factor + 1_009) % _PRIME
    return x.to(like.dtype) * (2 * math.pi / _PRIME)
