from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.brains.delayed import DelayedBrain
from relay.server import models
from relay_benchmarks.corpus import interruptions, utterances
from relay_benchmarks.latency import PlannedTurn, measure, report
from relay_benchmarks.summary import TurnResult
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.server.conftest import BeepVoice, EndlessBrain

ANSWER = [f"word{n} " for n in range(60)]  # six seconds: long enough to be interrupted


def test_turns_are_measured_against_a_real_server(serving: Any) -> None:
    first = next(utterance for utterance in utterances(6, seed=1) if utterance.pause is None)
    planned = [PlannedTurn(first, 700, 100, interruptions(1, seed=1)[0])]
    seen: list[TurnResult] = []

    async def main() -> list[TurnResult]:
        async with asyncio.timeout(100), serving(brain=EndlessBrain(*ANSWER)) as stand:
            urls = {"cascade": stand.server.url}
            return (await measure(urls, planned, api_key=None, seed=0, on_turn=lambda _, turn: seen.append(turn)))[
                "cascade"
            ]

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
    document = report([("cascade", 0, results)], turns=2, seed=0, url=None, left_out={})
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
            urls = {"cascade": stand.server.url}
            return (await measure(urls, planned, api_key=None, seed=0, on_turn=lambda *_: None))["cascade"]

    (missed,) = asyncio.run(main())
    assert missed.onset_ms is None
    (summary,) = report([("cascade", 0, [missed])], turns=1, seed=0, url=None, left_out={})["results"]
    assert summary["missed_turns"] == 1


class FullVoice(BeepVoice):
    """A voice that speaks to nobody."""

    max_slots = 0


def test_a_turn_is_missed_for_a_reply_that_failed_and_it_is_known_why(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_benchmarks.latency.MISS_AFTER_MS", 3000.0)
    first = next(utterance for utterance in utterances(6, seed=1) if utterance.pause is None)

    async def main() -> list[TurnResult]:
        async with asyncio.timeout(100), serving(brain=EndlessBrain("yes"), voice=FullVoice) as stand:
            urls = {"cascade": stand.server.url}
            return (await measure(urls, [PlannedTurn(first, 700, 100)], api_key=None, seed=0, on_turn=lambda *_: None))[
                "cascade"
            ]

    (missed,) = asyncio.run(main())
    assert (missed.onset_ms, missed.status) == (None, "failed")
    assert missed.failure is not None
    assert "all 0 slots of the voice engine are taken" in missed.failure


def test_paths_are_measured_by_turns_and_a_slow_brain_costs_the_cascade_what_the_relay_hides(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter = ScriptedDrafter()

    @contextlib.asynccontextmanager
    async def scripted(*_: object, **__: object) -> AsyncIterator[tuple[ScriptedDrafter, ScriptedVerifier]]:
        yield drafter, ScriptedVerifier()

    monkeypatch.setattr(models, "open_fast", scripted)
    first = next(utterance for utterance in utterances(6, seed=1) if utterance.pause is None)
    planned = [PlannedTurn(first, 700, 100)] * 2
    monkeypatch.setattr("relay_benchmarks.caller.TURNS_PER_SESSION", 1)
    order: list[str] = []

    async def main() -> dict[str, list[TurnResult]]:
        def slow() -> DelayedBrain:
            return DelayedBrain(EndlessBrain("yes indeed."), 0.8)

        async with (
            asyncio.timeout(100),
            serving(brain=slow(), speculate=False) as cascade,
            serving(brain=slow(), speculate=False, path="relay") as relay,
        ):
            urls = {"cascade": cascade.server.url, "relay": relay.server.url}
            return await measure(urls, planned, api_key=None, seed=0, on_turn=lambda path, _: order.append(path))

    measured = asyncio.run(main())
    assert order == ["cascade", "relay", "relay", "cascade"]
    for turn in measured["cascade"]:
        assert turn.draft is None
        assert turn.stages_ms["llm_first"] >= 790
    for turn in measured["relay"]:
        assert turn.draft is not None
        assert turn.draft["committed"]
        assert turn.reply.startswith("Well you see")
        assert turn.stages_ms.get("llm_first", 0.0) < 790
    document = report([(path, 800, turns) for path, turns in measured.items()], turns=2, seed=0, url=None, left_out={})
    rates = {(each["path"], each["brain_delay_ms"]): each["commit_rate"] for each in document["results"]}
    assert rates == {("cascade", 800): None, ("relay", 800): 1.0}
