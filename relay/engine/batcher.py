"""Which steps run next: pure data in and out. No thread, no clock, no torch."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

X = TypeVar("X")
_RISE, _FALL = 0.5, 0.02  # an estimate follows slow steps at once and fast ones reluctantly: it is of the slower ones
_EDGES, _URGENT, _STEPS = range(3)


@dataclass(frozen=True, slots=True)
class Job(Generic[X]):
    """One thing to do for one slot.

    Attributes:
        slot: The slot.
        verb: `open`, `step` or `close`.
        x: Input of a step, None otherwise.
        deadline_s: When the result is due, on the callers' common clock.
        since_s: When it was asked for, on the clock of whoever measures.
        allowed_s: The time that there was then until the deadline; None where nobody gave one.
        urgent: Somebody waits in silence for this step: a turn starts, or a reply's first words are made.
    """

    slot: int
    verb: str
    x: X | None
    deadline_s: float
    urgent: bool = False
    since_s: float = 0.0
    allowed_s: float | None = None


class StepTimes:
    """How long steps take, by the size of their batch, as far as they were measured.

    A runner with static shapes steps whole buckets: a batch costs what the smallest bucket that holds it costs. One
    thread may observe while others ask: nothing is ever resized.

    Args:
        buckets: Sizes of batches that are told apart, the largest batch among them.
    """

    def __init__(self, buckets: Sequence[int]) -> None:
        self.buckets = sorted(set(buckets))
        self._seconds: list[float | None] = [None] * len(self.buckets)

    def observe(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        index = self._index(rows)
        before = self._seconds[index]
        if before is None:
            self._seconds[index] = seconds
        else:
            self._seconds[index] = before + (_RISE if seconds > before else _FALL) * (seconds - before)

    def bucket(self, rows: int) -> int:
        """The smallest bucket that holds so many rows; the largest one when none does."""
        return self.buckets[self._index(rows)]

    def _index(self, rows: int) -> int:
        return min(bisect.bisect_left(self.buckets, rows), len(self.buckets) - 1)

    def estimate(self, rows: int) -> float | None:
        """Seconds of a step of so many rows, at least: the most that a bucket up to theirs takes; None if none did."""
        known = self._seconds[: self._index(rows) + 1]
        return max((seconds for seconds in known if seconds is not None), default=None)


class Batcher(Generic[X]):
    """Earliest deadline first; equal deadlines in order of arrival.

    Opens and closes go before steps, one at a time; urgent steps go before other steps. A batch that begins with urgent
    steps is filled up with others, so that these do not wait longer for it than they must.

    Args:
        max_batch: Most steps of a batch.
        times: What steps of buckets take, where the runner has static shapes: a batch that fits none is cut to the next
            smaller bucket when two steps are quicker than one that is padded.
    """

    def __init__(self, *, max_batch: int, times: StepTimes | None = None) -> None:
        self._max_batch = max_batch
        self._times = times
        self._heap: list[tuple[int, float, int, Job[X]]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, job: Job[X]) -> None:
        """Adds a job. A slot has at most one job waiting: its state admits no other order."""
        rank = _EDGES if job.verb != "step" else _URGENT if job.urgent else _STEPS
        heapq.heappush(self._heap, (rank, job.deadline_s, self._arrivals, job))
        self._arrivals += 1

    def take(self) -> list[Job[X]]:
        """The next batch: one open or close, or up to `max_batch` steps. Raises IndexError when nothing waits."""
        if self._heap and self._heap[0][0] != _EDGES:
            return [heapq.heappop(self._heap)[3] for _ in range(self._size())]
        return [heapq.heappop(self._heap)[3]]

    def _size(self) -> int:
        """How many of the steps that wait go together."""
        waiting = min(len(self._heap), self._max_batch)
        if self._times is None:
            return waiting
        smaller = [bucket for bucket in self._times.buckets if bucket < waiting]
        if not smaller:
            return waiting
        padded = self._times.estimate(waiting)
        cut, rest = self._times.estimate(smaller[-1]), self._times.estimate(waiting - smaller[-1])
        if padded is None or cut is None or rest is None or cut + rest >= padded:
            return waiting
        return smaller[-1]
