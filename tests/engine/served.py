"""A device and its callers in virtual time."""

from __future__ import annotations

import heapq

from relay.engine.batcher import Batcher, Job, StepTimes
from relay.engine.load import Admission, Load

PERIOD_S = 0.16
BUCKETS = (1, 2, 4, 8, 16)


class Served:
    """Each caller has a chunk every period, due half a period later, for as long as it stays.

    Args:
        callers: How many want to come.
        seconds: How long the world lasts.
        every_s: Between two of them.
        stay_s: How long one talks.
        silent_s: How long one says nothing at first.
        max_share: Of the time, see `Admission`; 0 lets everybody in.
        urgent_every: Each so many-th chunk of a caller is urgent.
    """

    def __init__(
        self,
        callers: int,
        *,
        seconds: float = 60 * PERIOD_S,
        every_s: float = PERIOD_S / 10,
        stay_s: float = 1e9,
        silent_s: float = 0.0,
        max_share: float = 0.0,
        urgent_every: int = 0,
    ) -> None:
        self.times = StepTimes(BUCKETS)
        self.batcher: Batcher[float] = Batcher(max_batch=BUCKETS[-1], times=self.times)
        self.load = Load(BUCKETS[-1])
        self.inside: set[int] = set()
        self.most_inside = 0
        self.refused: list[int] = []
        self.answers: list[tuple[float, bool]] = []
        self.served = [0] * callers
        self.late: dict[int, int] = {}
        self.waits: dict[bool, list[float]] = {True: [], False: []}
        admission = Admission({"ears": self.load}, max_share=max_share)
        # (when, caller, what: -1 comes, -2 goes, else the number of its chunk)
        events = [(number * every_s, number, -1) for number in range(callers)]
        heapq.heapify(events)
        now = 0.0
        while now < seconds:
            while events and events[0][0] <= now:
                at, caller, what = heapq.heappop(events)
                if what == -1:
                    refusal = admission.refusal(now)
                    self.answers.append((now, refusal is None))
                    if refusal:
                        self.refused.append(caller)
                        continue
                    self.inside.add(caller)
                    self.most_inside = max(self.most_inside, len(self.inside))
                    admission.count(now, len(self.inside))
                    heapq.heappush(events, (at + silent_s, caller, 0))
                    heapq.heappush(events, (at + stay_s, caller, -2))
                elif what == -2:
                    self.inside.discard(caller)
                    admission.count(now, len(self.inside))
                elif caller in self.inside:
                    urgent = urgent_every > 0 and what % urgent_every == urgent_every - 1
                    due_s = at + PERIOD_S / 2
                    self.batcher.add(Job(caller, "step", at, due_s, urgent=urgent, since_s=at, allowed_s=PERIOD_S / 2))
                    heapq.heappush(events, (at + PERIOD_S, caller, what + 1))
            if not len(self.batcher):
                if not events:
                    break
                now = max(now, events[0][0])
                continue
            batch = self.batcher.take()
            begun, seconds_taken = now, self.step_s(self.times.bucket(len(batch)))
            now += seconds_taken
            self.times.observe(len(batch), seconds_taken)
            self.load.stepped(now, len(batch), seconds_taken)
            for job in batch:
                assert job.x is not None
                assert job.allowed_s is not None
                self.load.answered(now, (now - job.since_s) / job.allowed_s)
                self.served[job.slot] += 1
                self.late[job.slot] = self.late.get(job.slot, 0) + (now > job.deadline_s)
                self.waits[job.urgent].append(begun - job.x)

    @staticmethod
    def step_s(rows: int) -> float:
        """16 rows take 24 ms, so that 106 callers fill a period."""
        return 0.008 + 0.001 * rows

    def flips(self) -> int:
        """How often the answer to newcomers changed."""
        return sum(one[1] != other[1] for one, other in zip(self.answers, self.answers[1:], strict=False))
