"""Steps under way at once give what steps one by one give: no buffer is written while somebody still needs it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.slot_graph import Buckets
from relay_models.slot_pipeline import Pipeline, Step

SLOTS, WIDTH, LARGEST = 6, 3, 4
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


class Sums:
    """Adds up what each slot is given; inputs and outputs are the same buffers at every step, as in a CUDA graph."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.state = torch.zeros(SLOTS + 1, WIDTH, device=device)
        self.outputs: dict[int, tuple[Tensor, Tensor]] = {}

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {
            "slots": torch.full((rows,), SLOTS, device=self.device),
            "x": torch.zeros(rows, WIDTH, device=self.device),
            "active": torch.zeros(rows, dtype=torch.bool, device=self.device),
        }

    def step(self, slots: Tensor, x: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        rows = len(slots)
        if rows not in self.outputs:
            self.outputs[rows] = (
                torch.zeros(rows, WIDTH, device=self.device, dtype=torch.bfloat16),
                torch.zeros(rows, device=self.device, dtype=torch.int64),
            )
        sums, counts = self.outputs[rows]
        new = self.state[slots] + x * active[:, None]
        self.state[slots] = new
        sums.copy_(new)
        counts.copy_((new != 0).sum(1))
        return sums, counts


def made(device: str, depth: int) -> Pipeline:
    sums = Sums(device)
    buckets = Buckets(sums.step, sums.inputs, [1, 2, LARGEST], graph=device == "cuda")
    return Pipeline(buckets, depth=depth)


ROWS = st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 9)), min_size=1, max_size=LARGEST).filter(
    lambda rows: len({slot for slot, _ in rows}) == len(rows)
)


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=60)
@given(steps=st.lists(ROWS, max_size=12), depth=st.integers(1, 3), held=st.integers(0, 3))
def test_steps_under_way_at_once_give_what_they_give_alone(
    device: str, steps: list[list[tuple[int, int]]], depth: int, held: int
) -> None:
    pipeline = made(device, depth)
    slots_buffer, x_buffer = np.zeros(LARGEST, np.int64), np.zeros((LARGEST, WIDTH), np.float32)
    sums = np.zeros((SLOTS, WIDTH), np.float32)
    expected: deque[tuple[Any, Any]] = deque()
    under_way: deque[Step] = deque()

    def read() -> None:
        got, counts = under_way.popleft().results()
        want, wanted_counts = expected.popleft()
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)  # small whole numbers: bfloat16 holds them
        np.testing.assert_array_equal(counts, wanted_counts)

    for rows in steps:
        count = len(rows)
        slots_buffer[:count] = [slot for slot, _ in rows]
        x_buffer[:count] = np.array([value for _, value in rows])[:, None] + np.arange(WIDTH)
        sums[slots_buffer[:count]] += x_buffer[:count]
        expected.append((sums[slots_buffer[:count]].copy(), (sums[slots_buffer[:count]] != 0).sum(1)))
        while len(under_way) > min(held, depth - 1):
            read()
        under_way.append(pipeline.start(slots=slots_buffer[:count], x=x_buffer[:count]))
        x_buffer[:] = np.nan  # the caller's arrays are its own again
    while under_way:
        read()


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_wrongly_asked_says_so_and_harms_no_step_under_way(device: str) -> None:
    pipeline = made(device, 2)

    def start(value: float, rows: int = 1) -> Step:
        return pipeline.start(slots=np.arange(rows), x=np.full((rows, WIDTH), value, np.float32))

    first, second = start(1), start(2)
    with pytest.raises(RuntimeError, match="2 steps are under way"):
        start(4)
    with pytest.raises(ValueError, match="5 rows are more than the largest bucket's 4"):
        start(4, rows=5)
    assert first.results()[0].tolist() == [[1] * WIDTH]
    with pytest.raises(RuntimeError, match="given once"):
        first.results()
    with pytest.raises(KeyError):
        pipeline.start(slots=np.arange(1))
    third = start(4)
    assert second.results()[0].tolist() == [[3] * WIDTH]
    assert third.results()[0].tolist() == [[7] * WIDTH]
