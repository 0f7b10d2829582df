from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.timing import STAGES
from relay_benchmarks.summary import TurnResult, distribution, mean_stages, stages_at, summarise, wilson_upper


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


def test_drafts_are_counted_over_the_answered_turns_and_what_is_not_known_has_a_reason() -> None:
    committed = {"prefix": "Well", "probability": 0.9, "committed": True, "reason": None}
    turns = [
        turn(300.0, draft=committed),
        turn(500.0, draft=committed | {"committed": False, "reason": "late"}),
        turn(500.0, draft=committed | {"committed": False, "reason": "doubtful"}),
        turn(700.0),
        turn(None),
    ]
    relay = summarise("relay", turns, brain_delay_ms=200)
    assert relay["commit_rate"] == 0.25
    assert relay["drafts"] == {"committed": 1, "late": 1, "doubtful": 1}
    assert relay["bad_commit_rate"] is None
    assert set(relay["null_because"]) == {"bad_commit_rate"}
    assert relay["brain_delay_ms"] == 200
    for path, heard in (("cascade", turns[3:]), ("relay", turns[3:]), ("relay", [])):
        nothing = summarise(path, heard)
        assert nothing["commit_rate"] is None
        assert set(nothing["null_because"]) == {"commit_rate", "bad_commit_rate"}


def test_a_bound_lies_above_the_rate_and_narrows() -> None:
    assert wilson_upper(0, 10) > wilson_upper(0, 100) > 0
    assert 0.5 < wilson_upper(50, 100) < wilson_upper(5, 10) < 1
    assert wilson_upper(10, 10) == pytest.approx(1)


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
