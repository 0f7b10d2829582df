"""Causal layers over frames, for whole utterances and for streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.state import StreamState, write_rows


class CausalBlock(nn.Module):
    """ConvNeXt's block (Liu et al. 2022, arXiv 2201.03545) over time, causal.

    Args:
        size: Channels.
        inner: Channels between the two products.
        kernel: Frames that the depthwise convolution covers.
        depth: Blocks of the stack it belongs to; its first output is scaled down accordingly.
    """

    def __init__(self, size: int, inner: int, kernel: int, depth: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(size, size, kernel, groups=size)
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, inner)
        self.down = nn.Linear(inner, size)
        with torch.no_grad():
            self.down.weight /= depth**0.5

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """[rows, frames, size] after `past` [rows, kernel - 1, size] -> [rows, frames, size]."""
        mixed = self.mix(torch.cat((past, x), dim=1).transpose(1, 2)).transpose(1, 2)
        y: Tensor = x + self.down(functional.gelu(self.up(self.norm(mixed))))
        return y


class CausalStack(nn.Module):
    """A linear layer, causal blocks and a norm.

    Args:
        inputs: Channels that go in.
        size, inner, kernel: Of the blocks.
        layers: Number of blocks.
        dropout: Share of values zeroed between blocks in training.
    """

    def __init__(self, inputs: int, size: int, inner: int, kernel: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.past = kernel - 1
        self.size = size
        self.enter = nn.Linear(inputs, size)
        self.blocks = nn.ModuleList(CausalBlock(size, inner, kernel, layers) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Whole utterances: [rows, frames, inputs] -> [rows, frames, size]. Frame t sees frames up to t."""
        x = self.enter(x)
        silence = x.new_zeros(len(x), self.past, self.size)
        for block in self.blocks:
            x = block(self.dropout(x), silence)
        y: Tensor = self.norm(x)
        return y

    def fresh_tensors(self, rows: int, prefix: str) -> dict[str, Tensor]:
        """State buffers for `rows` streams: the last inputs of each block."""
        weight = self.norm.weight
        return {f"{prefix}.{index}": weight.new_zeros(rows, self.past, self.size) for index in range(len(self.blocks))}

    def step(self, x: Tensor, state: StreamState, active: Tensor, prefix: str) -> Tensor:
        """New frames of streams: [rows, frames, inputs] -> [rows, frames, size]; see `Voice.step`."""
        x = self.enter(x)
        for index, block in enumerate(self.blocks):
            tail = state[f"{prefix}.{index}"]
            y = block(x, tail)
            write_rows(tail, torch.cat((tail, x), dim=1)[:, -self.past :], active)
            x = y
        z: Tensor = self.norm(x)
        return z
