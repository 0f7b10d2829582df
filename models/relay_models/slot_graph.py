"""Steps of a slot encoder with static inputs and outputs, one for each batch size, captured as CUDA graphs on a GPU.

A replay launches all kernels of a step at once; what it reads and writes are the same buffers every time, so callers
copy into them and out of them. A batch takes the smallest bucket that holds it; rows left over belong to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relay_models.framing import ENDLESS
from relay_models.slots import SlotEncoder

_WARM_UP_STEPS = 2  # before the capture: kernels are compiled and libraries choose theirs


class Bucket:
    """A step of so many rows.

    Args:
        encoder: The encoder and its slots.
        rows: Rows of the step.
        graph: Capture it; needs a GPU.
        pool: Memory that the graphs of one encoder share, as they never run at once; see `torch.cuda.graph`.

    Attributes:
        slots, features, active, fresh, lengths: Inputs of `SlotEncoder.step`; at first rows of nobody.
        frames, valid: Its outputs after `run`.

    Raises:
        RuntimeError: The step cannot be captured.
    """

    def __init__(self, encoder: SlotEncoder, rows: int, *, graph: bool, pool: Any = None) -> None:
        device = encoder.state["position"].device
        self._encoder = encoder
        self.rows = rows
        self.slots = torch.full((rows,), encoder.slots, device=device)
        self.features = torch.zeros(rows, encoder.chunk_mels, encoder.config.mel_bins, device=device)
        self.active = torch.zeros(rows, dtype=torch.bool, device=device)
        self.fresh = torch.zeros(rows, dtype=torch.bool, device=device)
        self.lengths = torch.full((rows,), ENDLESS, device=device)
        self.frames: Tensor
        self.valid: Tensor
        self._graph: torch.cuda.CUDAGraph | None = None
        if graph:
            self._capture(pool)
        else:
            self._step()

    def _step(self) -> None:
        self.frames, self.valid = self._encoder.step(self.slots, self.features, self.active, self.fresh, self.lengths)

    def _capture(self, pool: Any) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._step()

    def run(self) -> None:
        """Steps the rows; on a GPU it returns before they are done."""
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()


class Buckets:
    """Steps for batches of any size up to the largest.

    Args:
        encoder: The encoder and its slots.
        sizes: Rows of the buckets.
        graph: Capture them; needs a GPU.
    """

    def __init__(self, encoder: SlotEncoder, sizes: Sequence[int], *, graph: bool) -> None:
        pool = torch.cuda.graph_pool_handle() if graph else None
        self._scratch = encoder.slots
        # The largest first: the memory that it needs serves the smaller ones too.
        buckets = [Bucket(encoder, rows, graph=graph, pool=pool) for rows in sorted(set(sizes), reverse=True)]
        self._buckets = buckets[::-1]

    def step(self, slots: Tensor, features: Tensor, fresh: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk of each of these slots; see `SlotEncoder.step`.

        Returns:
            Frames and their validity, in buffers that the next step overwrites.

        Raises:
            ValueError: There are more rows than the largest bucket has.
        """
        count = len(slots)
        bucket = next((bucket for bucket in self._buckets if bucket.rows >= count), None)
        if bucket is None:
            raise ValueError(f"{count} rows are more than the largest bucket's {self._buckets[-1].rows}")
        bucket.slots[:count].copy_(slots, non_blocking=True)
        bucket.slots[count:].fill_(self._scratch)
        bucket.features[:count].copy_(features, non_blocking=True)
        bucket.active[:count].fill_(True)
        bucket.active[count:].fill_(False)
        bucket.fresh[:count].copy_(fresh, non_blocking=True)
        bucket.lengths[:count].copy_(lengths, non_blocking=True)
        bucket.run()
        return bucket.frames[:count], bucket.valid[:count]
