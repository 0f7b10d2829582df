"""Steps over slots with static inputs and outputs, one for each batch size, captured as CUDA graphs on a GPU.

A replay launches all kernels of a step at once; what it reads and writes are the same buffers every time, so callers
copy into them and out of them. A batch takes the smallest bucket that holds it; rows left over belong to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_WARM_UP_STEPS = 2  # before the capture: kernels are compiled and libraries choose theirs

Outputs = tuple[Tensor, ...]


class Bucket:
    """A step of so many rows.

    Args:
        step: Called with the inputs by name.
        inputs: Static buffers [rows, ...]; of rows of nobody at first, as the step is run once or more to begin with.
        graph: Capture it; needs a GPU.
        pool: Memory that graphs share which never run at once; see `torch.cuda.graph`.

    Attributes:
        inputs: The buffers.
        outputs: What the last `run` gave.

    Raises:
        RuntimeError: The step cannot be captured.
    """

    outputs: Outputs

    def __init__(
        self, step: Callable[..., Outputs], inputs: Mapping[str, Tensor], *, graph: bool, pool: Any = None
    ) -> None:
        self._step = step
        self.inputs = dict(inputs)
        self._graph: torch.cuda.CUDAGraph | None = None
        if graph:
            self._capture(pool)
        else:
            self.run()

    @property
    def rows(self) -> int:
        """Rows of the step."""
        return len(next(iter(self.inputs.values())))

    def _capture(self, pool: Any) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                self.run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self.run()
        self._graph = graph

    def run(self) -> None:
        """Steps the rows; on a GPU it returns before they are done."""
        if self._graph is None:
            self.outputs = self._step(**self.inputs)
        else:
            self._graph.replay()


class Buckets:
    """Steps for batches of any size up to the largest.

    Args:
        step: See `Bucket`.
        blank: Inputs for so many rows of nobody; of steps that advance state `slots` [rows] and `active` [rows] bool
            are among them.
        sizes: Rows of the buckets.
        graph: Capture them; needs a GPU.
    """

    def __init__(
        self, step: Callable[..., Outputs], blank: Callable[[int], Mapping[str, Tensor]], sizes: Sequence[int],
        *, graph: bool,
    ) -> None:  # fmt: skip
        pool = torch.cuda.graph_pool_handle() if graph else None
        one = blank(1)
        self._nobody = int(one["slots"][0]) if "slots" in one else None
        # The largest first: the memory that it needs serves the smaller ones too.
        found = [Bucket(step, blank(rows), graph=graph, pool=pool) for rows in sorted(set(sizes), reverse=True)]
        self._buckets = found[::-1]

    @property
    def largest(self) -> Bucket:
        """The step of the most rows."""
        return self._buckets[-1]

    def step(self, **inputs: Tensor) -> Outputs:
        """One step of as many rows as the inputs have, all of them active; `active` is not among the inputs.

        Returns:
            The outputs of these rows, in buffers that the next step overwrites.

        Raises:
            ValueError: There are more rows than the largest bucket has.
        """
        count = len(next(iter(inputs.values())))
        bucket = next((bucket for bucket in self._buckets if bucket.rows >= count), None)
        if bucket is None:
            raise ValueError(f"{count} rows are more than the largest bucket's {self._buckets[-1].rows}")
        for name, values in inputs.items():
            bucket.inputs[name][:count].copy_(values, non_blocking=True)
        if self._nobody is not None:
            bucket.inputs["slots"][count:].fill_(self._nobody)
            bucket.inputs["active"][:count].fill_(True)
            bucket.inputs["active"][count:].fill_(False)
        bucket.run()
        return tuple(output[:count] for output in bucket.outputs)
