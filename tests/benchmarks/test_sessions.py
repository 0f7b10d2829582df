"""The sessions benchmark against a real server: few callers, every figure there."""

from __future__ import annotations

import json
import os

import pytest

from relay.cli import run


def test_quiet_callers_and_churn(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--quiet", "3", "--seconds", "0.5", "--churn", "8", "--json", "-"]
    assert run(["bench", "sessions", *flags], dict(os.environ)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["quiet"]["sessions"] == 3
    assert report["quiet"]["rss_mb"] > 50
    assert report["quiet"]["cpu_cores"] > 0
    assert report["churn"]["tasks_after"] == report["churn"]["tasks_before"] > 0
