"""State of streaming models: plain tensors, one row a stream, handed in and out of every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class StreamState:
    """Named tensors whose first dimension is the row of a stream.

    Nothing of a stream lives anywhere else: copying a row copies the stream. The tensors are static buffers; modules
    advance them in place and return the same object, so that a captured CUDA graph stays valid.

    Args:
        tensors: Buffers [rows, ...]. Fresh state is all zeros.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        if not self.tensors or any(tensor.shape[0] != self.rows for tensor in self.tensors.values()):
            raise ValueError("all tensors of a state need the same number of rows")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def rows(self) -> int:
        """Number of streams."""
        return next(iter(self.tensors.values())).shape[0]

    def reset(self, mask: Tensor) -> None:
        """Makes the masked rows fresh; `mask` is [rows] bool."""
        for tensor in self.tensors.values():
            tensor[mask] = 0

    def fork(self, source: int, target: int) -> None:
        """Makes row `target` a copy of row `source`."""
        for tensor in self.tensors.values():
            tensor[target] = tensor[source]

    def snapshot(self, row: int) -> dict[str, Tensor]:
        """A copy of one row, for `restore`."""
        return {name: tensor[row].clone() for name, tensor in self.tensors.items()}

    def restore(self, row: int, snapshot: Mapping[str, Tensor]) -> None:
        """Puts a row back to what it was at the snapshot."""
        for name, tensor in self.tensors.items():
            tensor[row] = snapshot[name]


def valid_positions(counts: Tensor, width: int) -> Tensor:
    """Which of `width` padded positions hold input: [rows, width] bool from counts [rows]."""
    return torch.arange(width, device=counts.device) < counts[:, None]


def write_rows(old: Tensor, new: Tensor, active: Tensor) -> None:
    """Overwrites the active rows of a state buffer in place: old, new [rows, ...], active [rows] bool."""
    old.copy_(torch.where(active.reshape(-1, *(1,) * (old.dim() - 1)), new.to(old.dtype), old))
