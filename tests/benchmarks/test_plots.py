from __future__ import annotations

from pathlib import Path

import pytest

from relay_benchmarks.plots import plot_latency, plot_turns
from relay_benchmarks.summary import TurnResult, summarise
from relay_benchmarks.turns import Moment
from relay_benchmarks.turns import summarise as summarise_turns


@pytest.mark.parametrize("onsets", [[], [None], [700.0], [520.0, 640.0, None, 900.0]], ids=str)
def test_any_report_can_be_drawn(tmp_path: Path, onsets: list[float | None]) -> None:
    turns = [
        TurnResult(
            "plain", "text", onset_ms=ms, stages_ms={} if ms is None else {"endpointing": ms - 20, "playout": 20}
        )
        for ms in onsets
    ]
    picture = tmp_path / "latency.png"
    plot_latency({"machine": {"cpu": "a", "cores": 2}, "results": [summarise("cascade", turns)]}, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_several_paths_and_delays_are_drawn_against_the_delay(tmp_path: Path) -> None:
    stages = {"endpointing": 480.0, "playout": 20.0}
    turns = [TurnResult("plain", "text", onset_ms=500.0, stages_ms=stages)]
    results = [
        summarise(path, turns, brain_delay_ms=delay_ms)
        for delay_ms in (0, 200, 500, 1000)
        for path in ("relay", "cascade", "draft")
    ]
    pictures = [tmp_path / "one.png", tmp_path / "all.png"]
    machine = {"cpu": "a", "cores": 2}
    plot_latency({"machine": machine, "results": results[:1]}, pictures[0])
    plot_latency({"machine": machine, "results": results}, pictures[1])
    widths = [int.from_bytes(picture.read_bytes()[16:20], "big") for picture in pictures]
    assert widths[1] > widths[0]  # a third panel


@pytest.mark.parametrize("paths", [("cascade",), ("relay", "cascade", "draft")], ids="-".join)
def test_any_report_of_turns_can_be_drawn(tmp_path: Path, paths: tuple[str, ...]) -> None:
    moments = [
        Moment("pause", "text", pause_ms=700.0, sounded=True),
        Moment("turn_end", "text", sounded=True, took_over=True, latency_ms=600.0),
        Moment("turn_end", "text"),
        Moment("interruption", "text", stopped=True, overlap_ms=120.0),
    ]
    for number, heard in enumerate((moments, [])):
        picture = tmp_path / f"{number}.png"
        results = [summarise_turns(path, heard) for path in paths]
        plot_turns({"machine": {"cpu": "a", "cores": 2}, "results": results}, picture)
        assert picture.read_bytes().startswith(b"\x89PNG")
