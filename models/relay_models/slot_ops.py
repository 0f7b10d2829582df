"""What a step of `relay_models.slots` does between its matrix products, in plain torch: the definition.

`relay_models.slot_kernels` computes the same in fused kernels. State is read by the number of a stream's frame, never
by what a buffer happens to hold: frames before a stream's first and behind its last one count as absent, so that a slot
is made fresh by setting its position to 0, and nothing left in it by another stream can be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.encoder import Subsampling
from relay_models.framing import STAGES, SUBSAMPLING

MEL_TAIL = 3
"""Mel frames before a chunk that its first frame of the second stage looks back to."""
FAR = 2**30
"""Frames of a stream without end, in numbers that 32 bits hold."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a step.

    Attributes:
        slots: [rows] int64, where each row's state lives.
        positions: [rows] int64, number of the first encoder frame of the row's chunk; 0 for a stream that begins.
        counts: [rows] int64, encoder frames of each whole stream, FAR at most.
        mels: [rows] int64, mel frames of each whole stream, FAR at most.
        active: [rows] bool, rows whose state advances.
        frames: Encoder frames of a chunk.
    """

    slots: Tensor
    positions: Tensor
    counts: Tensor
    mels: Tensor
    active: Tensor
    frames: int

    def part(self, first: int, last: int) -> Rows:
        """Rows `first` to `last` - 1."""
        one = slice(first, last)
        return Rows(
            self.slots[one], self.positions[one], self.counts[one], self.mels[one], self.active[one], self.frames
        )


@dataclass(frozen=True, slots=True)
class Norm:
    """A LayerNorm: weight and bias [size], and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: nn.LayerNorm) -> Norm:
        """The module's own tensors."""
        return cls(module.weight, module.bias, module.eps)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Stages:
    """The subsampling, its channels last.

    Attributes:
        first: [9, channels], taps of the first stage's full convolution, time before frequency.
        first_bias: [channels].
        depthwise: Of the two other stages: taps [9, channels] and bias [channels].
        pointwise: Of the two other stages: weight [channels, channels] (outputs first) and bias [channels].
        linear: [size, bins * channels], and its bias [size].
        bins: Frequencies before the first stage and after each one.
        scale: What the result is multiplied by.
    """

    first: Tensor
    first_bias: Tensor
    depthwise: tuple[tuple[Tensor, Tensor], ...]
    pointwise: tuple[tuple[Tensor, Tensor], ...]
    linear: tuple[Tensor, Tensor]
    bins: tuple[int, ...]
    scale: float

    @classmethod
    def of(cls, module: Subsampling) -> Stages:
        """A subsampling's weights in another order."""
        state = module.state_dict()
        channels = module.channels[-1]

        def taps(stage: int) -> tuple[Tensor, Tensor]:
            weight = state[f"stages.{stage}.convolution.weight"]
            return weight.reshape(channels, 9).t().contiguous(), state[f"stages.{stage}.convolution.bias"]

        def pointwise(stage: int) -> tuple[Tensor, Tensor]:
            weight = state[f"stages.{stage}.pointwise.weight"]
            return weight.reshape(channels, channels), state[f"stages.{stage}.pointwise.bias"]

        linear = state["linear.weight"].reshape(-1, channels, module.bins[-1]).transpose(1, 2).flatten(1)
        rest = range(1, STAGES)
        return cls(
            *taps(0),
            depthwise=tuple(taps(stage) for stage in rest),
            pointwise=tuple(pointwise(stage) for stage in rest),
            linear=(linear.contiguous(), state["linear.bias"]),
            bins=tuple(module.bins),
            scale=module.scale,
        )


class Ops(Protocol):
    """The steps between matrix products; tokens are the rows' frames, row after row."""

    name: str

    def first_stages(self, features: Tensor, tail: Tensor, stages: Stages, rows: Rows) -> Tensor:
        """First stage, and the depthwise part of the second.

        Args:
            features: [rows, mel frames, mel_bins].
            tail: [slots, MEL_TAIL, mel_bins], the mel frames before; read only.
            stages: Weights.
            rows: The rows.

        Returns:
            [rows, mel frames / 4, bins, channels].
        """

    def last_stage(self, x: Tensor, tail: Tensor, stages: Stages, rows: Rows) -> Tensor:
        """The depthwise part of the third stage.

        Args:
            x: [rows, mel frames / 4, bins, channels].
            tail: [slots, bins, channels], the frame before; read only.
            stages: Weights.
            rows: The rows.

        Returns:
            [rows, mel frames / 8, bins, channels].
        """

    def add_norm(self, x: Tensor, y: Tensor, scale: float, norm: Norm) -> Tensor:
        """x += scale * y in place, and its norm: all [tokens, size]."""

    def add_norm_twice(self, x: Tensor, y: Tensor, scale: float, outer: Norm, inner: Norm) -> Tensor:
        """x = outer(x + scale * y) in place, and inner(x): all [tokens, size]."""

    def attend(self, qkv: Tensor, by_distance: Tensor, constant: Tensor, cache: Tensor, rows: Rows) -> Tensor:
        """Writes the new keys and values into the ring and attends to all that are there.

        Args:
            qkv: [tokens, 3 * size], queries with the content bias, keys, values.
            by_distance: [heads, tokens, columns], query times key of each distance, farthest first.
            constant: [heads, columns] float32, what the position bias adds to each of them.
            cache: [slots, 2 (key, value), heads, span, head_dim]; frame n lives in place n % span.
            rows: The rows.

        Returns:
            [tokens, size].
        """

    def convolve(
        self, gates: Tensor, tail: Tensor, taps: Tensor, bias: Tensor | None, norm: Norm, rows: Rows
    ) -> Tensor:
        """Gated linear unit, causal depthwise convolution, norm, SiLU.

        Args:
            gates: [tokens, 2 * size].
            tail: [slots, kernel - 1, size], last inputs of the convolution, frame n in place n % (kernel - 1).
            taps: [kernel, size], earliest first.
            bias: [size], or None.
            norm: The norm.
            rows: The rows.

        Returns:
            [tokens, size].
        """


def write_slots(buffer: Tensor, rows: Rows, new: Tensor) -> None:
    """Overwrites the slots of active rows: buffer [slots, ...], new [rows, ...]."""
    active = rows.active.reshape(-1, *(1,) * (new.dim() - 1))
    buffer[rows.slots] = torch.where(active, new.to(buffer.dtype), buffer[rows.slots])


def _inside(first: Tensor, width: int, counts: Tensor) -> Tensor:
    """Which of `width` frames from number `first` [rows] on lie inside the stream: [rows, width] bool."""
    numbers = first[:, None] + torch.arange(width, device=first.device)
    return (numbers >= 0) & (numbers < counts[:, None])


class TorchOps:
    """The definition, on any device."""

    name = "torch"

    def first_stages(self, features: Tensor, tail: Tensor, stages: Stages, rows: Rows) -> Tensor:
        """See `Ops.first_stages`."""
        x = torch.cat((tail[rows.slots].to(features.dtype), features), dim=1)
        first = SUBSAMPLING * rows.positions - SUBSAMPLING + 1 - MEL_TAIL
        x = x.where(_inside(first, x.shape[1], rows.mels)[:, :, None], 0).to(stages.first.dtype)
        channels = stages.first.shape[1]
        kernel = stages.first.t().reshape(channels, 1, 3, 3)
        y = functional.conv2d(x[:, None], kernel, stages.first_bias, 2, (0, 2))[..., : stages.bins[1]]
        inside = _inside(4 * rows.positions - 4, y.shape[2], rows.mels // 2 + 1)
        y = functional.relu(y).where(inside[:, None, :, None], 0)
        return self._depthwise(y, stages, 0)

    def last_stage(self, x: Tensor, tail: Tensor, stages: Stages, rows: Rows) -> Tensor:
        """See `Ops.last_stage`."""
        both = torch.cat((tail[rows.slots][:, None], x), dim=1)
        inside = _inside(2 * rows.positions - 2, both.shape[1], (rows.mels // 2 + 1) // 2 + 1)
        return self._depthwise(both.where(inside[:, :, None, None], 0).permute(0, 3, 1, 2), stages, 1)

    @staticmethod
    def _depthwise(x: Tensor, stages: Stages, stage: int) -> Tensor:
        """[rows, channels, time, bins] -> [rows, time / 2, bins, channels]."""
        taps, bias = stages.depthwise[stage]
        channels = taps.shape[1]
        y = functional.conv2d(x, taps.t().reshape(channels, 1, 3, 3), bias, 2, (0, 2), groups=channels)
        return y[..., : stages.bins[stage + 2]].permute(0, 2, 3, 1).contiguous()

    def add_norm(self, x: Tensor, y: Tensor, scale: float, norm: Norm) -> Tensor:
        """See `Ops.add_norm`."""
        return norm(x.add_(y, alpha=scale))

    def add_norm_twice(self, x: Tensor, y: Tensor, scale: float, outer: Norm, inner: Norm) -> Tensor:
        """See `Ops.add_norm_twice`."""
        return inner(x.copy_(outer(x.add(y, alpha=scale))))

    def attend(self, qkv: Tensor, by_distance: Tensor, constant: Tensor, cache: Tensor, rows: Rows) -> Tensor:
        """See `Ops.attend`."""
        _, _, heads, span, head_dim = cache.shape
        frames, count = rows.frames, len(rows.slots)
        new = torch.arange(frames, device=qkv.device)
        query, key, value = qkv.reshape(count, frames, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
        numbers = rows.positions[:, None] + new  # of the queries and the new keys
        places = numbers % span
        slots = rows.slots[:, None]
        entries = torch.stack((key, value), dim=1).permute(0, 3, 1, 2, 4).to(cache.dtype)
        ring = cache[rows.slots]
        index = places[:, None, None, :, None].expand(-1, 2, heads, -1, head_dim)
        ring.scatter_(3, index, entries.permute(0, 2, 3, 1, 4))
        active = rows.active[:, None, None, None, None]
        cache[slots, :, :, places] = torch.where(active, entries, cache[slots, :, :, places])

        last = numbers[:, -1:]
        keys = last - (last - torch.arange(span, device=qkv.device)) % span
        distances = numbers[:, :, None] - keys[:, None]
        present = (keys >= 0) & (keys < rows.counts[:, None])
        # A query outside its stream sees itself, or it would see nothing.
        visible = present[:, None] | (distances == 0)
        # What another stream has left in the ring may be anything, and nothing times NaN is NaN.
        ring = ring.where(visible.any(1)[:, None, None, :, None], 0)
        columns = (span - 1 - distances)[None].expand(heads, -1, -1, -1)
        scores = by_distance.reshape(heads, count, frames, -1).gather(3, columns).float()
        scores = scores + constant[:, None, None].expand(-1, count, frames, -1).gather(3, columns)
        scale = head_dim**-0.5
        mask = (scores * scale).masked_fill(~visible[None], float("-inf")).transpose(0, 1).to(qkv.dtype)
        mixed = functional.scaled_dot_product_attention(
            query, ring[:, 0].to(qkv.dtype), ring[:, 1].to(qkv.dtype), attn_mask=mask, scale=scale
        )
        return mixed.transpose(1, 2).reshape(count * frames, -1)

    def convolve(
        self, gates: Tensor, tail: Tensor, taps: Tensor, bias: Tensor | None, norm: Norm, rows: Rows
    ) -> Tensor:
        """See `Ops.convolve`."""
        past, size = tail.shape[1:]
        frames, count = rows.frames, len(rows.slots)
        gated = functional.glu(gates, dim=-1).reshape(count, frames, size)
        inside = _inside(rows.positions, frames, rows.counts)
        gated = gated.where(inside[:, :, None], 0)
        before = rows.positions[:, None] - past + torch.arange(past, device=gates.device)
        old = tail[rows.slots].gather(1, (before % past)[:, :, None].expand(-1, -1, size)).to(gates.dtype)
        both = torch.cat((old.where((before >= 0)[:, :, None], 0), gated), dim=1)
        kept = both[:, -past:] if frames >= past else gated
        numbers = rows.positions[:, None] + torch.arange(frames - kept.shape[1], frames, device=gates.device)
        slots, places = rows.slots[:, None], numbers % past
        active = rows.active[:, None, None]
        tail[slots, places] = torch.where(active, kept.to(tail.dtype), tail[slots, places])
        mixed = functional.conv1d(both.transpose(1, 2), taps.t()[:, None], bias, groups=size).transpose(1, 2)
        return functional.silu(norm(mixed)).reshape(count * frames, size)
