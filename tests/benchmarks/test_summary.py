from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.timing import STAGES
from relay_benchmarks.summary import TurnResult, distribution, mean_stages, stages_at, summarise


def turn(onset_ms: float | None, **more: object) -> TurnResult:
    if onset_ms is None:
        return TurnResult("plain", "text", **more)  # type: ignore[arg-type]
    stages = {"endpointing": onset_ms * 0.7, "playout": onset_ms * 0.25}
    return TurnResult(
        "plain",
        "text",
        onset_ms=onset_ms,
        stages_ms=stages,
        unaccounted_ms=onset_ms * 0.05,
        **more,  # type: ignore[arg-type]
    )


@given(st.lists(st.floats(0, 9_999), min_size=1, max_size=200))
def test_percentiles_are_ordered_and_inside(values: list[float]) -> None:
    found = distribution(values)
    ordered = [found[name] for name in ("p50", "p90", "p95", "p99", "max")]
    assert ordered == sorted(ordered)
    assert min(values) - 0.06 <= ordered[0]
    assert found["max"] == pytest.approx(max(values), abs=0.06)


def test_nothing_measured_is_said_not_invented() -> None:
    assert set(distribution([]).values()) == {None}
    assert mean_stages([turn(None)]) == {}
    assert stages_at([], 50) == {}
    summary = summarise("cascade", [turn(None)])
    assert summary["onset_ms"]["p50"] == 10_000.0
    assert summary["missed_turns"] == 1
    assert summary["unaccounted_share"] is None
    assert summary["takeover_rate_pauses"] is None
    json.dumps(summary)


@given(st.lists(st.floats(1, 9_000), min_size=1, max_size=100), st.sampled_from([50, 90, 95, 99]))
def test_stages_add_up_to_the_onset(onsets: list[float], percentile: int) -> None:
    turns = [turn(ms) for ms in onsets]
    stages = mean_stages(turns)
    assert set(stages) == {*STAGES, "unaccounted"}
    assert sum(stages.values()) == pytest.approx(sum(onsets) / len(onsets), abs=0.05)
    around = sum(stages_at(turns, percentile).values())
    assert min(onsets) - 0.05 <= around <= max(onsets) + 0.05


def test_misses_takeovers_and_stops_are_inside() -> None:
    turns = [
        turn(500.0, pauses=1, takeovers=1),
        turn(700.0, pauses=1),
        turn(None, status=None),
        turn(600.0, stop_ms=250.0, underruns=2, status="failed"),
    ]
    summary = summarise("cascade", turns)
    assert summary["turns"] == 4
    assert summary["missed_turns"] == 1
    assert summary["onset_ms"]["max"] == 10_000.0
    assert summary["takeover_rate_pauses"] == 0.5
    assert summary["stop_ms"]["p50"] == 250.0
    assert summary["underruns"] == 2
    assert summary["failed_replies"] == 1
    assert summary["unaccounted_share"] == pytest.approx(0.05, abs=1e-3)
