"""Turn-taking: what counts as what, and a dialogue with a real server that takes every pause for an end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_benchmarks.corpus import backchannels, interruptions, utterances
from relay_benchmarks.turns import Moment, PlannedTurn, is_takeover, measure, plan, report, summarise
from tests.server.conftest import EndlessBrain

ANSWER = [f"word{n} " for n in range(25)]  # two and a half seconds


@given(st.floats(0, 20_000), st.integers(0, 50))
def test_a_takeover_is_more_than_a_second_or_three_words(played_ms: float, words: int) -> None:
    assert is_takeover(played_ms, words) == (played_ms > 1000 or words > 3)
    assert is_takeover(1000.0, 3) is False


def test_half_of_the_turns_pause_and_answers_are_spoken_into() -> None:
    planned = plan(12, seed=3)
    assert [turn.gap_ms for turn in planned] == [turn.gap_ms for turn in plan(12, seed=3)]
    assert sum(turn.utterance.pause is not None for turn in planned) == 6
    kinds = [turn.intrusion_kind for turn in planned if turn.intrusion is not None]
    assert (kinds.count("backchannel"), kinds.count("interruption")) == (4, 4)
    assert all(len(each.pcm) < 24_000 for each in backchannels(6, seed=0))  # a second


def test_misses_and_replies_that_go_on_are_inside() -> None:
    moments = [
        Moment("pause", "a", pause_ms=450.0),
        Moment("pause", "b", pause_ms=1400.0, sounded=True, played_ms=400.0, words=1),
        Moment("pause", "c", pause_ms=1400.0, sounded=True, played_ms=1200.0, words=5, took_over=True),
        Moment("turn_end", "a", sounded=True, took_over=True, latency_ms=600.0, cut_ins=1),
        Moment("turn_end", "b"),
        Moment("backchannel", "yeah", sounded=True, stopped=True, overlap_ms=100.0),
        Moment("backchannel", "okay", stopped=False, overlap_ms=2000.0, held_ms=500.0),
        Moment("interruption", "wait", sounded=True, took_over=True, stopped=True, overlap_ms=100.0, latency_ms=500.0),
        Moment("interruption", "no", stopped=False, overlap_ms=3000.0),
    ]
    found = summarise("cascade", moments)
    assert found["pauses"]["takeover"]["rate"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["pauses"]["sounded"]["rate"] == pytest.approx(2 / 3, abs=1e-4)
    assert [each["count"] for each in found["pauses"]["by_length"]] == [1, 0, 0, 2]
    assert found["pauses"]["by_length"][1]["takeover"] == {"rate": None, "at_most": None}
    assert found["turn_ends"]["takeover"]["rate"] == 0.5
    assert (found["turn_ends"]["missed"], found["turn_ends"]["cut_ins"]) == (1, 1)
    assert found["turn_ends"]["latency_ms"]["max"] == 10_000.0
    assert (found["backchannels"]["stopped"]["rate"], found["backchannels"]["answered"]["rate"]) == (0.5, 0.5)
    assert found["backchannels"]["held_ms"]["max"] == 500.0
    assert found["interruptions"]["stop_ms"]["max"] == 3000.0
    assert found["interruptions"]["stopped"]["rate"] == 0.5
    json.dumps(found)
    assert summarise("cascade", [])["turn_ends"]["takeover"]["rate"] is None


def test_a_dialogue_is_measured_against_a_real_server(serving: Any) -> None:
    said = utterances(6, seed=1, paused_share=1.0)
    long = max(said, key=lambda each: each.pause[1] - each.pause[0])  # type: ignore[index]
    plain = next(utterance for utterance in utterances(6, seed=1) if utterance.pause is None)
    planned = [
        PlannedTurn(long, 700, 100),
        PlannedTurn(plain, 700, 0, backchannels(1, seed=0)[0]),
        PlannedTurn(plain, 700, 7, interruptions(1, seed=1)[0], "interruption"),
    ]
    seen: list[str] = []

    async def main() -> list[Moment]:
        async with asyncio.timeout(100), serving(brain=EndlessBrain(*ANSWER)) as stand:
            urls = {"cascade": stand.server.url}
            return (await measure(urls, planned, api_key=None, seed=0, on_turn=seen.append))["cascade"]

    moments = asyncio.run(main())
    assert seen == ["cascade"] * 3
    pause, first, second, backchannel, third, interruption = moments
    kinds = [moment.kind for moment in moments]
    assert kinds == ["pause", "turn_end", "turn_end", "backchannel", "turn_end", "interruption"]
    assert pause.pause_ms is not None
    assert pause.sounded == (pause.pause_ms > 800)  # half a second of silence ends a turn
    for answered in (first, second, third):
        assert answered.sounded
        assert answered.took_over
        assert answered.latency_ms is not None
        assert answered.latency_ms > 0
    assert first.played_ms == pytest.approx(2500, abs=1)
    assert first.words == 25
    assert second.played_ms == pytest.approx(2500, abs=1)  # it goes on after a backchannel
    assert backchannel.stopped is False
    assert backchannel.held_ms is not None
    assert 100 < backchannel.held_ms < 1500
    assert third.played_ms < 2500  # cut by what was said into it
    assert interruption.stopped
    assert interruption.overlap_ms is not None
    assert 0 < interruption.overlap_ms < 2000
    document = report({"cascade": moments}, planned, seed=0, url=None, left_out={"relay": "no weights"})
    assert document["config"]["planned"] == {"backchannels": 1, "interruptions": 1}
    assert json.loads(json.dumps(document))["results"][0]["backchannels"]["stopped"]["rate"] == 0.0
