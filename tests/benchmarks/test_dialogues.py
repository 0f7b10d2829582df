"""The benchmark of whole dialogues: its arithmetic, and few callers of another process against a real server."""

from __future__ import annotations

import asyncio
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli import run
from relay_benchmarks.callers import knock
from relay_benchmarks.dialogues import conclusion, lateness_ms, limit_for, percentiles, shares, summary
from relay_benchmarks.plots import plot_dialogues
from relay_benchmarks.summary import TurnResult

GAPS = st.lists(st.floats(0.1, 5000), max_size=5)
TURNS = st.lists(
    st.builds(
        TurnResult,
        st.just("plain"),
        st.just("text"),
        onset_ms=st.none() | st.floats(-100, 9999),
        played_ms=st.floats(0, 60_000),
        gaps_ms=GAPS,
    ),
    max_size=8,
)


def level(callers: int, p95: float | None, *, missed: int = 0, failures: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "callers": callers,
        "onset_ms": {"p50": p95, "p95": p95, "p99": p95, "p99.9": p95},
        "endpointing_ms": 500.0,
        "playout": {
            "deadlines": 1000,
            "missed": missed,
            "late_ms": {"p50": 0.0, "p95": 0.0, "p99": 0.0, "p99.9": float(missed)},
        },
        "failures": list(failures),
    }


@given(st.integers(1, 2000), st.integers(1, 64))
def test_callers_are_shared_out_evenly(callers: int, processes: int) -> None:
    parts = shares(callers, processes)
    assert sum(parts) == callers
    assert 1 <= len(parts) <= processes
    assert max(parts) - min(parts) <= 1
    assert min(parts) >= 1


@given(TURNS)
def test_every_gap_is_one_missed_deadline_of_those_that_there_were(turns: list[TurnResult]) -> None:
    late = lateness_ms(turns)
    gaps = [gap for turn in turns for gap in turn.gaps_ms]
    assert sorted(value for value in late if value > 0) == sorted(gaps)
    assert len(late) >= sum(turn.played_ms for turn in turns) / 20
    summed = summary(turns)
    assert summed["playout"]["missed"] == len(gaps)
    assert summed["missed_turns"] == sum(turn.onset_ms is None for turn in turns)
    if turns and all(turn.onset_ms is None for turn in turns):
        assert summed["onset_ms"]["p50"] == 10_000.0


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_percentiles_rise(values: list[float]) -> None:
    cuts = list(percentiles(values).values())
    assert all(cut is not None and not math.isnan(cut) for cut in cuts)
    assert cuts == sorted(cuts, key=lambda cut: cut or 0.0)


def test_a_limit_that_one_caller_passes_by_endpointing_is_applied_on_top_of_that_and_says_so() -> None:
    assert limit_for(level(1, 340.0), 350).applied_ms == 350
    moved = limit_for(level(1, 620.0), 350)
    assert moved.applied_ms == 850
    assert "NOT" in moved.basis
    assert limit_for({**level(1, 620.0), "endpointing_ms": None}, 350).applied_ms == 350


def test_the_most_callers_are_those_of_the_last_level_before_one_beyond_the_limit() -> None:
    limit = limit_for(level(1, 300.0), 350)
    levels = [level(1, 300.0), level(8, 310.0, missed=2), level(10, 349.0, missed=7), level(20, 351.0), level(40, 300)]
    concluded = conclusion(levels, limit)
    assert concluded["callers_within"] == 10
    assert concluded["below_80_percent"] == {"deadlines": 2000, "missed": 2, "p99.9_late_ms": 2.0}
    assert conclusion([level(1, None)], limit)["callers_within"] == 0
    assert conclusion([level(1, 300.0), level(2, 300.0, failures=("lost",))], limit)["callers_within"] == 1


def test_any_report_can_be_drawn(tmp_path: Path) -> None:
    levels = [level(1, 300.0), level(2, None)]
    report = {
        "machine": {"cpu": "a", "cores": 2},
        "levels": levels,
        "capacity": conclusion(levels, limit_for(levels[0], 350)),
    }
    plot_dialogues(report, tmp_path / "dialogues.png")
    assert (tmp_path / "dialogues.png").read_bytes().startswith(b"\x89PNG")


def test_a_knock_tells_an_open_door_from_a_full_house_and_from_none(serving: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), serving(max_sessions=1) as stand:
            assert (await knock(stand.server.url)).status == 101
            await stand.until_empty()
            async with stand.client():
                refused = await knock(stand.server.url)
        assert (refused.status, refused.code) == (503, "too_many_sessions")
        assert (await knock(stand.server.url)).status == 0

    asyncio.run(main())


def test_dialogues_of_another_process_and_one_too_many(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ["--callers", "1", "--seconds", "6", "--knocks", "5", "--json", "-", "--plot", str(tmp_path / "d.png")]
    assert run(["bench", "sessions", *flags], dict(os.environ)) == 0
    report = json.loads(capsys.readouterr().out)
    (one,) = report["levels"]
    assert (one["callers"], one["processes"], one["failures"]) == (1, 1, [])
    assert one["turns"] >= 1
    assert one["playout"]["deadlines"] > 0
    assert one["onset_ms"]["p50"] > 0
    assert report["capacity"]["ended"]
    knocks = report["refusals"]
    assert (knocks["knocks"], knocks["refused"], knocks["let_in"], knocks["otherwise"]) == (5, 5, 0, [])
    assert knocks["failures"] == []
    assert (tmp_path / "d.png").exists()


@pytest.mark.parametrize(
    "flags", [["--callers", "0"], ["--callers", "1", "--seconds", "1"], ["--plot", "a.png"], ["--callers", "many"]]
)
def test_wrong_use_is_named(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "sessions", *flags], {}) == 2
    assert capsys.readouterr().err.startswith("relay: error: ")
