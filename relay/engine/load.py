"""How near an engine is to its limit, by what its steps took, and whether one caller more is let in: pure, no clock.

Two things are measured over the last seconds. The first is the part of the time that the steps would have taken in full
batches: not the time that the engine was busy, as an engine that steps whatever waits is soon busy all the time and
only then begins to fill its batches. The second is how much of the time that callers gave their steps was used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

WINDOW_S = 10.0
_PART_S = 0.5
_PARTS = round(WINDOW_S / _PART_S)
_BINS, _BINS_PER_SHARE = 33, 16  # of deadlines' shares: up to twice the time that there was
_LEAST_TIMED = 40
_FORGET = 0.99  # of what is known of the cost of batches, each part: it is a matter of a minute
_LEAST_VARIANCE = 0.25  # of the rows of batches, from which the cost of a row can be told from that of a step
_P95 = 0.95
_REOPEN = 0.85  # of the pressure at which callers are refused
_BUSY = 0.5


@dataclass(frozen=True, slots=True)
class Measures:
    """What is known of an engine's last seconds; see the methods of `Load`."""

    used: float = 0.0
    busy: float = 0.0
    deadline_share: float = 0.0


class Measured(Protocol):
    """What can be asked how near it is to its limit: the `Load` of an engine of this process, or of another."""

    def measures(self, now_s: float) -> Measures:
        """How it stands now."""
        ...


@dataclass(slots=True)
class _Part:
    """What happened in half a second, or in none yet.

    Attributes:
        number: Which half second, counted on the clock.
        busy_s: Time that steps took.
        rows: Rows stepped.
        shares: How many steps took which share of the time they had; the last bin holds all longer ones.
    """

    number: int = -1
    busy_s: float = 0.0
    rows: int = 0
    shares: list[int] = field(default_factory=lambda: [0] * _BINS)


class Load:
    """What the steps of an engine took. One thread may observe while others ask.

    Args:
        max_batch: Most rows of a step.

    Attributes:
        steps: How many there have been, ever.
        seconds: What they took together.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self.steps = 0
        self.seconds = 0.0
        self._parts = [_Part() for _ in range(_PARTS)]
        # Decaying sums over steps, for a line through (rows, seconds).
        self._n = self._r = self._rr = self._t = self._rt = 0.0

    def stepped(self, now_s: float, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        self.steps += 1
        self.seconds += seconds
        part = self._part(now_s)
        part.busy_s += seconds
        part.rows += rows
        self._n += 1
        self._r += rows
        self._rr += rows * rows
        self._t += seconds
        self._rt += rows * seconds

    def answered(self, now_s: float, share: float) -> None:
        """A step was done after this share of the time that there was until its deadline."""
        self._part(now_s).shares[int(min(max(share, 0.0), 2.0) * _BINS_PER_SHARE)] += 1

    def measures(self, now_s: float) -> Measures:
        """How it stands now."""
        return Measures(self.used(now_s), self.busy(now_s), self.deadline_share(now_s))

    def busy(self, now_s: float) -> float:
        """The part of the last seconds in which the engine stepped."""
        return sum(part.busy_s for part in self._recent(now_s)) / WINDOW_S

    def used(self, now_s: float) -> float:
        """The part of the last seconds that their steps would have taken in full batches."""
        return sum(part.rows for part in self._recent(now_s)) * self._row_s() / WINDOW_S

    def deadline_share(self, now_s: float) -> float:
        """P95 of the share of their time that steps took, up to 2; 0 where too few have a deadline."""
        recent = self._recent(now_s)
        counts = [sum(part.shares[index] for part in recent) for index in range(_BINS)]
        total = sum(counts)
        if total < _LEAST_TIMED:
            return 0.0
        below = 0
        for index, count in enumerate(counts):
            below += count
            if below >= _P95 * total:
                return (index + 1) / _BINS_PER_SHARE if index < _BINS - 1 else 2.0
        raise AssertionError("all of them are in the bins")

    def _row_s(self) -> float:
        """Seconds of a row in a full batch, by the line through what batches took."""
        if not self._n:
            return 0.0
        rows, seconds = self._r / self._n, self._t / self._n
        variance = self._rr / self._n - rows * rows
        each = seconds / rows  # batches of one size do not tell what fuller ones would save
        if variance >= _LEAST_VARIANCE:
            each = min(max((self._rt / self._n - rows * seconds) / variance, 0.0), each)
        return each + (seconds - each * rows) / self._max_batch

    def _part(self, now_s: float) -> _Part:
        number = int(now_s / _PART_S)
        part = self._parts[number % _PARTS]
        if part.number != number:
            part = self._parts[number % _PARTS] = _Part(number)
            self._n, self._r, self._rr, self._t, self._rt = (
                _FORGET * each for each in (self._n, self._r, self._rr, self._t, self._rt)
            )
        return part

    def _recent(self, now_s: float) -> list[_Part]:
        number = int(now_s / _PART_S)
        return [part for part in self._parts if number - _PARTS < part.number <= number]


class Admission:
    """Refuses callers who would make all of them late.

    What newcomers will cost is what those of the last seconds cost: as many more as there are now, so much more is
    used. Nobody is refused on a guess: callers who have said nothing have cost nothing. Once somebody was refused, it
    takes a clearly lower load to let callers in again.

    Args:
        loads: Of each engine, or of what else callers share, by its name.
        max_share: Part of its time that an engine may be used; 0: nobody is refused.
        always: So many callers are let in whatever was measured: what so few cost tells nothing of the next one.
    """

    def __init__(self, loads: Mapping[str, Measured], *, max_share: float = 0.8, always: int = 4) -> None:
        self._loads = dict(loads)
        self._max_share = max_share
        self._always = always
        self._callers = 0
        self._since_s = 0.0
        self._caller_s: list[tuple[int, float]] = [(-1, 0.0)] * _PARTS
        self._refusing = False

    def count(self, now_s: float, callers: int) -> None:
        """There are so many callers from now on."""
        self._settle(now_s)
        self._callers = callers

    def refusal(self, now_s: float) -> str | None:
        """Why one caller more is too many; None when it is not."""
        if not self._max_share or self._callers < self._always:
            self._refusing = False
            return None
        self._settle(now_s)
        mean = sum(s for number, s in self._caller_s if number > int(now_s / _PART_S) - _PARTS) / WINDOW_S
        growth = (self._callers + 1) / (mean + 1)
        pressure, reason = max(
            (self._pressure(name, load.measures(now_s), growth) for name, load in self._loads.items()),
            default=(0.0, ""),
        )
        self._refusing = pressure > (_REOPEN if self._refusing else 1.0)
        return reason if self._refusing else None

    def _pressure(self, name: str, now: Measures, growth: float) -> tuple[float, str]:
        """How near an engine is to where callers are refused, which is 1; and in words."""
        used = now.used * growth
        by_use = used / self._max_share
        # Late steps of an engine that idles are not for too many callers.
        share = now.deadline_share if now.busy > _BUSY else 0.0
        if share > by_use:
            return share, f"one step in twenty of the {name} takes {share:.0%} of the time it has"
        return by_use, f"with one caller more the {name} would take {used:.0%} of the time there is"

    def _settle(self, now_s: float) -> None:
        """Writes down how many callers there were until now: caller seconds of each part of the window."""
        begin_s = max(self._since_s, now_s - WINDOW_S)
        while begin_s < now_s:
            number = int(begin_s / _PART_S)
            end_s = min((number + 1) * _PART_S, now_s)
            if end_s <= begin_s:  # the edge of a part, rounded down
                number, end_s = number + 1, min((number + 2) * _PART_S, now_s)
            known, seconds = self._caller_s[number % _PARTS]
            before = seconds if known == number else 0.0
            self._caller_s[number % _PARTS] = number, before + self._callers * (end_s - begin_s)
            begin_s = end_s
        self._since_s = max(self._since_s, now_s)
