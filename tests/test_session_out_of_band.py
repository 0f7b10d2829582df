"""Responses beside the conversation in a session: at the same time, not interrupted, each with its own end."""

from __future__ import annotations

import asyncio
from typing import Any

from relay.errors import BrainUnavailable
from relay.events import CallDelta, Message
from tests.fakes import FakeBrain, FakeEars
from tests.test_session import Caller, Stand, room_noise, voiced
from tests.virtual_time import run


def ask(caller: Caller, topic: str, event_id: str | None = None, **settings: Any) -> None:
    response = {"conversation": "none", "metadata": {"topic": topic}, "output_modalities": ["text"], **settings}
    caller.transport.push(type="response.create", event_id=event_id, response=response)


async def done_of(caller: Caller, topic: str) -> dict[str, Any]:
    """The end of the response with this topic."""
    count = 1
    while True:
        response = await caller.done(count)
        if (response["metadata"] or {}).get("topic") == topic:
            return response
        count += 1


def test_a_text_beside_a_spoken_reply() -> None:
    async def main() -> None:
        brain = FakeBrain([[f"w{n} " for n in range(20)], [1.0, "calm"]])
        async with Stand(FakeEars(["hello"]), brain).call() as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("response.output_audio.delta")
            ask(caller, "mood", instructions="Name the mood in one word.", max_output_tokens=5)
            mood = await done_of(caller, "mood")
            assert mood["output"][0]["content"] == [{"type": "output_text", "text": "calm"}]
            assert (mood["status"], mood["conversation_id"], mood["max_output_tokens"]) == ("completed", None, 5)
            spoken = await caller.done(2)  # it went on
            assert spoken["status"] == "completed"
            assert [message.text for message in brain.asked[1]] == ["Name the mood in one word.", "hello"]
            assert [message.role for message in caller.context] == ["user", "assistant"]

    run(main())


def test_speech_does_not_interrupt_it_and_its_audio_has_its_own_events() -> None:
    async def main() -> None:
        brain = FakeBrain([[f"w{n} " for n in range(12)], ["Yes."]])
        async with Stand(FakeEars(["hello"]), brain).call() as caller:
            ask(caller, "aloud", output_modalities=["audio"], input=[])
            await caller.transport.wait_for("response.output_audio.delta")
            await caller.say_one_turn()
            aloud = await done_of(caller, "aloud")
            assert aloud["status"] == "completed"
            assert len(aloud["output"][0]["content"][0]["transcript"].split()) == 12
            own = next(
                e["response"] for e in caller.transport.events("response.created") if not e["response"]["metadata"]
            )
            by_response: dict[str, int] = {}
            for event in caller.transport.events("response.output_audio.delta"):
                by_response[event["response_id"]] = by_response.get(event["response_id"], 0) + 1
            assert by_response.keys() == {aloud["id"], own["id"]}
            assert [m.role for m in brain.asked[0]] == ["system"]

    run(main())


def test_there_are_only_so_many_and_each_is_cancelled_by_its_id() -> None:
    async def main() -> None:
        brain = FakeBrain([[30.0, "never"], [30.0, "never"], [30.0, "never"], [2.0, "fine"]])
        async with Stand(FakeEars([]), brain).call() as caller:
            for topic in "abcde":
                ask(caller, topic, event_id=f"e_{topic}")
            error = (await caller.transport.wait_for("error"))["error"]
            assert (error["code"], error["event_id"]) == ("too_many_responses", "e_e")
            created = {
                e["response"]["metadata"]["topic"]: e["response"]["id"]
                for e in caller.transport.events("response.created")
            }
            assert list(created) == ["a", "b", "c", "d"]
            await asyncio.sleep(1.0)
            assert brain.running == 4
            caller.transport.push(type="response.cancel", response_id=created["b"])
            cancelled = await done_of(caller, "b")
            assert cancelled["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
            await asyncio.sleep(0.1)
            assert brain.running == 3
            assert (await done_of(caller, "d"))["status"] == "completed"
            assert brain.running == 2  # and they end with the session

    run(main())


def test_it_waits_for_what_is_being_recognised() -> None:
    async def main() -> None:
        brain = FakeBrain([["question"], ["Noon."]])
        stand = Stand(FakeEars(["what is the time"], delay_s=0.5), brain)
        async with stand.call(audio={"input": {"turn_detection": None}}) as caller:
            caller.append(voiced(0.5))
            caller.transport.push(type="input_audio_buffer.commit")
            item_id = (await caller.transport.wait_for("input_audio_buffer.committed"))["item_id"]
            instructions = "Is this a question?"
            ask(caller, "kind", instructions=instructions, input=[{"type": "item_reference", "id": item_id}])
            await done_of(caller, "kind")
            assert brain.asked == [[Message("system", instructions), Message("user", "what is the time")]]

    run(main())


def test_its_failure_is_its_own_and_it_may_call_functions() -> None:
    async def main() -> None:
        brain = FakeBrain([[BrainUnavailable("gone")], [CallDelta(0, "f", "{}", "c")]])
        async with Stand(FakeEars([]), brain).call() as caller:
            ask(caller, "broken")
            broken = await done_of(caller, "broken")
            assert (broken["status"], broken["output"]) == ("failed", [])
            ask(caller, "call", tools=[{"type": "function", "name": "f"}], tool_choice="required")
            call = await done_of(caller, "call")
            assert call["output"][0]["call_id"] == "c"
            assert brain.offered[1] is not None
            assert brain.offered[1].choice == "required"
            assert caller.context == []
            assert not caller.transport.events("conversation.item.added")

    run(main())


def test_without_instructions_there_are_none() -> None:
    async def main() -> None:
        brain = FakeBrain([["Hm."]])
        async with Stand(FakeEars([]), brain).call(instructions="") as caller:
            ask(caller, "bare", input=[])
            await done_of(caller, "bare")
            assert brain.asked == [[]]
            await caller.speak(room_noise(0.1))

    run(main())
