from __future__ import annotations

from pathlib import Path

import pytest

from relay_benchmarks.plots import plot_latency
from relay_benchmarks.summary import TurnResult, summarise


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
