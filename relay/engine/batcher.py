"""Which steps run next: pure data in, a batch out. No thread, no clock, no torch."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Generic, TypeVar

X = TypeVar("X")


@dataclass(frozen=True, slots=True)
class Job(Generic[X]):
    """One thing to do for one slot.

    Attributes:
        slot: The slot.
        verb: `open`, `step` or `close`.
        x: Input of a step, None otherwise.
        deadline_s: When the result is due, on the callers' common clock.
    """

    slot: int
    verb: str
    x: X | None
    deadline_s: float


class Batcher(Generic[X]):
    """Earliest deadline first; equal deadlines in order of arrival; opens and closes before steps, one at a time."""

    def __init__(self, *, max_batch: int) -> None:
        self._max_batch = max_batch
        self._heap: list[tuple[int, float, int, Job[X]]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, job: Job[X]) -> None:
        """Adds a job. A slot has at most one job waiting: its state admits no other order."""
        rank = 1 if job.verb == "step" else 0
        heapq.heappush(self._heap, (rank, job.deadline_s, self._arrivals, job))
        self._arrivals += 1

    def take(self) -> list[Job[X]]:
        """The next batch: one open or close, or up to `max_batch` steps. Raises IndexError when nothing waits."""
        first = heapq.heappop(self._heap)
        batch = [first[3]]
        if first[0] == 1:
            while self._heap and len(batch) < self._max_batch:
                batch.append(heapq.heappop(self._heap)[3])
        return batch
