"""Sessions with a fast path: drafted words sound at once, the brain goes on, and every reply ends once."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.engine.draft import Judgement, Signals
from relay.engine.voice import VoiceInput, VoiceOutput
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


def no_draft(reason: str) -> dict[str, Any]:
    return {"prefix": None, "probability": None, "committed": False, "reason": reason}


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


@dataclass
class TellingVoice(WordwiseVoice):
    """Remembers what it was asked to say."""

    given: list[str] = field(default_factory=list)

    async def step(self, slot: int, x: VoiceInput, *, deadline_s: float = 0.0) -> VoiceOutput:
        self.given += x.text.split()
        return await super().step(slot, x)


def test_prefix_and_first_sound_are_made_in_a_pause_and_thrown_away_if_the_person_goes_on() -> None:
    async def main() -> None:
        drafter = ScriptedDrafter([(0.01, "Never mind that"), (0.01, "Well you see")])
        brain = FakeBrain([[9.0, "Never."], [9.0, "Never."], [9.0, "Never."], [0.1, "it is ", "noon."]])
        voice = TellingVoice(0.02)
        async with stand(brain, drafter, voice=voice, texts=["tell me a story"]).call(relay=RELAY) as caller:
            before = len(caller.transport.received)
            await caller.speak(room_noise(0.4), voiced(0.8), room_noise(0.3))
            assert voice.given == ["Never", "mind", "that"], "before anybody knows that the turn has ended"
            await caller.speak(voiced(0.5))
            told = {event["type"] for _, event in caller.transport.received[before:]}
            assert told == {"input_audio_buffer.speech_started", "relay.partial"}
            assert voice.open_slots == brain.running == 0
            await caller.speak(room_noise(0.7))
            assert said(await caller.done()) == "Well you see it is noon."
            assert [report["prefix"] for report in drafts(caller)] == ["Well you see"]
            outcomes = caller.services.metrics.speculations
            assert [outcomes.labels(name)._value.get() for name in ("continued", "committed")] == [1, 1]

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
            assert (drafter.asked, drafts(caller), paths(caller)) == ([], [no_draft("unasked")] * 2, ["cascade"] * 2)
            onsets = [event["metrics"]["onset_ms"] for event in caller.transport.events("relay.metrics")]
            assert onsets[0] > 0
            assert onsets[1] is None, "nothing of it was heard"

    run(main())


@pytest.mark.parametrize(
    ("reason", "drafted", "judged", "brain"),
    [
        ("late", (60.0, "Never"), Judgement(0.9, 7), [0.1, "Noon."]),
        ("empty", (0.0, ""), Judgement(0.9, 7), [0.1, "Noon."]),
        ("failed", (0.0, None), Judgement(0.9, 7), [0.1, "Noon."]),
        ("failed", (0.0, RuntimeError("odd")), Judgement(0.9, 7), [0.1, "Noon."]),
        ("failed", (0.0, "Well you see"), RuntimeError("odd"), [0.1, "Noon."]),
        ("doubtful", (0.0, "Well you see"), Judgement(0.1, 0), [0.1, "Noon."]),
        ("late", (60.0, "Never"), Judgement(0.9, 7), [0.1, BrainUnavailable("gone")]),
        ("interrupted", (60.0, "Never"), Judgement(0.9, 7), [60.0]),
    ],
)
@pytest.mark.parametrize("speculate", [True, False])
def test_every_reply_tells_once_what_became_of_its_draft(
    reason: str, drafted: Any, judged: Any, brain: list[Any], speculate: bool
) -> None:
    async def main() -> None:
        drafter, verifier = ScriptedDrafter([drafted]), ScriptedVerifier([(0.0, judged)])
        on = stand(FakeBrain([list(brain)] * 4), drafter, verifier, texts=["well", "stop"], speculate=speculate)
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            if reason == "interrupted":
                caller.transport.push(type="response.cancel")
            done = await caller.done()
            assert [e["response_id"] for e in caller.transport.events("relay.draft")] == [done["id"]]
            assert [e["response_id"] for e in caller.transport.events("relay.metrics")] == [done["id"]]
            (report,), (metrics,) = drafts(caller), caller.transport.events("relay.metrics")
            assert (report["committed"], report["reason"]) == (False, reason)
            assert report["prefix"] == ("Well you see" if drafted[1] == "Well you see" else None)
            assert report["probability"] == (0.1 if reason == "doubtful" else None)
            assert metrics["metrics"]["path"] == "cascade"
            assert (metrics["metrics"]["onset_ms"] is None) == (reason == "interrupted")

    run(main())


def test_what_is_committed_and_stopped_before_its_first_sound_is_told_as_it_was() -> None:
    async def main() -> None:
        drafter = ScriptedDrafter([(0.0, "Well you see")])
        on = stand(FakeBrain([[60.0]] * 4), drafter, voice=WordwiseVoice(5.0), speculate=False)
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("relay.draft")
            caller.transport.push(type="response.cancel")
            assert (await caller.done())["status"] == "cancelled"
            assert [(each["committed"], each["prefix"]) for each in drafts(caller)] == [(True, "Well you see")]
            (metrics,) = caller.transport.events("relay.metrics")
            assert (metrics["metrics"]["path"], metrics["metrics"]["onset_ms"]) == ("relay", None)

    run(main())


def test_a_reply_that_nobody_asked_a_draft_of_says_so() -> None:
    async def main() -> None:
        on = stand(FakeBrain([["Noon."]] * 4), texts=[RuntimeError("deaf"), "hello"])
        async with on.call(relay=RELAY) as caller:
            await caller.say_one_turn()
            assert (await caller.done(1))["status"] == "failed"
            caller.transport.push(type="response.create", response={"conversation": "none"})
            assert (await caller.done(2))["status"] == "completed"
            caller.transport.push(type="session.update", session={"tools": [{"type": "function", "name": "f"}]})
            await caller.say_one_turn()
            assert (await caller.done(3))["status"] == "completed"
            assert drafts(caller) == [no_draft("unasked")] * 3
            assert paths(caller) == ["cascade"] * 3

    run(main())


@pytest.mark.parametrize("speculate", [True, False])
def test_a_session_chooses_among_the_paths_that_the_server_has(speculate: bool) -> None:
    async def main() -> None:
        brain = FakeBrain([[0.5, "Noon."]] * 12)
        on = stand(
            brain, ScriptedDrafter([(0.01, "Well you see")]), speculate=speculate, texts=["what is the time"] * 9
        )
        async with on.call(relay=RELAY | {"path": "cascade"}) as caller:
            wanted = [("cascade", "Noon."), ("draft", "Well you see"), (None, "Well you see Noon.")]
            for count, (path, text) in enumerate(wanted, 1):
                caller.transport.push(type="session.update", session={"relay": {"path": path}})
                shown = (await caller.transport.wait_for("session.updated", 1 + count))["session"]["relay"]
                assert (shown["path"], shown["paths"]) == (path, ["relay", "cascade", "draft"])
                await caller.say_one_turn()
                assert said(await caller.done(count)) == text
                await caller.speak(room_noise(2.0))  # it is heard to its end
            assert paths(caller) == ["cascade", "draft", "relay"]
            assert [each["committed"] for each in drafts(caller)] == [True, True], (
                "on the cascade there is none to tell of"
            )

    run(main())


def test_a_reply_prepared_on_another_path_is_not_given() -> None:
    async def main() -> None:
        brain = FakeBrain([[0.05, "Noon."]] * 4)
        on = stand(brain, ScriptedDrafter([(0.01, "Well you see")]))
        async with on.call(relay=RELAY) as caller:
            await caller.speak(room_noise(0.4), voiced(0.8), room_noise(0.4))
            assert on.brain.asked, "a reply is being prepared"
            caller.transport.push(type="session.update", session={"relay": {"path": "cascade"}})
            await caller.speak(room_noise(0.5))
            assert said(await caller.done()) == "Noon."
            assert caller.services.metrics.speculations.labels("stale")._value.get() == 1
            assert (drafts(caller), paths(caller)) == ([], ["cascade"])

    run(main())


def test_a_path_without_models_is_refused_and_nothing_changes() -> None:
    async def main() -> None:
        on = stand(FakeBrain([["Noon."]]), path="draft")
        async with on.call(relay=RELAY) as caller:
            caller.transport.push(type="session.update", session={"instructions": "Hm.", "relay": {"path": "relay"}})
            error = (await caller.transport.wait_for("error"))["error"]
            assert (error["code"], error["param"]) == ("unsupported_value", "session.relay.path")
            assert "'draft' or 'cascade'" in error["message"]
            assert caller.session._protocol.config.instructions != "Hm."
            await caller.say_one_turn()
            await caller.done()
            assert paths(caller) == ["draft"]

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
CHOICES = st.sampled_from([None, "relay", "cascade", "draft"]).map(
    lambda path: ("send", {"type": "session.update", "session": {"relay": {"path": path}}})
)


def check_reports(caller: Caller, path: str) -> None:
    """Every response has its metrics and, on a path with a draft, what became of that: once, and in one sense.

    `path` is the session's; or `chosen`: it changed, and not every response need have been on one with a draft.
    """
    created = [e["response"]["id"] for e in caller.transport.events("response.created")]
    done = {e["response"]["id"]: e["response"] for e in caller.transport.events("response.done")}
    told = {event["response_id"]: event["draft"] for event in caller.transport.events("relay.draft")}
    assert len(told) == len(caller.transport.events("relay.draft")), "one report a response"
    assert set(told) <= set(created) if path == "chosen" else sorted(told) == sorted(created)
    assert sorted(created) == sorted(e["response_id"] for e in caller.transport.events("relay.metrics"))
    sounded = {event["response_id"] for event in caller.transport.events("response.output_audio.delta")}
    for event in caller.transport.events("relay.metrics"):
        committed = event["response_id"] in told and told[event["response_id"]]["committed"]
        allowed = {"cascade"} if not committed else {"relay", "draft"} if path == "chosen" else {path}
        assert event["metrics"]["path"] in allowed
        assert (event["metrics"]["onset_ms"] is not None) == (event["response_id"] in sounded)
    for response_id, report in told.items():
        message = next((i for i in done[response_id]["output"] if i["type"] == "message"), None)
        assert (report["reason"] is None) == report["committed"]
        if message is None or done[response_id]["status"] == "cancelled" or not report["committed"]:
            continue
        assert message["content"][0]["transcript"].startswith(report["prefix"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ACTIONS, min_size=2, max_size=10),
    st.lists(TEXTS, min_size=1, max_size=4),
    st.lists(SCRIPTS, min_size=1, max_size=6),
    st.lists(DRAFTED, min_size=1, max_size=4),
    st.lists(JUDGED, min_size=1, max_size=4),
    st.sampled_from([None, 0, 3, 9]),
    st.sampled_from([None, 2, 7]),
    st.tuples(st.booleans(), st.booleans(), st.sampled_from(["relay", "draft", "chosen"])),
    SIGNALS,
    st.data(),
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
    data: st.DataObject,
) -> None:
    async def main() -> None:
        speculate, busy, path = ways
        drafter = ScriptedDrafter(list(drafted), busy=busy, fails_at=drafter_fails_at, signals=signals)
        on = stand(
            FakeBrain([list(script) for script in scripts * 40]),
            drafter,
            ScriptedVerifier(list(judged)),
            path="relay" if path == "chosen" else path,
            speculate=speculate,
            voice=FakeVoice(0.0, voice_fails_at),
            texts=texts * 20,
        )
        on.brain.ends.update({"hello there": 0.9, "yes": 0.1})
        detection = {"type": "server_vad" if signals is None else "semantic_vad"}
        async with on.call(relay=RELAY, audio={"input": {"turn_detection": detection}}) as caller:
            for action in actions:
                if path == "chosen":
                    await act(caller, data.draw(CHOICES))
                await act(caller, action)
            await asyncio.sleep(40.0)
            created = [e["response"]["id"] for e in caller.transport.events("response.created")]
            assert sorted(created) == sorted(e["response"]["id"] for e in caller.transport.events("response.done"))
            check_calls(caller)
            check_silence_after_interruption(caller)
            check_reports(caller, path)
        assert drafter.open_slots == 0

    run(main())
