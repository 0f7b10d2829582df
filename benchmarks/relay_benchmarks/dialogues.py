"""Whole dialogues: how onset and playout hold as callers become more, and what a full server does with one too many.

Callers are in processes of their own (`callers`), paced like sound cards, over real sockets. A level is so many callers
at once for some time; levels rise until the P95 of the onset passes a limit. Then a server that admits exactly as many
as were within it is filled, and others knock: how soon are they refused, and do those who talk notice?
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
import msgspec
import numpy as np
import psutil

from relay.errors import ConnectionFailed
from relay_benchmarks.callers import BLOCK_MS, Held, Job, Knocked
from relay_benchmarks.sessions import server_process
from relay_benchmarks.summary import MISS_AFTER_MS, TurnResult, stages_at

PERCENTILES = (50, 95, 99, 99.9)
CALLERS_PER_PROCESS = 32
REFUSED_WITHIN_MS = 100.0
LOAD_SHARE = 0.8
"""No playout deadline should be missed up to this part of the most callers."""
READY_TIMEOUT_S = 180.0
_GRACE_S = 90.0
R = TypeVar("R", Held, Knocked)


@dataclass(frozen=True, slots=True)
class Limit:
    """How late the P95 of the onset may be.

    Attributes:
        asked_ms: As it was asked for.
        applied_ms: What levels are measured by.
        endpointing_ms: What of it is the silence that the server waits for, at the first level; 0 when it is not added.
    """

    asked_ms: float
    applied_ms: float
    endpointing_ms: float = 0.0

    @property
    def basis(self) -> str:
        """One line that says what is applied."""
        if not self.endpointing_ms:
            return f"P95 onset at most {self.asked_ms:g} ms"
        return (
            f"the first level is beyond {self.asked_ms:g} ms already, of which {self.endpointing_ms:.0f} ms are the "
            f"silence that ends a turn: applied instead is {self.asked_ms:g} ms on top of that silence, "
            f"{self.applied_ms:.0f} ms; this is NOT a P95 onset within {self.asked_ms:g} ms"
        )


def limit_for(first: Mapping[str, Any], asked_ms: float) -> Limit:
    """The limit, by the first level: as asked, or on top of its endpointing when that level is beyond it by itself."""
    if first["onset_ms"]["p95"] is None or first["onset_ms"]["p95"] <= asked_ms or not first["endpointing_ms"]:
        return Limit(asked_ms, asked_ms)
    return Limit(asked_ms, round(asked_ms + first["endpointing_ms"], 1), first["endpointing_ms"])


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """P50, P95, P99, P99.9 and the largest, linearly interpolated; all None without values."""
    names = [f"p{percent:g}" for percent in PERCENTILES]
    if not values:
        return dict.fromkeys([*names, "max"])
    cuts = np.percentile(values, PERCENTILES)
    return {name: round(float(cut), 1) for name, cut in zip([*names, "max"], [*cuts, max(values)], strict=True)}


def lateness_ms(turns: Iterable[TurnResult]) -> list[float]:
    """How late each block of 20 ms of the answers was played: 0 in time, else the gap that it ended."""
    late: list[float] = []
    for turn in turns:
        blocks = max(math.ceil(turn.played_ms / BLOCK_MS), len(turn.gaps_ms))
        late += [*turn.gaps_ms, *[0.0] * (blocks - len(turn.gaps_ms))]
    return late


def onsets_ms(turns: Iterable[TurnResult]) -> list[float]:
    """The onset of every turn; one without an answer counts 10 s."""
    return [MISS_AFTER_MS if turn.onset_ms is None else turn.onset_ms for turn in turns]


def summary(turns: Sequence[TurnResult]) -> dict[str, Any]:
    """Onset and playout of turns."""
    late = lateness_ms(turns)
    endpointing = [turn.stages_ms["endpointing"] for turn in turns if "endpointing" in turn.stages_ms]
    missed = sum(value > 0 for value in late)
    return {
        "turns": len(turns),
        "missed_turns": sum(turn.onset_ms is None for turn in turns),
        "failed_replies": sum(turn.status == "failed" for turn in turns),
        "why_failed": sorted({turn.failure for turn in turns if turn.failure}),
        "onset_ms": percentiles(onsets_ms(turns)),
        "stages_at_ms": {f"p{percent}": stages_at(turns, percent) for percent in (50, 95)},
        "endpointing_ms": round(math.fsum(endpointing) / len(endpointing), 1) if endpointing else None,
        "playout": {
            "deadlines": len(late),
            "missed": missed,
            "missed_share": round(missed / len(late), 6) if late else None,
            "late_ms": percentiles(late),
        },
    }


# ------------------------------------------------------------------------------------------------------------ processes


class _Process(Generic[R]):
    """One process of callers."""

    def __init__(self, process: asyncio.subprocess.Process, kind: type[R]) -> None:
        self._process = process
        self._kind: type[R] = kind

    async def ready(self) -> None:
        """Until all its callers are connected."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            if await self._line() != b"ready\n":
                raise ConnectionFailed("a process of callers ended before it was ready; its error is above")

    def begin(self) -> None:
        """Lets them talk."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")

    async def result(self, seconds: float) -> R:
        """What came of it, once they have talked for so long and finished."""
        async with asyncio.timeout(seconds + _GRACE_S):
            line = await self._line()
        if not line:
            raise ConnectionFailed("a process of callers ended without a result; its error is above")
        return msgspec.json.decode(line, type=self._kind)

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()


@contextlib.asynccontextmanager
async def _process(job: Job, kind: type[R]) -> AsyncIterator[_Process[R]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay_benchmarks.callers"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 28,  # a result is one line
    )
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        yield _Process(process, kind)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


def shares(callers: int, processes: int) -> list[int]:
    """So many callers over at most so many processes, as evenly as it goes."""
    count = min(callers, processes)
    return [callers // count + (index < callers % count) for index in range(count)]


@dataclass(frozen=True, slots=True)
class Plan:
    """How levels are measured.

    Attributes:
        seconds: How long callers begin new turns.
        seed: Of what is said.
        silence_ms: Pause that ends a turn; None: the server's own.
        processes: Most processes of callers; None: one for 32 callers, as many as there are cores at most.
    """

    seconds: float
    seed: int = 0
    silence_ms: int | None = None
    processes: int | None = None

    def jobs(self, url: str, callers: int) -> list[Job]:
        """The share of each process."""
        wanted = self.processes or min(-(-callers // CALLERS_PER_PROCESS), psutil.cpu_count() or 1)
        return [
            Job(url, share, self.seconds, self.seed * 1000 + index, self.silence_ms)
            for index, share in enumerate(shares(callers, wanted))
        ]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a server's processes have used."""

    cpu_s: float
    rss_bytes: int

    @classmethod
    def now(cls) -> Cost:
        """Of the server that this process started, and of the processes that it started itself."""
        server = server_process()
        cpu_s, rss = 0.0, 0
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu_s += times.user + times.system
                rss += process.memory_info().rss
        return cls(cpu_s, rss)


# --------------------------------------------------------------------------------------------------------- measurements


async def capacity(url: str) -> int:
    """How many sessions a server admits."""
    async with httpx.AsyncClient() as http:
        return int((await http.get(url + "/readyz")).json()["capacity"])


async def level(url: str, callers: int, plan: Plan) -> dict[str, Any]:
    """So many callers at once.

    Raises:
        ConnectionFailed: A process of callers did not get ready or ended early.
    """
    held, _, cores, rss = await _run(url, callers, plan, knocks=0)
    return {"callers": callers, **_report(held), "server_cpu_cores": cores, "server_rss_mb": rss}


async def refusals(url: str, callers: int, plan: Plan, *, knocks: int) -> dict[str, Any]:
    """Fills a server that admits so many, and knocks during the second half of the time.

    Raises:
        ConnectionFailed: A process of callers did not get ready or ended early.
    """
    held, knocked, _, _ = await _run(url, callers, plan, knocks=knocks)
    assert knocked is not None
    tries = knocked.knocks
    begin_s, end_s = tries[0].at_s, tries[-1].at_s + tries[-1].ms / 1000
    turns = [turn for one in held for turn in one.turns]
    refused = [one for one in tries if (one.status, one.code) == (503, "too_many_sessions")]
    return {
        "callers": callers,
        "knocks": len(tries),
        "refused": len(refused),
        "let_in": sum(one.status == 101 for one in tries),
        "otherwise": sorted({f"{one.status} {one.code}" for one in tries} - {"503 too_many_sessions", "101 "}),
        "refused_ms": percentiles([one.ms for one in refused]),
        f"refused_within_{REFUSED_WITHIN_MS:g}_ms": sum(one.ms <= REFUSED_WITHIN_MS for one in refused),
        "before": summary([turn for turn in turns if turn.ended_s < begin_s]),
        "while": summary([turn for turn in turns if begin_s <= turn.ended_s <= end_s]),
        "failures": [failure for one in held for failure in one.failures],
    }


async def _run(
    url: str, callers: int, plan: Plan, *, knocks: int
) -> tuple[list[Held], Knocked | None, float | None, float | None]:
    """Callers, and beside them, in the second half, knocks; also the server's cores and memory in MB."""
    async with contextlib.AsyncExitStack() as stack:
        jobs = plan.jobs(url, callers)
        talking = [await stack.enter_async_context(_process(job, Held)) for job in jobs]
        knocking = None
        if knocks:
            # They end while all callers still begin turns: nobody has left yet.
            job = Job(url, 0, plan.seconds * 0.4, plan.seed, knocks=knocks)
            knocking = await stack.enter_async_context(_process(job, Knocked))
            await knocking.ready()
        await asyncio.gather(*(process.ready() for process in talking))
        for process in talking:
            process.begin()
        begin_s, before = asyncio.get_running_loop().time(), _cost()
        half = plan.seconds / 2
        await asyncio.sleep(half)
        if knocking is not None:
            knocking.begin()
        await asyncio.sleep(half)
        after, end_s = _cost(), asyncio.get_running_loop().time()
        held = list(await asyncio.gather(*(process.result(plan.seconds) for process in talking)))
        knocked = None if knocking is None else await knocking.result(plan.seconds)
    if before is None or after is None:
        return held, knocked, None, None
    cores = (after.cpu_s - before.cpu_s) / (end_s - begin_s)
    return held, knocked, round(cores, 3), round(after.rss_bytes / 1e6, 1)


def _cost() -> Cost | None:
    try:
        return Cost.now()
    except LookupError:  # the server is not ours
        return None


def _report(held: Sequence[Held]) -> dict[str, Any]:
    turns = [turn for one in held for turn in one.turns]
    return {
        "processes": len(held),
        **summary(turns),
        "failures": [failure for one in held for failure in one.failures],
        "callers_late_ms": percentiles([late for one in held for late in one.late_ms]),
    }


def conclusion(levels: Sequence[Mapping[str, Any]], limit: Limit) -> dict[str, Any]:
    """The most callers within the limit, and the playout deadlines missed at up to 80 % of them.

    A level at which a caller was lost is not within it.
    """
    most = 0
    for one in levels:
        if one["onset_ms"]["p95"] is None or one["onset_ms"]["p95"] > limit.applied_ms or one["failures"]:
            break
        most = one["callers"]
    below = [one["playout"] for one in levels if one["callers"] <= LOAD_SHARE * most]
    return {
        "limit_ms": limit.asked_ms,
        "applied_limit_ms": limit.applied_ms,
        "basis": limit.basis,
        "callers_within": most,
        "below_80_percent": {
            "deadlines": sum(playout["deadlines"] for playout in below),
            "missed": sum(playout["missed"] for playout in below),
            "p99.9_late_ms": max((playout["late_ms"]["p99.9"] or 0.0 for playout in below), default=None),
        },
    }
