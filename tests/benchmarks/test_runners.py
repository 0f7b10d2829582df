"""The benchmark of the runners' steps, with as little as can be measured."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from relay_benchmarks import runners


def test_every_step_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--device", "cpu", "--streams", "3", "--rows", "1", "--batches", "1", "2", "--steps", "1"]
    assert runners.main(flags) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(one["streams"], one["max_batch"], one["rows"]) for one in report["ears"]] == [(3, 1, 1), (3, 4, 1)]
    for part, kinds, sizes in (("brain", {"read", "token"}, "dialogues"), ("draft", {"frame", "draft"}, "sessions")):
        measured = {(one["what"], one[sizes]) for one in report[part]}
        assert measured == {(what, rows) for what in kinds for rows in (1, 2)}
    assert all(one["p50_ms"] > 0 for part in ("ears", "brain", "draft") for one in report[part])
