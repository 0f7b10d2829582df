"""`relay bench runners`, with as little as can be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay.cli import run

pytest.importorskip("torch")


def test_every_step_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--device", "cpu", "--streams", "3", "--rows", "1", "--batches", "1", "2", "--steps", "1"]
    assert run(["bench", "runners", *flags, "--json", str(tmp_path / "report.json")], {}) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(one["streams"], one["max_batch"], one["rows"]) for one in report["ears"]] == [(3, 1, 1), (3, 4, 1)]
    drafts = {"frame", "draft", "draft, judged on the host", "draft, judged in the step"}
    for part, kinds, sizes in (("brain", {"read", "token"}, "dialogues"), ("draft", drafts, "sessions")):
        measured = {(one["what"], one[sizes]) for one in report[part]}
        assert measured == {(what, rows) for what in kinds for rows in (1, 2)}
    assert all(one["p50_ms"] > 0 for part in ("ears", "brain", "draft") for one in report[part])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 + 8
    assert lines[0].startswith("ears       3 streams, 1 stepped and 1 encoded at once: P50 ")
