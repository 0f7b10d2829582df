"""Static steps from and to host memory, several under way: copies go beside the computing; only results are waited for.

A step's inputs are written into pinned memory, copied to the device on a stream of their own while the step before may
still compute, and from there into the static buffers of its bucket; its results leave on a third stream, behind an
event. So the host is free from `start` to `Step.results`, which is the one place where it waits for the device. On the
CPU the same buffers are used, and `start` computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relay_models.slot_graph import Buckets

Array = npt.NDArray[Any]


@dataclass(slots=True)
class _Lane:
    """Buffers of one step under way: inputs by name and outputs in order, on the host and on the device.

    Attributes:
        given: Host memory that inputs are written into.
        inputs: The same on the device.
        outputs: Results on the device; numbers with a fraction as float32, as NumPy has no bfloat16.
        taken: Host memory that results are read from.
        done: Recorded when the results are on the host.
        step: Whose buffers these are, until its results were read.
    """

    given: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    taken: list[Tensor] = field(default_factory=list)
    done: torch.cuda.Event | None = None
    step: Step | None = None


class Step:
    """A step under way; made by `Pipeline.start`."""

    def __init__(self, lane: _Lane, rows: int) -> None:
        self._lane: _Lane | None = lane
        self._rows = rows

    def results(self) -> tuple[Array, ...]:
        """What the step gave, [rows, ...] each, the caller's own. Waits for it; to be asked once.

        Raises:
            RuntimeError: They were asked for already.
        """
        lane, self._lane = self._lane, None
        if lane is None:
            raise RuntimeError("the results of a step are given once")
        if lane.done is not None:
            lane.done.synchronize()
        lane.step = None
        return tuple(tensor[: self._rows].numpy().copy() for tensor in lane.taken)


class Pipeline:
    """Steps of `Buckets` from host memory. Used by one thread.

    Args:
        buckets: The steps.
        depth: How many may be under way.
    """

    def __init__(self, buckets: Buckets, *, depth: int = 2) -> None:
        self._buckets = buckets
        like = buckets.largest.inputs
        self._cuda = next(iter(like.values())).is_cuda
        self._lanes = [self._lane(like) for _ in range(depth)]
        self._turn = 0
        self._coming, self._going = (torch.cuda.Stream() if self._cuda else None for _ in range(2))

    def _lane(self, like: Mapping[str, Tensor]) -> _Lane:
        inputs = {name: torch.empty_like(tensor) for name, tensor in like.items() if name != "active"}
        given = {name: self._host(tensor) for name, tensor in inputs.items()}
        lane = _Lane(given, inputs)
        for output in self._buckets.largest.outputs:
            dtype = torch.float32 if output.is_floating_point() else output.dtype
            lane.outputs.append(torch.empty_like(output, dtype=dtype))
            lane.taken.append(self._host(lane.outputs[-1]))
        return lane

    def _host(self, like: Tensor) -> Tensor:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=self._cuda)

    def start(self, **inputs: Array) -> Step:
        """Begins a step of as many rows as the inputs have; see `Buckets.step`. Steps run in the order of their starts.

        Raises:
            ValueError: There are more rows than the largest bucket has.
            RuntimeError: Results of a step whose buffers are needed were not asked for.
        """
        rows = len(next(iter(inputs.values())))
        if rows > self._buckets.largest.rows:
            raise ValueError(f"{rows} rows are more than the largest bucket's {self._buckets.largest.rows}")
        lane = self._lanes[self._turn % len(self._lanes)]
        if lane.step is not None:
            raise RuntimeError(f"{len(self._lanes)} steps are under way: ask the oldest for its results first")
        for name, tensor in lane.given.items():  # the copy from here has ended: its step's results were read
            np.copyto(tensor[:rows].numpy(), inputs[name])
        try:
            self._run(lane, rows)
        except BaseException:
            if self._cuda:
                torch.cuda.synchronize()  # what was begun may still read these buffers
            raise
        self._turn += 1
        lane.step = Step(lane, rows)
        return lane.step

    def _run(self, lane: _Lane, rows: int) -> None:
        here = torch.cuda.current_stream() if self._cuda else None
        with _on(self._coming):
            for name, tensor in lane.given.items():
                lane.inputs[name][:rows].copy_(tensor[:rows], non_blocking=True)
        if here is not None and self._coming is not None:
            here.wait_stream(self._coming)
        outputs = self._buckets.step(**{name: tensor[:rows] for name, tensor in lane.inputs.items()})
        # Into buffers of its own: the next step overwrites those of the bucket.
        for kept, output in zip(lane.outputs, outputs, strict=True):
            kept[:rows].copy_(output)
        if here is not None and self._going is not None:
            self._going.wait_stream(here)
        with _on(self._going):
            for taken, kept in zip(lane.taken, lane.outputs, strict=True):
                taken[:rows].copy_(kept[:rows], non_blocking=True)
            if self._going is not None:
                lane.done = torch.cuda.Event()
                lane.done.record(self._going)


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    """Work of the block goes to this stream; on the CPU there is none."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)
