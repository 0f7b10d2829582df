"""Growth of a long call: its arithmetic, and a short call with models that cost nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli import run
from relay.errors import ConnectionFailed
from relay_benchmarks.dialogue_growth import FEWEST_POINTS, Pace, Reading, growth, point, trends
from relay_benchmarks.summary import MISS_AFTER_MS, TurnResult

TURNS = [
    TurnResult("plain", "a", onset_ms=300.0, stages_ms={"ears": 10.0, "llm_first": 1.0}),
    TurnResult("plain", "b", onset_ms=500.0, stages_ms={"ears": 20.0}),
    TurnResult("plain", "c"),
]


def reading(steps: int, seconds: float, rss: int = 300_000_000, device: float = 0.0) -> Reading:
    return Reading(rss, device, {"ears": (steps, seconds), "brain": (7, 0.5)})


@given(st.floats(0.01, 300))
def test_points_cover_the_minutes_that_were_asked_for(minutes: float) -> None:
    pace = Pace.over(minutes)
    assert pace.points >= FEWEST_POINTS
    assert pace.points * pace.interval_s == pytest.approx(60 * minutes)
    assert pace.warm_up_s <= 300
    if minutes >= FEWEST_POINTS:
        assert pace.interval_s == pytest.approx(60, rel=0.15)


def test_a_point_is_of_its_own_interval() -> None:
    one = point(3.0, TURNS, reading(100, 1.0), reading(150, 1.25, 310_000_000, 2_000_000))
    assert one == {
        "minute": 3.0,
        "turns": 3,
        "missed_turns": 1,
        "onset_ms": 500.0,  # a missed turn counts 10 s
        "stages_ms": {"ears": 15.0, "llm_first": 1.0},
        "step_ms": {"ears": 5.0},  # the brain did not step
        "rss_mb": 310.0,
        "device_memory_mb": 2.0,
    }
    assert point(4.0, [], reading(1, 1.0), reading(1, 1.0))["onset_ms"] is None
    assert point(4.0, TURNS[2:], reading(1, 1.0), reading(1, 1.0))["onset_ms"] == MISS_AFTER_MS


def test_what_grows_is_told_from_what_does_not() -> None:
    points: list[dict[str, Any]] = []
    for minute in range(1, 21):
        wobble = (minute * 7919) % 5 / 100
        before = reading(1000 * minute, 5.0 * minute)
        after = reading(1000 * (minute + 1), 5.0 * minute + 5.0 * (1 + wobble), 300_000_000 + 1_000_000 * minute)
        points.append(point(minute, TURNS if minute != 9 else [], before, after))
    found = trends(points)
    assert set(found) == {"onset", "stage: ears", "stage: llm_first", "step: ears", "memory"}, "no GPU memory, no brain"
    assert found["memory"]["mb_per_hour"] == pytest.approx(60.0)
    assert found["memory"]["distinguishable_from_0"]
    for name in ("onset", "stage: ears", "step: ears"):
        assert not found[name]["distinguishable_from_0"]
    assert found["step: ears"]["mean"] == pytest.approx(5.1, abs=0.1)


def test_a_call_is_looked_at_again_and_again(serving: Any) -> None:
    notes: list[str] = []

    async def main() -> dict[str, Any]:
        async with asyncio.timeout(120), serving() as stand:
            pace = Pace(0.5, 3.0, 4)
            return await growth(stand.server.url, psutil.Process(), pace, seed=1, silence_ms=300, note=notes.append)

    grown = asyncio.run(main())
    assert len(grown["points"]) == len(notes) == 4
    minutes = [one["minute"] for one in grown["points"]]
    assert minutes == sorted(minutes)
    assert minutes[0] >= 0.05
    assert grown["minutes"] == minutes[-1]
    assert grown["turns"] == sum(one["turns"] for one in grown["points"]) >= 1
    assert all(one["rss_mb"] > 50 for one in grown["points"])
    assert all({"ears", "sockets"} <= one["step_ms"].keys() for one in grown["points"])
    assert {"memory", "step: ears", "step: sockets"} <= grown["trends"].keys()
    assert grown["trends"]["memory"]["confidence_95"] is not None


def test_a_server_that_is_lost_ends_the_call(serving: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            async with serving() as stand:
                pace = Pace(0.2, 60.0, 4)
                call = asyncio.create_task(
                    growth(stand.server.url, psutil.Process(), pace, seed=1, note=lambda _: None)
                )
                while not stand.server._seats.taken:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1.0)
            with pytest.raises(ConnectionFailed):
                await call

    asyncio.run(main())


@pytest.mark.parametrize(
    "flags",
    [
        ["--growth-minutes", "0"],
        ["--growth-minutes", "nan"],
        ["--growth-minutes", "1", "--callers", "2"],
        ["--growth-minutes", "1", "--plot", "a.png"],
    ],
)
def test_wrong_use_is_named(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "sessions", *flags], {}) == 2
    assert capsys.readouterr().err.startswith("relay: error: ")
