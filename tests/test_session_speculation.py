"""Replies prepared in a pause: there at once if it was the end, gone without a trace if it was not."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.engine.ears import EarsInput, EarsOutput
from relay.errors import BrainUnavailable
from relay.events import CallDelta, Message, ReplyEnd
from tests.fakes import ConsistentBrain, FakeBrain, FakeEars, FakeVoice, WordwiseVoice
from tests.test_session import Caller, Stand, kinds, room_noise, voiced
from tests.test_session_properties import ACTIONS, act
from tests.virtual_time import run

PAUSE_S = 0.3  # long enough to be a likely end, too short to be one
TOOL = {"type": "function", "name": "f", "description": "Does it.", "parameters": {"type": "object"}}


@dataclass
class UnsureEars(FakeEars):
    """Hears the texts of `partials` while an utterance goes on."""

    partials: list[str] = field(default_factory=list)

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> EarsOutput:
        output = await super().step(slot, x)
        if not x.final:
            return EarsOutput("", self.partials[0])
        self.partials.pop(0)
        return output


def outcomes(caller: Caller) -> dict[str, int]:
    counter = caller.services.metrics.speculations
    counts = {name: int(counter.labels(name)._value.get()) for name in ("committed", "stale", "continued")}
    return {name: count for name, count in counts.items() if count}


def said(response: dict[str, Any]) -> str:
    return str(response["output"][0]["content"][0]["transcript"])


async def pause(caller: Caller) -> None:
    """Speech, and a silence in which a reply is prepared."""
    await caller.speak(room_noise(0.4), voiced(0.8), room_noise(PAUSE_S))


async def end(caller: Caller) -> None:
    await caller.speak(room_noise(0.4))


@pytest.mark.parametrize("speculate", [True, False])
def test_a_prepared_reply_sounds_as_soon_as_the_turn_has_ended(speculate: bool) -> None:
    async def main() -> None:
        brain = FakeBrain([[0.1, "It is ", "noon", " now, ", 0.05, "and ", "ten ", "past ", "soon."]])
        stand = Stand(FakeEars(["what is the time"], 0.01), brain, WordwiseVoice(0.05), speculate=speculate)
        async with stand.call() as caller:
            await caller.say_one_turn()
            done = await caller.done()
            assert done["status"] == "completed"
            assert said(done) == "It is noon now, and ten past soon."
            (stopped_s,) = caller.transport.times("input_audio_buffer.speech_stopped")
            first_s = caller.transport.times("response.output_audio.delta")[0]
            waited_s = first_s - stopped_s
            assert waited_s < 0.011 if speculate else waited_s > 0.15
            audio = [base64.b64decode(e["delta"]) for e in caller.transport.events("response.output_audio.delta")]
            assert sum(map(len, audio)) == 8 * 6000 * 2
            assert [m.text for m in caller.context] == ["what is the time", said(done)]
            assert len(brain.asked) == 1
            assert outcomes(caller) == ({"committed": 1} if speculate else {})
            stages = caller.session._reply.clock.stages_ms if caller.session._reply else {}
            assert set(stages) == {"endpointing", "ears", "llm_first", "voice_first"}

    run(main())


def test_a_reply_that_is_still_being_prepared_goes_on() -> None:
    async def main() -> None:
        brain = FakeBrain([["One ", 0.5, "two ", 0.5, "three."]])
        stand = Stand(FakeEars(["hello"]), brain, WordwiseVoice(0.3))
        async with stand.call() as caller:
            await caller.say_one_turn()
            done = await caller.done()
            assert (done["status"], said(done)) == ("completed", "One two three.")
            assert outcomes(caller) == {"committed": 1}

    run(main())


def test_a_person_who_goes_on_never_learns_of_it() -> None:
    async def main() -> None:
        brain = FakeBrain([["Never ", 60.0, "said."], ["Fine."]])
        stand = Stand(FakeEars(["tell me a story"]), brain)
        async with stand.call() as caller:
            before = kinds(caller)
            await pause(caller)
            assert (stand.voice.open_slots, stand.brain.running) == (1, 1)
            assert kinds(caller)[len(before) :] == ["input_audio_buffer.speech_started"]
            assert caller.context == []
            await caller.speak(voiced(0.5))
            assert (stand.voice.open_slots, stand.brain.running) == (0, 0)
            assert outcomes(caller) == {"continued": 1}
            await caller.speak(room_noise(0.7))
            assert said(await caller.done()) == "Fine."
            assert outcomes(caller) == {"continued": 1, "committed": 1}
            assert kinds(caller).count("response.created") == 1
            assert caller.services.metrics.replies.labels("completed")._value.get() == 1
            assert [m.text for m in caller.context] == ["tell me a story", "Fine."]

    run(main())


@pytest.mark.parametrize(
    ("partial", "final", "asked"), [("where are you from", "Where are you from?", 1), ("where are you", "where", 2)]
)
def test_what_was_said_in_the_end_decides(partial: str, final: str, asked: int) -> None:
    async def main() -> None:
        brain = FakeBrain([["One."], ["Two."]])
        async with Stand(UnsureEars([final], partials=[partial]), brain).call() as caller:
            await caller.say_one_turn()
            assert said(await caller.done()) == ("One." if asked == 1 else "Two.")
            assert len(brain.asked) == asked
            assert outcomes(caller) == {"committed" if asked == 1 else "stale": 1}

    run(main())


@pytest.mark.parametrize(
    "change",
    [
        {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}},
        {"type": "session.update", "session": {"type": "realtime", "tools": [TOOL]}},
        {"type": "session.update", "session": {"type": "realtime", "max_output_tokens": 9}},
        {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"speed": 1.2}}}},
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "By the way:"}]},
        },
    ],
)
def test_what_changes_in_between_is_heeded(change: dict[str, Any]) -> None:
    async def main() -> None:
        brain = FakeBrain([["Old."], ["New."]])
        async with Stand(FakeEars(["hello"]), brain).call() as caller:
            await pause(caller)
            caller.transport.push(**change)
            await end(caller)
            assert said(await caller.done()) == "New."
            assert len(brain.asked) == 2
            assert Message("user", "hello") in brain.asked[1]
            assert outcomes(caller) == {"stale": 1}

    run(main())


def test_a_text_reply_and_a_call_are_prepared_and_kept_back() -> None:
    async def main() -> None:
        script = ["Wait ", "a ", "moment.", CallDelta(0, "f", "{"), CallDelta(0, "f", "}"), ReplyEnd()]
        for modality in ("text", "audio"):
            stand = Stand(FakeEars(["hello"]), FakeBrain([list(script)]))
            async with stand.call(tools=[TOOL], output_modalities=[modality]) as caller:
                await pause(caller)
                assert stand.voice.open_slots == (modality == "audio")
                assert not [kind for kind in kinds(caller) if kind.startswith(("response.", "conversation.item"))]
                await end(caller)
                done = await caller.done()
                assert [item["type"] for item in done["output"]] == ["message", "function_call"]
                assert done["output"][1]["arguments"] == "{}"
                assert outcomes(caller) == {"committed": 1}

    run(main())


@pytest.mark.parametrize("script", [[BrainUnavailable("gone")], ["One ", ValueError("odd")], [], [60.0]])
def test_a_brain_that_fails_or_dawdles_in_the_pause_does_no_harm(script: list[Any]) -> None:
    async def main() -> None:
        dawdles = script == [60.0]
        stand = Stand(UnsureEars(["yes"], partials=["no" if dawdles else "yes"]), FakeBrain([script, ["Fine."]]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            done = await caller.done()
            if script:
                assert (done["status"], said(done)) == ("completed", "Fine.")
                assert outcomes(caller) == {"stale": 1}
            else:  # an empty reply is the brain's answer
                assert done["status"] == "failed"

    run(main())


def test_a_voice_that_is_busy_or_fails_in_the_pause_does_no_harm() -> None:
    async def main() -> None:
        for trouble in ("busy", "failing"):
            stand = Stand(FakeEars(["hello"]), FakeBrain([["One."], ["Two."]]), FakeVoice())
            stand.voice.busy = trouble == "busy"
            stand.voice.fails_at = 0 if trouble == "failing" else None
            async with stand.call() as caller:
                await pause(caller)
                assert len(stand.brain.asked) == (trouble == "failing"), "without a slot nobody is asked"
                stand.voice.busy, stand.voice.fails_at = False, None
                await end(caller)
                assert (await caller.done())["status"] == "completed"
                assert outcomes(caller) == {"stale": 1}

    run(main())


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"turn_detection": None}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}},
        {"type": "transcription"},
    ],
)
def test_where_nobody_is_answered_by_itself_nothing_is_prepared(session: dict[str, Any]) -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([]))
        async with stand.call(**session) as caller:
            await caller.say_one_turn()
            assert stand.brain.asked == []
            assert outcomes(caller) == {}

    run(main())


def test_a_prepared_reply_is_interrupted_and_left_like_any_other() -> None:
    async def main() -> None:
        slow = ["One ", 5.0, "two."]
        stand = Stand(FakeEars(["hello", "stop", "wait"]), FakeBrain([list(slow), ["Yes."], list(slow)]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.speak(voiced(0.6), room_noise(0.7))
            first = await caller.done(1)
            assert (first["status"], first["status_details"]["reason"]) == ("cancelled", "turn_detected")
            assert said(await caller.done(2)) == "Yes."
            await pause(caller)  # and the client leaves in the pause
            assert stand.brain.running == 1

    run(main())


ID = re.compile(r"[a-z]+_[0-9a-f]{18,}")  # as `id_source` makes them


def shown(caller: Caller) -> tuple[list[Any], dict[str, bytes], dict[str, str]]:
    """The events with ids, in messages too, numbered as they come, without deltas; and each item's deltas, joined."""
    numbers: dict[str, int] = {}
    audio: dict[str, bytes] = {}
    text: dict[str, str] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k != "event_id"}
        if isinstance(value, list):
            return [plain(each) for each in value]
        if isinstance(value, str):
            return ID.sub(lambda found: f"#{numbers.setdefault(found[0], len(numbers))}", value)
        return value

    events = []
    for _, event in caller.transport.received:
        item = str(numbers.get(event.get("item_id", ""), ""))
        if event["type"] == "response.output_audio.delta":
            audio[item] = audio.get(item, b"") + base64.b64decode(event["delta"])
        elif event["type"].endswith(".delta") and event["type"].startswith("response."):
            text[item] = text.get(item, "") + event["delta"]
        else:
            events.append(plain(event))
    return events, audio, text


AT_ONCE = st.sampled_from(
    [
        ["Fine."],
        ["One ", "two, ", "three."],
        ["w "] * 60,
        ["Half a ", ValueError("bad")],
        [BrainUnavailable("gone")],
        [],
        [CallDelta(0, "f", "{"), CallDelta(0, "f", "}"), CallDelta(1, "g", "{}")],
        ["One ", "moment.", CallDelta(0, "f", "{}"), ReplyEnd("length", 5, 3, 2)],
    ]
)
TEXTS = st.sampled_from(["hello there", "yes", "well", "I see", "", RuntimeError("deaf")])


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ACTIONS, min_size=2, max_size=10),
    st.lists(TEXTS, min_size=1, max_size=6),
    st.lists(AT_ONCE, min_size=1, max_size=6),
    st.sampled_from([0.0, 0.05]),
)
@example(  # the error names the response that is in progress
    [("sound", "turn"), ("sound", "turn"), ("send", {"type": "response.create"})], ["hello there"], [["w "] * 60], 0.0
)
def test_clients_cannot_tell(actions: list[Any], texts: list[Any], scripts: list[Any], delay_s: float) -> None:
    async def talk(speculate: bool) -> Any:
        ears = FakeEars(texts * 20, delay_s)
        stand = Stand(ears, ConsistentBrain(scripts), WordwiseVoice(), speculate=speculate)
        async with stand.call() as caller:
            for action in actions:
                await act(caller, action)
            await asyncio.sleep(30.0)
            return shown(caller)

    assert run(talk(True)) == run(talk(False))
