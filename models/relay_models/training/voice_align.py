"""Which frames belong to which symbol: learned from recordings and their texts alone.

A hidden Markov model with one state a symbol, left to right, each at least a frame long. What a symbol sounds like is
a normal distribution, all of one width, whose mean a small network reads off the symbol, its neighbours and the
speaker (were widths learned too, the first symbol to become narrow would take all frames). Training is expectation
maximisation by gradient (Dempster, Laird & Rubin 1977, section 3): posteriors of the states by the forward-backward
recursion, with a prior along the diagonal at first (Badlani et al. 2021, arXiv 2108.10447, section 3.1), then a step
towards likelier frames. In contrast to that paper's aligner, whose scores compete over symbols, a symbol here has to
explain the frames it takes, so that none can take another's. The best path is read off by the Viterbi search.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.phonemes import BOUNDARY_ID
from relay_models.state import valid_positions
from relay_models.vocoder import MEL_BINS

CEPSTRA = 20
"""Of a frame; their slopes come on top."""
SILENT_FRAMES = 6
"""Frames at the end of a clip that are the end's and no other symbol's (`voice_data.tidy` leaves as many)."""
_NEVER = -1e4
_SHARPNESS = 0.3
"""Weight of the frames' likelihoods: neighbouring frames, and cepstra with their slopes, tell much of the same."""
_SLOPE_REACH = 2


def cepstra_of(mel: Tensor) -> Tensor:
    """Cosine transform of log-mel frames, and its slope over time: [rows, frames, MEL_BINS] -> [.., 2 * CEPSTRA]."""
    bins = torch.arange(MEL_BINS, device=mel.device) + 0.5
    orders = torch.arange(CEPSTRA, device=mel.device)
    basis = torch.cos(math.pi / MEL_BINS * bins[:, None] * orders) * (2 / MEL_BINS) ** 0.5
    cepstra = mel @ basis
    padded = functional.pad(cepstra, (0, 0, _SLOPE_REACH, _SLOPE_REACH), mode="replicate")
    frames = mel.shape[1]
    slope = padded[:, 2 * _SLOPE_REACH :][:, :frames] - padded[:, :frames]
    return torch.cat((cepstra, slope), dim=2)


def normalised(values: Tensor, frames: Tensor) -> Tensor:
    """Each row's values with mean 0 and deviation 1 over its frames: [rows, frames, values], frames [rows]."""
    inside = valid_positions(frames, values.shape[1])[:, :, None]
    count = frames[:, None, None]
    centred = values - (values * inside).sum(1, keepdim=True) / count
    deviation = ((centred.square() * inside).sum(1, keepdim=True) / count).sqrt()
    return centred / deviation.clamp(min=1e-3)


class Aligner(nn.Module):
    """Likelihoods of frames, given symbols.

    Args:
        symbols: Number of symbols.
        speakers: Number of speakers.
        size: Channels.
    """

    def __init__(self, symbols: int, speakers: int, size: int = 128) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, size)
        self.speakers = nn.Embedding(speakers, size)
        self.mix = nn.Conv1d(size, 2 * size, 3, padding=1)
        self.mean = nn.Conv1d(2 * size, 2 * CEPSTRA, 1)
        self.silence = nn.Embedding(speakers, 2 * CEPSTRA)

    def forward(self, mel: Tensor, frames: Tensor, ids: Tensor, counts: Tensor, speakers: Tensor) -> Tensor:
        """Scores of symbols.

        Args:
            mel: [rows, frames, MEL_BINS].
            frames: [rows] int64, frames of each row.
            ids: [rows, symbols] int64.
            counts: [rows] int64, symbols of each row.
            speakers: [rows] int64.

        Returns:
            Logarithms of likelihoods, but for a constant, [rows, frames, symbols] float32; very small where a symbol
            cannot be.
        """
        x = self.symbols(ids) + self.speakers(speakers)[:, None]
        mean = self.mean(functional.relu(self.mix(x.transpose(1, 2)))).transpose(1, 2).float()
        # All pauses are one silence, or boundaries between words would become parts of their neighbours.
        mean = torch.where((ids >= BOUNDARY_ID)[:, :, None], self.silence(speakers)[:, None], mean)
        sound = normalised(cepstra_of(mel.float()), frames)
        crossed = sound @ mean.transpose(1, 2)
        distance = sound.square().sum(2)[:, :, None] + mean.square().sum(2)[:, None] - 2 * crossed
        score = -_SHARPNESS * distance / 2
        numbers = torch.arange(ids.shape[1], device=ids.device)
        late = torch.arange(mel.shape[1], device=ids.device) >= frames[:, None] - SILENT_FRAMES
        spoken = numbers < counts[:, None] - 1
        absent = (late[:, :, None] & spoken[:, None]) | (numbers >= counts[:, None])[:, None]
        return score.masked_fill(absent, _NEVER)


def diagonal_prior(frames: Tensor, counts: Tensor, width: int, height: int) -> Tensor:
    """Logarithm of a beta-binomial prior along the diagonal: [rows, width, height].

    Args:
        frames, counts: [rows] int64, frames and symbols of each row.
        width, height: Most frames and symbols.
    """
    t = torch.arange(width, device=frames.device)[None, :, None].float()
    k = torch.arange(height, device=frames.device)[None, None].float()
    n = (counts - 1).float()[:, None, None]
    a, b = t + 1, (frames[:, None, None] - t).clamp(min=1).float()
    k = torch.minimum(k, n)
    choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    beta = torch.lgamma(k + a) + torch.lgamma(n - k + b) - torch.lgamma(n + a + b)
    return choose + beta - (torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b))


@torch.no_grad()
def posteriors(score: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
    """How likely each frame belongs to each symbol, over all monotonic paths in which every symbol has a frame.

    Args:
        score: [rows, frames, symbols].
        frames, counts: [rows] int64; rows with more symbols than frames give nothing of meaning.

    Returns:
        [rows, frames, symbols], summing to 1 over symbols; 0 behind a row's end.
    """
    rows, width, height = score.shape
    symbols = torch.arange(height, device=score.device)
    last = symbols == counts[:, None] - 1
    forward = score.new_empty(width, rows, height)
    total = torch.where(symbols == 0, score[:, 0], _NEVER)
    forward[0] = total
    for t in range(1, width):
        total = torch.logaddexp(total, functional.pad(total[:, :-1], (1, 0), value=_NEVER)) + score[:, t]
        forward[t] = total
    joint = torch.empty_like(forward)
    ahead = torch.where(last, 0.0, _NEVER)
    end = ahead
    for t in range(width - 1, -1, -1):
        if t < width - 1:
            onward = ahead + score[:, t + 1]
            stepped = torch.logaddexp(onward, functional.pad(onward[:, 1:], (0, 1), value=_NEVER))
            ahead = torch.where((t < frames - 1)[:, None], stepped, end)
        joint[t] = forward[t] + ahead
    found = joint.transpose(0, 1).softmax(2)
    return found * valid_positions(frames, width)[:, :, None]


def alignment_loss(score: Tensor, frames: Tensor, counts: Tensor, prior: Tensor | None) -> Tensor:
    """Negative logarithm of the frames' expected likelihoods, a mean over frames.

    Args:
        score: [rows, frames, symbols] of `Aligner`.
        frames, counts: [rows] int64.
        prior: Of `diagonal_prior`, or None.
    """
    share = posteriors(score if prior is None else score + prior, frames, counts)
    return -(share * score.clamp(min=_NEVER)).sum() / frames.sum()


@torch.no_grad()
def best_path(score: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
    """Frames of each symbol, [rows, symbols] int64, on the best monotonic path in which every symbol has a frame.

    Args:
        score: [rows, frames, symbols].
        frames, counts: [rows] int64; rows with more symbols than frames give nothing of meaning.
    """
    rows, width, height = score.shape
    total = torch.where(torch.arange(height, device=score.device) == 0, score[:, 0], _NEVER)
    moved = torch.zeros(rows, width, height, dtype=torch.bool, device=score.device)
    for t in range(1, width):
        before = functional.pad(total[:, :-1], (1, 0), value=10 * _NEVER)
        moved[:, t] = before > total
        total = torch.maximum(total, before) + score[:, t]
    number = counts - 1
    lengths = torch.zeros(rows, height, dtype=torch.int64, device=score.device)
    for t in range(width - 1, -1, -1):
        inside = t < frames
        lengths.scatter_add_(1, number[:, None], inside[:, None].long())
        # Where as many frames as symbols are left, every one has to move.
        step = moved[:, t].gather(1, number[:, None])[:, 0] | (number >= t)
        number = torch.where(inside & step, (number - 1).clamp(min=0), number)
    return lengths
