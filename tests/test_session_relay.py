"""Sessions with a fast path: drafted words sound at once, the brain goes on, and every reply ends once."""

from __future__ import annotations

import asyncio
import base64
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.engine.draft import Judgement, Signals
from relay.errors import BrainUnavailable
from relay.handoff import LOST
from relay.services import Fast
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.fakes import FakeBrain, FakeEars, FakeVoice, WordwiseVoice
from tests.test_session import Caller, Stand, room_noise, voiced
from tests.test_session_properties import ACTIONS, SCRIPTS, act, check_calls, check_silence_after_interruption
from tests.virtual_time import run

RELAY = {"draft": True, "metrics": True, "words": True, "playback": True}


def stand(
    brain: FakeBrain,
    drafter: ScriptedDrafter | None = None,
    verifier: ScriptedVerifier | None = None,
    *,
    path: Any = "relay",
    speculate: bool = True,
    voice: FakeVoice | None = None,
    texts: list[Any] | None = None,
) -> Stand:
    fast = Fast(drafter or ScriptedDrafter(), verifier or ScriptedVerifier(), path)
    return Stand(
        FakeEars(texts or ["what is the time"], 0.01),
        brain,
        voice or WordwiseVoice(0.02),
        speculate=speculate,
        fast=fast,
    )


def said(response: dict[str, Any]) -> str:
    return str(response["output"][0]["content"][0]["transcript"])


def drafts(caller: Caller) -> list[dict[str, Any]]:
    return [event["draft"] for event in caller.transport.events("relay.draft")]


def paths(caller: Caller) -> list[str]:
    return [event["metrics"]["path"] for event in caller.transport.events("relay.metrics")]


@pytest.mark.parametrize("speculate", [True, False])
def test_drafted_words_sound_before_the_brain_has_said_any(speculate: bool) -> None:
    async def main() -> None:
        brain = FakeBrain([[1.5, "Never."], [1.5, "it is ", "noon."]])
        drafter = ScriptedDrafter([(0.05, "Well you see")])
        on = stand(brain, drafter, speculate=speculate)
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            done = await caller.done()
            assert (done["status"], said(done)) == ("completed", "Well you see it is noon.")
            (stopped_s,) = caller.transport.times("input_audio_buffer.speech_stopped")
            waited_s = caller.transport.times("response.output_audio.delta")[0] - stopped_s
            assert waited_s < (0.02 if speculate else 0.15)
            assert drafts(caller) == [{"prefix": "Well you see", "probability": 0.9, "committed": True, "reason": None}]
            assert paths(caller) == ["relay"]
            (metrics,) = caller.transport.events("relay.metrics")
            stages = metrics["metrics"]["stages_ms"]
            assert {"endpointing", "ears", "draft", "verify", "llm_first", "voice_first"} == set(stages)
            assert sum(stages.values()) == pytest.approx(metrics["metrics"]["onset_ms"], abs=0.01)
            assert [m.text for m in caller.context] == ["what is the time", said(done)]
            assert caller.services.metrics.drafts.labels("committed")._value.get() == 1
            await asyncio.sleep(0.5)
            assert " ".join(drafter.told) == "Well you see it is noon. (whole)"
            assert drafter.heard_samples > 1.5 * 16_000, "it hears silence too"

    run(main())


@pytest.mark.parametrize("late_s", [0.3, 1.0, 2.5])
def test_the_continuation_joins_in_the_same_voice_and_the_time_until_it_comes_is_held(late_s: float) -> None:
    async def main() -> None:
        brain = FakeBrain([[9.0, "Never."], [late_s, "it is ", "noon."]])
        on = stand(brain, ScriptedDrafter([(0.05, "Well you see")]), speculate=False)
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            assert (await caller.done())["status"] == "completed"
            assert on.voice.open_slots == 0
            words = [word for event in caller.transport.events("relay.words") for word in event["words"]]
            assert [word["word"] for word in words] == ["Well", "you", "see", "it", "is", "noon."]
            assert all(a["end_sample"] <= b["start_sample"] for a, b in pairwise(words))
            gap_s = (words[3]["start_sample"] - words[2]["end_sample"]) / 24_000
            assert gap_s == pytest.approx(max(0.0, late_s - 0.75), abs=0.3)
            chunks = [base64.b64decode(e["delta"]) for e in caller.transport.events("response.output_audio.delta")]
            times = caller.transport.times("response.output_audio.delta")
            played_until_s = times[0]
            for at_s, chunk in zip(times, chunks, strict=True):
                assert at_s <= played_until_s + 0.03, "there is no dead air"
                played_until_s = max(played_until_s, at_s) + len(chunk) / 48_000

    run(main())


@pytest.mark.parametrize("trouble", [[0.1, BrainUnavailable("gone")], [0.1, "it is ", ValueError("odd")], [60.0]])
def test_a_brain_that_fails_after_the_commit_ends_the_sentence(trouble: list[Any]) -> None:
    async def main() -> None:
        on = stand(FakeBrain([[9.0, "Never."], trouble, ["Yes."]]), texts=["what is the time", "still there"])
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            done = await caller.done()
            assert done["status"] == "failed"
            assert done["status_details"]["error"]["type"]
            assert said(done).startswith("Well you see ")
            assert said(done).endswith(LOST)
            assert paths(caller) == ["relay"]
            words = [word["word"] for event in caller.transport.events("relay.words") for word in event["words"]]
            assert " ".join(words) == said(done), "all of it is spoken"
            done_s = caller.transport.times("response.done")[0]
            assert done_s < 12

    run(main())


def test_typed_questions_and_text_replies_are_the_brains_alone() -> None:
    async def main() -> None:
        drafter = ScriptedDrafter([(0.0, "Never")])
        on = stand(FakeBrain([[0.5, "Fine."], [0.5, "Good."]]), drafter, speculate=False)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "how are you"}]}
        async with on.call(relay=RELAY) as caller:
            caller.transport.push(type="conversation.item.create", item=item)
            caller.transport.push(type="response.create")
            assert said(await caller.done(1)) == "Fine."
            caller.transport.push(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
            await caller.say_one_turn()
            assert (await caller.done(2))["status"] == "completed"
            assert (drafter.asked, drafts(caller), paths(caller)) == ([], [], ["cascade"])

    run(main())


def test_a_barge_in_is_told_to_the_draft_model() -> None:
    async def main() -> None:
        drafter = ScriptedDrafter([(0.0, "Well you see")])
        brain = FakeBrain([[9.0, "Never."], [0.1, "w "] * 40, [9.0, "Never."], ["Yes."]])
        on = stand(brain, drafter, texts=["tell me a story", "stop"])
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            await caller.speak(room_noise(1.0), voiced(0.6), room_noise(0.7))
            first = await caller.done(1)
            assert first["status"] == "cancelled"
            await caller.done(2)
            await asyncio.sleep(3.0)
            told = " ".join(drafter.told)
            assert told.startswith("Well you see w")
            assert "(broken)" in told
            assert told.endswith("Yes. (whole)")

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_the_draft_alone_may_answer(fails: bool) -> None:
    async def main() -> None:
        drafter = ScriptedDrafter([(0.1, RuntimeError("odd") if fails else "It is noon I think")])
        on = stand(FakeBrain([["Noon."]]), drafter, path="draft")
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            assert said(await caller.done()) == ("Noon." if fails else "It is noon I think")
            assert paths(caller) == ["cascade" if fails else "draft"]
            assert len(on.brain.asked) == fails

    run(main())


DRAFTED = st.tuples(
    st.sampled_from([0.0, 0.05, 0.5, 60.0]), st.sampled_from(["Well you see", "No", "", None, RuntimeError("odd")])
)
JUDGED = st.tuples(
    st.sampled_from([0.0, 0.05, 60.0]),
    st.sampled_from([Judgement(0.9, 7), Judgement(0.9, 1), Judgement(0.1, 0), RuntimeError("odd"), Judgement(9, 9)]),
)
EVIDENCE = st.sampled_from([None, -3.0, 1.0, 3.0])
SIGNALS = st.none() | st.builds(Signals, st.just(0), *[st.just(0.5)] * 3, EVIDENCE, EVIDENCE)
TEXTS = st.sampled_from(["hello there", "yes", "", RuntimeError("deaf")])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ACTIONS, min_size=2, max_size=10),
    st.lists(TEXTS, min_size=1, max_size=4),
    st.lists(SCRIPTS, min_size=1, max_size=6),
    st.lists(DRAFTED, min_size=1, max_size=4),
    st.lists(JUDGED, min_size=1, max_size=4),
    st.sampled_from([None, 0, 3, 9]),
    st.sampled_from([None, 2, 7]),
    st.tuples(st.booleans(), st.booleans(), st.sampled_from(["relay", "draft"])),
    SIGNALS,
)
def test_whatever_happens_every_reply_ends_once_and_the_events_tell_the_truth(
    actions: list[Any],
    texts: list[Any],
    scripts: list[Any],
    drafted: list[Any],
    judged: list[Any],
    drafter_fails_at: int | None,
    voice_fails_at: int | None,
    ways: tuple[bool, bool, str],
    signals: Signals | None,
) -> None:
    async def main() -> None:
        speculate, busy, path = ways
        drafter = ScriptedDrafter(list(drafted), busy=busy, fails_at=drafter_fails_at, signals=signals)
        on = stand(
            FakeBrain([list(script) for script in scripts * 40]),
            drafter,
            ScriptedVerifier(list(judged)),
            path=path,
            speculate=speculate,
            voice=FakeVoice(0.0, voice_fails_at),
            texts=texts * 20,
        )
        on.brain.ends.update({"hello there": 0.9, "yes": 0.1})
        detection = {"type": "server_vad" if signals is None else "semantic_vad"}
        async with on.call(relay=RELAY, audio={"input": {"turn_detection": detection}}) as caller:
            for action in actions:
                await act(caller, action)
            await asyncio.sleep(40.0)
            created = [e["response"]["id"] for e in caller.transport.events("response.created")]
            done = {e["response"]["id"]: e["response"] for e in caller.transport.events("response.done")}
            assert sorted(created) == sorted(e["response"]["id"] for e in caller.transport.events("response.done"))
            check_calls(caller)
            check_silence_after_interruption(caller)
            told = {event["response_id"]: event["draft"] for event in caller.transport.events("relay.draft")}
            assert len(told) == len(caller.transport.events("relay.draft")), "one report a response"
            for event in caller.transport.events("relay.metrics"):
                report = told.get(event["response_id"])
                committed = report is not None and report["committed"]
                assert event["metrics"]["path"] == (path if committed else "cascade")
            for response_id, report in told.items():
                message = next((i for i in done[response_id]["output"] if i["type"] == "message"), None)
                if message is None or done[response_id]["status"] == "cancelled":
                    continue
                transcript = message["content"][0]["transcript"]
                assert transcript.startswith(report["prefix"] or "") or not report["committed"]
        assert drafter.open_slots == 0

    run(main())
