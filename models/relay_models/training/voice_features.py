"""What a voice is trained on, measured from recordings: log-mel frames, pitch, voicing and energy, every 10 ms.

Frame t is centred on the middle of hop t, sample 240 t + 120, the very window that the vocoder's frame t adds. Pitch is
tracked by normalised cross-correlation (Talkin 1995, "A robust algorithm for pitch tracking") on a logarithmic grid and
a Viterbi search for the smoothest path, all on the device.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from relay_models.state import valid_positions
from relay_models.vocoder import LOWEST_HZ, MEL_BINS, MEL_GUARD, MEL_OFFSET, MEL_SCALE, PITCH_HZ, mel_edges
from relay_models.vocoder_source import HOP_SAMPLES, RATE_HZ, WINDOW_SAMPLES

TRANSFORM_SAMPLES = 1024
_TOP_HZ = 500.0
_STATES_PER_OCTAVE = 32
_UNVOICED = 0.5
"""Correlation below which a frame counts as unvoiced."""
_JUMP = 3.0
"""Cost of a change of pitch by an octave from one frame to the next."""
_SWITCH = 0.25
"""Cost of beginning or ending voicing."""
_DEEP = 0.04
"""Cost of an octave downwards, against reading two periods as one."""
_PITCH_WINDOW_SAMPLES = 600
_LAGS = 496
"""More than the longest period, 24000 / 50 samples, half a state, and one."""


@functools.cache
def mel_filters(bins: int, transform_samples: int, device: torch.device) -> Tensor:
    """Triangular filters of equal area: [transform_samples / 2 + 1, bins] float32; see `mel_edges`."""
    edges = mel_edges(bins)
    frequencies = torch.linspace(0, RATE_HZ / 2, transform_samples // 2 + 1, dtype=torch.float64)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float().to(device)


def log_mel(audio: Tensor) -> Tensor:
    """Audio [rows, hops * HOP_SAMPLES] of full scale 1 -> [rows, hops, MEL_BINS] float32, as the vocoder takes it."""
    side = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
    frames = functional.pad(audio.float(), (side, side)).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
    window = torch.hann_window(WINDOW_SAMPLES, device=audio.device)
    spectrum = torch.fft.rfft(frames * window, TRANSFORM_SAMPLES).abs()
    mel = spectrum @ mel_filters(MEL_BINS, TRANSFORM_SAMPLES, audio.device)
    return (mel.clamp(min=MEL_GUARD).log() + MEL_OFFSET) * MEL_SCALE


def _correlations(audio: Tensor) -> Tensor:
    """Normalised cross-correlation of each hop's surroundings: [rows, hops, lags], lags from 0 on."""
    width = _PITCH_WINDOW_SAMPLES + _LAGS
    side = (width - HOP_SAMPLES) // 2
    hops = audio.shape[1] // HOP_SAMPLES
    frames = functional.pad(audio.float(), (side, side)).unfold(1, width, HOP_SAMPLES)[:, :hops]
    frames = frames - frames.mean(2, keepdim=True)
    base = functional.pad(frames[:, :, :_PITCH_WINDOW_SAMPLES], (0, _LAGS))
    size = 1 << (width - 1).bit_length()  # lags wrap around beyond those that are kept
    products = torch.fft.irfft(torch.fft.rfft(base, size).conj() * torch.fft.rfft(frames, size), size)[:, :, :_LAGS]
    squares = functional.pad(frames.square().cumsum(2), (1, 0))
    energy = squares[:, :, _PITCH_WINDOW_SAMPLES : _PITCH_WINDOW_SAMPLES + _LAGS] - squares[:, :, :_LAGS]
    # The floor keeps what is nearly silent (-60 dB) from looking periodic.
    floor = _PITCH_WINDOW_SAMPLES * 1e-6
    return products / torch.sqrt((energy[:, :, :1] + floor) * (energy.clamp(min=0) + floor))


def _grid(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """States of the search.

    Returns:
        Frequencies in Hz [states]; the lags that belong to each [states, most], some of them its neighbour's; and
        which of these are its own [states, most] bool.
    """
    octaves = math.log2(_TOP_HZ / LOWEST_HZ)
    states = torch.arange(int(octaves * _STATES_PER_OCTAVE) + 1, device=device)
    hertz = LOWEST_HZ * 2 ** (states / _STATES_PER_OCTAVE)
    half = 2 ** (0.5 / _STATES_PER_OCTAVE)
    low, high = torch.floor(RATE_HZ / hertz / half).long(), torch.ceil(RATE_HZ / hertz * half).long()
    lags = low[:, None] + torch.arange(int((high - low).max()) + 1, device=device)
    return hertz, lags.clamp(max=_LAGS - 2), lags <= high[:, None]


def pitch(audio: Tensor, hops: Tensor) -> tuple[Tensor, Tensor]:
    """Tracks the pitch of recordings.

    Args:
        audio: [rows, hops * HOP_SAMPLES], full scale 1, of one speaker each.
        hops: [rows] int64, hops of each.

    Returns:
        ln(pitch / PITCH_HZ) [rows, hops], running on between voiced stretches, and voicing [rows, hops], 0 or 1.
    """
    correlations = _correlations(audio)
    hertz, lags, own = _grid(audio.device)
    score = torch.stack(
        [torch.where(own[:, k], correlations[:, :, lags[:, k]], -1.0) for k in range(lags.shape[1])]
    ).amax(0)
    octave = torch.log2(hertz)
    score = score + _DEEP * (octave - octave.mean())
    rows, frames, states = score.shape
    score = torch.cat((score, score.new_full((rows, frames, 1), _UNVOICED)), dim=2)
    change = functional.pad(-_JUMP * (octave[:, None] - octave).abs(), (0, 1, 0, 1), value=-_SWITCH)
    change[-1, -1] = 0
    total = score[:, 0]
    back = torch.empty(rows, frames, states + 1, dtype=torch.int16, device=audio.device)
    for t in range(1, frames):
        best, source = (total[:, :, None] + change).max(1)
        back[:, t] = source.to(torch.int16)
        total = torch.where((t < hops)[:, None], best + score[:, t], total)
    state = total.argmax(1)
    path = torch.empty(rows, frames, dtype=torch.int64, device=audio.device)
    for t in range(frames - 1, -1, -1):
        path[:, t] = state
        if t:
            state = torch.where(t < hops, back[:, t].gather(1, state[:, None])[:, 0].long(), state)
    voiced = (path < states) & valid_positions(hops, frames)
    lag = _refined(correlations, lags[path.clamp(max=states - 1)])
    return run_on(smooth(torch.log(RATE_HZ / PITCH_HZ / lag), voiced), voiced), voiced.float()


def _refined(correlations: Tensor, lags: Tensor) -> Tensor:
    """The lag of a peak, between samples, by the parabola through its three highest points.

    Args:
        correlations: [rows, hops, lags].
        lags: [rows, hops, choices] int64, where each frame's peak may be.
    """
    best = lags.gather(2, correlations.gather(2, lags).argmax(2, keepdim=True))
    low, middle, high = (correlations.gather(2, best + step)[:, :, 0] for step in (-1, 0, 1))
    bend = (2 * middle - low - high).clamp(min=1e-6)
    return best[:, :, 0] + ((high - low) / (2 * bend)).clamp(-0.5, 0.5)


def smooth(values: Tensor, known: Tensor) -> Tensor:
    """Mean over five frames, of those that are known: [rows, frames] both."""
    taps = values.new_tensor([[[1.0, 2.0, 3.0, 2.0, 1.0]]])
    weights = known.to(values.dtype)
    total = functional.conv1d((values * weights)[:, None], taps, padding=2)[:, 0]
    count = functional.conv1d(weights[:, None], taps, padding=2)[:, 0]
    return torch.where(known, total / count.clamp(min=1e-3), values)


def run_on(values: Tensor, known: Tensor) -> Tensor:
    """Fills what is not known by straight lines between known neighbours, and by the nearest one at the ends.

    Args:
        values, known: [rows, frames]. A row with nothing known becomes 0.
    """
    frames = values.shape[1]
    numbers = torch.arange(frames, device=values.device).expand_as(values)
    before = torch.where(known, numbers, -1).cummax(1).values
    after = torch.where(known, numbers, frames).flip(1).cummin(1).values.flip(1)
    left = torch.where(before >= 0, before, after).clamp(max=frames - 1)
    right = torch.where(after < frames, after, before).clamp(min=0)
    share = (numbers - left) / (right - left).clamp(min=1)
    filled = torch.lerp(values.gather(1, left), values.gather(1, right), share.to(values.dtype).clamp(0, 1))
    return torch.where(known.any(1, keepdim=True), filled, 0.0)


def energy(mel: Tensor) -> Tensor:
    """Loudness of frames [..., MEL_BINS] as `log_mel` gives them: [...], near mean 0 and deviation 1."""
    power = (2 * (mel / MEL_SCALE - MEL_OFFSET)).logsumexp(-1) / 2
    return (power + 2.0) * MEL_SCALE
