"""What `relay bench page` reads off a recording, and one short run in a real browser."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli import run
from relay_benchmarks.page import stop_times_ms, stretches

RATE_HZ = 1000


@given(st.lists(st.tuples(st.integers(2000, 4000), st.integers(20, 900)), min_size=1, max_size=5))
def test_stop_times_are_those_of_the_answers_cut(turns: list[tuple[int, int]]) -> None:
    """Answers of which each is cut some time after the next question begins."""
    sound = np.zeros((sum(pause + 1500 for pause, _ in turns) + 4000, 2), np.float32)
    at = 500
    sound[at : at + 400, 0] = 0.3
    expected = []
    for pause, stop in turns:
        begins = at + 400 + pause
        sound[at + 900 : begins + stop + 1, 1] = 0.1
        sound[begins : begins + 400, 0] = 0.3
        expected.append(float(stop))
        at = begins + stop
    assert stop_times_ms(sound, RATE_HZ) == expected


def test_an_answer_heard_to_its_end_is_not_counted() -> None:
    sound = np.zeros((6000, 2), np.float32)
    sound[0:400, 0] = sound[4000:4400, 0] = 0.3
    sound[1000:3000, 1] = 0.1
    assert stop_times_ms(sound, RATE_HZ) == []


def test_stretches() -> None:
    sound = np.array([0, 1, 0, 1, 0, 0, 0, 1, 0], np.float32)
    assert stretches(sound, 0.5, 2) == [(1, 3), (7, 7)]
    assert stretches(sound * 0, 0.5, 2) == []


@pytest.mark.timeout(300)
def test_a_real_browser_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert run(["bench", "page", "--interruptions", "4", "--json", str(path)], dict(os.environ)) == 0
    report = json.loads(path.read_text())
    assert report["result"]["interruptions"] >= 1
    assert 0 < report["result"]["stop_ms"]["p50"] <= report["result"]["stop_ms"]["max"]
