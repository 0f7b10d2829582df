"""The vocoder: frames of 10 ms -> 24 kHz, causal but for three hops.

A causal ConvNeXt network gives, for every frame, a complex filter for a pulse train at the pitch and a real one for
noise; their sum is a short-time spectrum, which an inverse transform and overlapping addition turn into samples.
Network and inverse transform are those of Vocos (Siuzdak 2023, arXiv 2306.00814); filtering a source that carries the
pitch, in the time-frequency domain, is due to HiFTNet (Li et al. 2023, arXiv 2309.09493). The source keeps harmonics
in phase over any number of steps, and leaves the network little to learn, so that an hour of speech is enough.

Timing: a frame's window is its own hop and the one to each side. The network looks `LOOKAHEAD_FRAMES` ahead, and a hop
is whole when the window after it has been added: samples come out `DELAY_FRAMES` hops after their frame went in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relay_models.state import StreamState, write_rows
from relay_models.vocoder_source import (
    BINS,
    HOP_SAMPLES,
    OVERLAP_GAIN,
    RATE_HZ,
    WINDOW_SAMPLES,
    fourier_basis,
    noise_angles,
    pulses,
    window,
)
from relay_models.voice_layers import CausalStack

MEL_BINS = 80
FEATURES = MEL_BINS + 2
"""Of a frame: log-mel, pitch, voicing; see `Vocoder.forward`."""
MEL_OFFSET, MEL_SCALE, MEL_GUARD = 5.0, 0.5, 1e-5
"""A mel feature is (ln(max(magnitude, guard)) + offset) * scale."""
PITCH_HZ = 200.0
"""A pitch feature is ln(pitch / PITCH_HZ)."""
LOWEST_HZ, HIGHEST_HZ = 50.0, 600.0
LOOKAHEAD_FRAMES = 2
DELAY_FRAMES = LOOKAHEAD_FRAMES + 1
_LOUDEST = 3.0
"""Bound of the logarithm of a filter's gain."""
_PULSE_LEVEL, _NOISE_LEVEL = -1.6, -1.0
"""Logarithm of the filters' gains where a mel magnitude is 1, before training; measured on speech."""


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """Shape of the network.

    Attributes:
        size, inner, kernel, layers: Of `CausalStack`.
    """

    size: int = 320
    inner: int = 1024
    kernel: int = 7
    layers: int = 6


def mel_edges(bins: int = MEL_BINS) -> Tensor:
    """Edges in Hz of triangular filters on Slaney's mel scale, 0 to 12 kHz: [bins + 2] float64.

    The scale is linear up to 1000 Hz (66.7 Hz a mel), then logarithmic (a factor 6.4 every 27 mels).
    """
    step = math.log(6.4) / 27
    mels = torch.linspace(0, 15 + math.log(RATE_HZ / 2 / 1000) / step, bins + 2, dtype=torch.float64)
    return torch.where(mels < 15, mels * 1000 / 15, 1000 * torch.exp(step * (mels - 15)))


def envelope_of_mel() -> Tensor:
    """Linear interpolation from mel filters to the bins of a spectrum: [MEL_BINS, BINS] float32."""
    centres = mel_edges()[1:-1]
    frequencies = torch.linspace(0, RATE_HZ / 2, BINS, dtype=torch.float64).clamp(centres[0], centres[-1])
    above = torch.searchsorted(centres, frequencies).clamp(1, MEL_BINS - 1)
    share = (frequencies - centres[above - 1]) / (centres[above] - centres[above - 1])
    matrix = torch.zeros(BINS, MEL_BINS, dtype=torch.float64)
    matrix.scatter_(1, above[:, None] - 1, (1 - share)[:, None])
    matrix.scatter_(1, above[:, None], share[:, None])
    return matrix.T.float()


def null_frame(like: Tensor) -> Tensor:
    """The frame that stands for nothing: [FEATURES], silence without pitch."""
    silence = (math.log(MEL_GUARD) + MEL_OFFSET) * MEL_SCALE
    return torch.cat((like.new_full((MEL_BINS,), silence), like.new_zeros(2)))


class Vocoder(nn.Module):
    """Frames -> samples.

    Args:
        config: Its shape.
    """

    envelope: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stack = CausalStack(FEATURES, config.size, config.inner, config.kernel, config.layers)
        self.head = nn.Linear(config.size, 3 * BINS)
        self.register_buffer("envelope", envelope_of_mel(), persistent=False)
        self._basis: tuple[Tensor, Tensor] | None = None
        with torch.no_grad():
            self.head.weight /= 10
            self.head.bias.zero_()
            self.head.bias[:BINS] = _PULSE_LEVEL
            self.head.bias[2 * BINS :] = _NOISE_LEVEL

    def forward(self, features: Tensor, *, phase: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Whole utterances, or excerpts for training.

        Args:
            features: [rows, frames, FEATURES]: log-mel (`MEL_OFFSET`, `MEL_SCALE`), pitch (`PITCH_HZ`; between voiced
                stretches it runs on), voicing from 0 to 1.
            phase: [rows] int64, phase of the pulses at the beginning; 0 when None.
            first: [rows] int64, number of the first frame, which decides the noise; 0 when None.

        Returns:
            [rows, frames * HOP_SAMPLES], full scale 1.
        """
        rows, frames, _ = features.shape
        ahead = null_frame(features).expand(rows, LOOKAHEAD_FRAMES, -1)
        filters = self._filters(self.stack(torch.cat((features, ahead), dim=1))[:, LOOKAHEAD_FRAMES:])
        numbers = torch.arange(frames, device=features.device).expand(rows, frames)
        if first is not None:
            numbers = numbers + first[:, None]
        if phase is None:
            phase = torch.zeros(rows, dtype=torch.int64, device=features.device)
        hertz = nn.functional.pad(pitch_hz(features), (1, 1), value=PITCH_HZ)
        source, _ = pulses(hertz[:, :-2], hertz[:, 1:-1], hertz[:, 2:], torch.ones_like(hertz[:, 1:-1]), phase)
        hops = nn.functional.pad(source, (0, 0, 1, 1))
        windows = self._synthesise(features, filters, around(hops), numbers)
        parts = nn.functional.pad(windows, (0, 0, 1, 1))
        return overlapped(parts)

    def keep_basis(self) -> None:
        """Computes the Fourier basis once, for weights whose device and type are final; an export computes its own."""
        self._basis = fourier_basis(self.envelope.to(torch.promote_types(self.head.bias.dtype, torch.float32)))

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams, all zero."""
        weight = self.stack.norm.weight
        return {
            **self.stack.fresh_tensors(rows, "vocoder"),
            "vocoder.recent": weight.new_zeros(rows, LOOKAHEAD_FRAMES, FEATURES + 1),
            "vocoder.hops": weight.new_zeros(rows, 2, HOP_SAMPLES),
            "vocoder.windows": weight.new_zeros(rows, 2, WINDOW_SAMPLES),
            "vocoder.phase": torch.zeros(rows, dtype=torch.int64, device=weight.device),
            "vocoder.position": torch.zeros(rows, dtype=torch.int64, device=weight.device),
        }

    def step(self, features: Tensor, valid: Tensor, state: StreamState, active: Tensor) -> Tensor:
        """New frames of streams.

        Args:
            features: [rows, frames, FEATURES].
            valid: [rows, frames] bool, false behind the end of an utterance.
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool; other rows keep their state and give samples of no meaning.

        Returns:
            [rows, frames * HOP_SAMPLES]: hops of the frames that went in DELAY_FRAMES
            earlier; a stream's first DELAY_FRAMES hops lie before its beginning and mean nothing.
        """
        frames = features.shape[1]
        features = torch.where(valid[:, :, None], features, null_frame(features))
        filters = self._filters(self.stack.step(features, state, active, "vocoder"))
        marked = torch.cat((features, valid[:, :, None].to(features.dtype)), dim=2)
        recent = torch.cat((state["vocoder.recent"], marked), dim=1)
        hertz = torch.where(recent[:, :, -1] > 0, pitch_hz(recent[:, :, :FEATURES]), PITCH_HZ)
        source, phase = pulses(hertz[:, :-2], hertz[:, 1:-1], hertz[:, 2:], recent[:, 1:-1, -1], state["vocoder.phase"])
        hops = torch.cat((state["vocoder.hops"], source), dim=1)
        numbers = state["vocoder.position"][:, None] + torch.arange(frames, device=features.device)
        current = recent[:, :frames]
        windows = self._synthesise(
            current[:, :, :FEATURES], filters, around(hops), (numbers - LOOKAHEAD_FRAMES).clamp(min=0)
        )
        parts = torch.cat((state["vocoder.windows"], windows * current[:, :, -1:]), dim=1)
        write_rows(state["vocoder.recent"], recent[:, -LOOKAHEAD_FRAMES:], active)
        write_rows(state["vocoder.hops"], hops[:, -2:], active)
        write_rows(state["vocoder.windows"], parts[:, -2:], active)
        write_rows(state["vocoder.phase"], phase, active)
        state["vocoder.position"].add_(active * frames)
        return overlapped(parts)

    def _filters(self, x: Tensor) -> Tensor:
        """[rows, frames, size] -> [rows, frames, 3 * BINS], exactly enough for logarithms and angles."""
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.head(x.to(self.head.bias.dtype))
        return y

    def _synthesise(self, features: Tensor, filters: Tensor, source: Tensor, numbers: Tensor) -> Tensor:
        """Filters both sources: [rows, frames, ..] -> windowed samples [rows, frames, WINDOW_SAMPLES].

        Computed in float32 at least, whatever the surrounding autocast.
        """
        with torch.autocast(features.device.type, enabled=False):
            wide = torch.promote_types(filters.dtype, torch.float32)
            features, filters, source = features.to(wide), filters.to(wide), source.to(wide)
            shape = window(source)
            cosines, sines = self._basis or fourier_basis(source)
            level = (features[:, :, :MEL_BINS] / MEL_SCALE - MEL_OFFSET) @ self.envelope.to(wide)
            pulse_gain, turn, noise_gain = filters.split(BINS, dim=2)
            pulse_gain = (level + pulse_gain).clamp(max=_LOUDEST).exp()
            noise_gain = (level + noise_gain).clamp(max=_LOUDEST).exp() * math.sqrt(WINDOW_SAMPLES)
            angle = noise_angles(numbers, source)
            along, across = pulse_gain * torch.cos(turn), pulse_gain * torch.sin(turn)
            windowed = source * shape
            real, imaginary = windowed @ cosines, windowed @ -sines
            # The inverse transform counts every bin but the first and the last twice.
            share = torch.full((BINS,), 2.0 / WINDOW_SAMPLES, dtype=wide, device=source.device)
            share = torch.where(torch.arange(BINS, device=source.device) % (BINS - 1) == 0, share / 2, share)
            out_real = (real * along - imaginary * across + noise_gain * torch.cos(angle)) * share
            out_imaginary = (real * across + imaginary * along + noise_gain * torch.sin(angle)) * share
            samples: Tensor = out_real @ cosines.T - out_imaginary @ sines.T
            return samples * (shape / OVERLAP_GAIN)


def pitch_hz(features: Tensor) -> Tensor:
    """Pitch of frames [..., FEATURES] in Hz, within what the source can do: [...]."""
    return (features[..., MEL_BINS].exp() * PITCH_HZ).clamp(LOWEST_HZ, HIGHEST_HZ)


def around(hops: Tensor) -> Tensor:
    """Windows over three hops each: [rows, n + 2, HOP_SAMPLES] -> [rows, n, WINDOW_SAMPLES]."""
    return torch.cat((hops[:, :-2], hops[:, 1:-1], hops[:, 2:]), dim=2)


def overlapped(windows: Tensor) -> Tensor:
    """Adds windows that lie a hop apart: [rows, n + 2, WINDOW_SAMPLES] -> the n hops that three of them cover.

    Returns [rows, n * HOP_SAMPLES].
    """
    first, second, third = windows.split(HOP_SAMPLES, dim=2)
    return (first[:, 2:] + second[:, 1:-1] + third[:, :-2]).flatten(1)
