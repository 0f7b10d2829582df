"""Which paths a benchmark measures: those asked for, or all that can run here."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from relay.cli import run
from relay.commands.bench_paths import PathsOptions, prepare, runnable
from relay.errors import UsageError
from relay_benchmarks.caller import sessions_of
from relay_models import loading

URL = "ws://127.0.0.1:9"


def folder(models: Path, *names: str) -> Path:
    for name in names:
        (models / name).mkdir()
        (models / name / "config.json").write_text("{}")
    return models


def test_paths_without_weights_are_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "read_manifest", lambda *_, **__: {})
    models = folder(tmp_path, "draft", "ears")
    found, left_out = runnable((), models)
    assert "cascade" in found
    assert set(found) | set(left_out) == {"cascade", "draft", "relay"}
    assert "the verifier model" in left_out["relay"]
    with pytest.raises(UsageError, match="the verifier model"):
        runnable(("cascade", "relay"), models)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="without graphs the fast path runs on torch")
def test_all_paths_can_run_where_their_folders_are(tmp_path: Path) -> None:
    found, left_out = runnable((), folder(tmp_path, "draft", "ears", "verifier"))
    assert set(found) == {"cascade", "draft", "relay"}
    assert left_out == {}


def test_a_server_that_runs_already_is_of_one_path(serving: Any) -> None:
    asked = asyncio.run(prepare(PathsOptions(1, ("relay",), url=URL)))
    assert asked == (("relay",), {})

    async def unnamed(path: str) -> object:
        async with serving(path=path, api_key="k") as stand:
            return await prepare(PathsOptions(1, url=stand.ws_url, api_key="k"))

    for path in ("cascade", "draft"):
        assert asyncio.run(unnamed(path)) == ((path,), {})
    with pytest.raises(UsageError, match="--url"):
        asyncio.run(prepare(PathsOptions(1, ("relay", "draft"), url=URL)))


def test_every_path_gets_every_turn_and_none_is_always_first() -> None:
    planned = list(range(17))
    calls = list(sessions_of(["a", "b", "c"], planned, seed=3))
    for path in "abc":
        assert [turn for name, turns, _ in calls if name == path for turn in turns] == planned
    assert [name for name, *_ in calls[::3]] == ["a", "b", "c", "a"]
    assert all(len({seed for *_, seed in calls[at : at + 3]}) == 1 for at in range(0, len(calls), 3))


def test_a_server_is_started_for_each_delay_and_its_brain_really_takes_that_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--path", "cascade", "--turns", "1", "--brain-delay-ms", "0", "--brain-delay-ms", "400"]
    environ = {**os.environ, "RELAY_SPECULATE": "0"}
    assert run(["bench", "latency", *flags, "--json", "-"], environ) == 0
    quick, slow = json.loads(capsys.readouterr().out)["results"]
    assert [(each["path"], each["brain_delay_ms"]) for each in (quick, slow)] == [("cascade", 0), ("cascade", 400)]
    assert slow["stages_ms"]["llm_first"] >= 400
    for result in (quick, slow):
        assert (result["turns"], result["missed_turns"]) == (1, 0)
        assert result["null_because"]["commit_rate"]


def test_turns_are_measured_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "turns", "--path", "cascade", "--turns", "1"], dict(os.environ)) == 0
    out = capsys.readouterr().out
    assert "turn latency" in out
    assert "cascade" in out
