"""Growth: one long call with many turns. Neither the onset, nor the engines' steps, nor memory may rise.

The call is held over a real socket by a caller that is paced like a sound card. What it is answered, and what the
server counts of itself (`/metrics`) and takes of the machine (psutil), is read once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from relay.client.duplex import PacedCard
from relay.client.realtime import connect
from relay.errors import ConnectionFailed
from relay_benchmarks.caller import converse
from relay_benchmarks.callers import BLOCK_MS
from relay_benchmarks.dialogues import onsets_ms, summary
from relay_benchmarks.latency import PlannedTurn, hold, plan
from relay_benchmarks.summary import TurnResult
from relay_benchmarks.trend import trend

POOL_TURNS = 24
"""Turns that are said again and again: what is said in a minute does not change over the call."""
WARM_UP_MINUTES = 5.0
"""In which all of them are said twice, and the language model's context fills."""
FEWEST_POINTS = 4
"""A slope of fewer has no confidence interval."""
_LAST_TURN_S = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """When a call is looked at.

    Attributes:
        warm_up_s: What goes before: caches fill, and that is no growth.
        interval_s: Between points.
        points: How many.
    """

    warm_up_s: float
    interval_s: float
    points: int

    @classmethod
    def over(cls, minutes: float) -> Pace:
        """A point a minute over so many, but `FEWEST_POINTS` at least; before them `WARM_UP_MINUTES`, less for few."""
        points = max(round(minutes), FEWEST_POINTS)
        return cls(60 * min(WARM_UP_MINUTES, minutes / 5), 60 * minutes / points, points)


@dataclass(frozen=True, slots=True)
class Reading:
    """A server at one moment.

    Attributes:
        rss_bytes: Memory of its processes.
        device_bytes: GPU memory of its models.
        steps: By part, how many steps there have been, and how many seconds they took.
    """

    rss_bytes: int
    device_bytes: float
    steps: Mapping[str, tuple[float, float]]

    @classmethod
    async def now(cls, http: httpx.AsyncClient, url: str, process: psutil.Process) -> Reading:
        """Of the server at `url`, which is this process and those that it started. Raises ConnectionFailed."""
        try:
            text = (await http.get(url + "/metrics")).text
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"the server does not tell its /metrics any more: {error}") from error
        counted: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                counted.setdefault(sample.name, {})[sample.labels.get("part", "")] = sample.value
        steps, seconds = counted["relay_steps_total"], counted["relay_step_seconds_total"]
        rss = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
        device_bytes = counted["relay_device_memory_bytes"][""]
        return cls(rss, device_bytes, {part: (steps[part], seconds[part]) for part in steps})


def point(minute: float, turns: Sequence[TurnResult], before: Reading, after: Reading) -> dict[str, Any]:
    """What an interval that ended at a minute of the call was like: medians of its turns, means of its steps."""
    answered = [turn for turn in turns if turn.onset_ms is not None]
    stages = sorted({name for turn in answered for name in turn.stages_ms})
    steps = {}
    for part, (count, seconds) in after.steps.items():
        count_before, seconds_before = before.steps.get(part, (0.0, 0.0))
        if count > count_before:
            steps[part] = round(1000 * (seconds - seconds_before) / (count - count_before), 4)
    return {
        "minute": round(minute, 3),
        "turns": len(turns),
        "missed_turns": len(turns) - len(answered),
        "onset_ms": _median(onsets_ms(turns)),
        "stages_ms": {name: _median([t.stages_ms[name] for t in answered if name in t.stages_ms]) for name in stages},
        "step_ms": steps,
        "rss_mb": round(after.rss_bytes / 1e6, 2),
        "device_memory_mb": round(after.device_bytes / 1e6, 2),
    }


def trends(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The slope of everything that was measured at two points or more, and its mean; see `trend`.

    What is 0 throughout has none: it did not run.
    """
    series: dict[str, tuple[str, list[float], list[float]]] = {}

    def add(name: str, unit: str, minute: float, value: float | None) -> None:
        if value is not None:
            _, minutes, values = series.setdefault(name, (unit, [], []))
            minutes.append(minute)
            values.append(value)

    for one in points:
        add("onset", "ms", one["minute"], one["onset_ms"])
        for kind, key in (("stage", "stages_ms"), ("step", "step_ms")):
            for name, value in one[key].items():
                add(f"{kind}: {name}", "ms", one["minute"], value)
        add("memory", "mb", one["minute"], one["rss_mb"])
        add("device memory", "mb", one["minute"], one["device_memory_mb"])
    return {
        name: {"mean": round(float(np.mean(values)), 4), **trend(minutes, values, unit)}
        for name, (unit, minutes, values) in series.items()
        if len(values) > 1 and float(np.mean(values))
    }


async def growth(
    url: str,
    process: psutil.Process,
    pace: Pace,
    *,
    seed: int,
    silence_ms: int | None = None,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Holds the call.

    Args:
        url: The server.
        process: Its process.
        pace: When it is looked at.
        seed: Of what is said and of the noise.
        silence_ms: Pause that ends a turn, as the caller asks for it; None: the server's own.
        note: Told how it goes.

    Raises:
        ConnectionFailed: The server cannot be reached or was lost.
    """
    planned = await asyncio.to_thread(plan, POOL_TURNS, seed)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    turns: list[TurnResult] = []

    def said() -> Iterator[PlannedTurn]:
        while not over.is_set():
            yield from (turn for turn in planned if not over.is_set())

    async with httpx.AsyncClient() as http, connect(url) as client:
        if silence_ms is not None:
            detection = {"type": "server_vad", "silence_duration_ms": silence_ms}
            await client.update({"audio": {"input": {"turn_detection": detection}}})
        work = partial(hold, turns=said(), add=turns.append)
        talking = asyncio.ensure_future(converse(client, work, room_seed=seed, block_ms=BLOCK_MS))
        points: list[dict[str, Any]] = []
        try:
            begin_s = loop.time() + pace.warm_up_s
            await _until(begin_s, talking)
            before, counted = await Reading.now(http, url, process), len(turns)
            warm = counted
            while len(points) < pace.points:
                await _until(begin_s + (len(points) + 1) * pace.interval_s, talking)
                after = await Reading.now(http, url, process)
                minute = (loop.time() - begin_s) / 60
                points.append(point(minute, turns[counted:], before, after))
                before, counted = after, len(turns)
                note(f"minute {minute:.1f}: {_said(points[-1])}")
            over.set()
            async with asyncio.timeout(_LAST_TURN_S):
                card = await talking
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
    return {
        "minutes": points[-1]["minute"],
        "warm_up_minutes": round(pace.warm_up_s / 60, 3),
        **summary(turns[warm:counted]),
        "caller_late_ms": round(card.latest_ms, 2),
        "trends": trends(points),
        "points": points,
    }


async def _until(due_s: float, talking: asyncio.Future[PacedCard]) -> None:
    """Until then, on the event loop's clock. Raises ConnectionFailed when the call ends before."""
    await asyncio.wait([talking], timeout=max(0.0, due_s - asyncio.get_running_loop().time()))
    if talking.done():
        await talking
        raise ConnectionFailed("the server ended the call")


def _said(one: Mapping[str, Any]) -> str:
    onset = "no turn" if one["onset_ms"] is None else f"onset {one['onset_ms']:.0f} ms"
    steps = ", ".join(f"{part} {ms:.2f}" for part, ms in one["step_ms"].items())
    return f"{onset}; ms a step: {steps}; {one['rss_mb']:.1f} MB"


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None
