from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from relay_benchmarks.corpus import interruptions, utterances
from relay_benchmarks.latency import PlannedTurn, measure, report
from relay_benchmarks.summary import TurnResult
from tests.server.conftest import EndlessBrain

ANSWER = [f"word{n} " for n in range(60)]  # six seconds: long enough to be interrupted


def test_turns_are_measured_against_a_real_server(serving: Any) -> None:
    first = next(utterance for utterance in utterances(6, seed=1) if utterance.pause is None)
    planned = [PlannedTurn(first, 700, 100, interruptions(1, seed=1)[0])]
    seen: list[TurnResult] = []

    async def main() -> list[TurnResult]:
        async with asyncio.timeout(100), serving(brain=EndlessBrain(*ANSWER)) as stand:
            return await measure(stand.server.url, planned, api_key=None, seed=0, on_turn=seen.append)

    results = asyncio.run(main())
    assert results == seen
    plain, interruption = results
    assert (plain.kind, plain.status, plain.transcript) == ("plain", "cancelled", "beep")
    assert (interruption.kind, interruption.status) == ("interruption", "completed")
    for result in results:
        assert result.onset_ms is not None
        assert set(result.stages_ms) == {"endpointing", "ears", "llm_first", "voice_first", "transport", "playout"}
        assert sum(result.stages_ms.values()) + result.unaccounted_ms == pytest.approx(result.onset_ms, abs=0.1)
        assert result.takeovers == result.cut_ins == 0
    assert interruption.stop_ms is not None
    assert interruption.stop_ms > 0
    document = report("cascade", results, turns=2, seed=0, url=None)
    assert json.loads(json.dumps(document))["results"][0]["stop_ms"]["p50"] == pytest.approx(
        interruption.stop_ms, abs=0.1
    )
    assert {"cpu", "cores", "os", "python"} <= document["machine"].keys()


def test_a_server_that_never_answers_misses_the_turn(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_benchmarks.latency.MISS_AFTER_MS", 1500.0)
    first = next(utterance for utterance in utterances(6, seed=1) if utterance.pause is None)

    async def main() -> list[TurnResult]:
        async with asyncio.timeout(100), serving(brain=EndlessBrain(3.0, "late")) as stand:
            planned = [PlannedTurn(first, 700, 100)]
            return await measure(stand.server.url, planned, api_key=None, seed=0, on_turn=lambda result: None)

    (missed,) = asyncio.run(main())
    assert missed.onset_ms is None
    assert report("cascade", [missed], turns=1, seed=0, url=None)["results"][0]["missed_turns"] == 1
