"""Calls of functions in a session: spoken words first, the call after them, its output in the next reply's context."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import BrainUnavailable
from relay.events import CallDelta, Message, ReplyEnd, Tool, ToolCall, ToolOffer
from tests.fakes import FakeBrain, FakeEars
from tests.test_session import Caller, Stand, kinds, room_noise, voiced
from tests.virtual_time import run

TOOL = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}
CALL = [CallDelta(0, "look_up", '{"city":', "call_1"), CallDelta(0, "look_up", '"Bern"}', "call_1")]


def answer(caller: Caller, call_id: str, output: str) -> None:
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    caller.transport.push(type="conversation.item.create", item=item)
    caller.transport.push(type="response.create")


def test_words_a_call_its_output_and_the_answer() -> None:
    async def main() -> None:
        brain = FakeBrain(
            [["One ", "moment.", 0.1, *CALL, ReplyEnd(input_tokens=40, output_tokens=9)], ["It is sunny."]]
        )
        stand = Stand(FakeEars(["what is the weather in bern"]), brain)
        async with stand.call(tools=[TOOL], tool_choice="auto") as caller:
            await caller.say_one_turn()
            first = await caller.done(1)
            assert first["status"] == "completed"
            message, call = first["output"]
            assert message["content"][0]["transcript"] == "One moment."
            assert (call["name"], call["arguments"], call["call_id"]) == ("look_up", '{"city":"Bern"}', "call_1")
            order = kinds(caller)
            assert order.index("response.output_audio.done") < order.index("response.function_call_arguments.delta")
            assert order[-4:] == [
                "response.function_call_arguments.done",
                "conversation.item.done",
                "response.output_item.done",
                "response.done",
            ]
            usage = first["usage"]
            assert (usage["input_token_details"]["text_tokens"], usage["output_token_details"]["text_tokens"]) == (
                40,
                9,
            )
            assert usage["output_token_details"]["audio_tokens"] == 10, "two words of 250 ms, 50 ms a token"
            assert 10 <= usage["input_token_details"]["audio_tokens"] <= 20
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            answer(caller, "call_1", "sunny")
            second = await caller.done(2)
            assert second["output"][0]["content"][0]["transcript"] == "It is sunny."
            offer = ToolOffer((Tool("look_up", None, {"type": "object"}),))
            assert brain.offered == [offer, offer]
            assert brain.asked[1][1:] == [
                Message("user", "what is the weather in bern"),
                Message("assistant", "One moment."),
                Message("assistant", "", calls=(ToolCall("call_1", "look_up", '{"city":"Bern"}'),)),
                Message("tool", "sunny", call_id="call_1"),
            ]

    run(main())


def test_a_reply_of_calls_alone_is_a_reply() -> None:
    async def main() -> None:
        brain = FakeBrain([[CallDelta(0, "look_up", "{}", "a"), CallDelta(1, "look_up", "[", "b"), ReplyEnd("length")]])
        async with Stand(FakeEars(["hello"]), brain).call(tools=[TOOL]) as caller:
            await caller.say_one_turn()
            done = await caller.done()
            assert (done["status"], done["status_details"]["reason"]) == ("incomplete", "max_output_tokens")
            assert [(item["call_id"], item["status"]) for item in done["output"]] == [
                ("a", "completed"),
                ("b", "incomplete"),
            ]
            assert not caller.transport.events("response.output_audio.delta")

    run(main())


def test_speech_cuts_off_a_call_that_is_being_made() -> None:
    async def main() -> None:
        brain = FakeBrain([["Well ", CALL[0], 60.0, CALL[1]], ["Stopped."]])
        async with Stand(FakeEars(["hello", "stop"]), brain).call(tools=[TOOL]) as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("response.function_call_arguments.delta")
            await caller.say_one_turn()
            done = await caller.done(1)
            assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
            assert [(item["type"], item["status"]) for item in done["output"]] == [
                ("message", "completed"),
                ("function_call", "incomplete"),
            ]
            assert (await caller.done(2))["status"] == "completed"
            assert brain.asked[1][1:] == [
                Message("user", "hello"),
                Message("assistant", "Well"),
                Message("user", "stop"),
            ]

    run(main())


def test_speech_that_cuts_off_the_answer_leaves_the_words_before_the_call_heard() -> None:
    async def main() -> None:
        brain = FakeBrain(
            [["one two three four five six seven eight ", *CALL], [f"w{n} " for n in range(40)], ["Yes."]]
        )
        async with Stand(FakeEars(["hello", "stop"]), brain).call(tools=[TOOL]) as caller:
            await caller.say_one_turn()
            await caller.done(1)  # two seconds of speech were sent ahead of their playback
            answer(caller, "call_1", "sunny")
            await caller.transport.wait_for("response.output_audio_transcript.delta", 9)
            await caller.speak(voiced(0.4), room_noise(0.8))
            await caller.done(3)
            heard = brain.asked[2][2].text.split()
            assert 1 <= len(heard) <= 5, "the rest of the eight words was flushed with the answer"

    run(main())


def test_a_brain_that_fails_while_it_calls_is_apologised_for() -> None:
    async def main() -> None:
        brain = FakeBrain([[CALL[0], BrainUnavailable("gone")], ["Fine.", CALL[0], BrainUnavailable("gone")]])
        async with Stand(FakeEars(["hello", "again"]), brain).call(tools=[TOOL]) as caller:
            await caller.say_one_turn()
            done = await caller.done(1)
            assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "brain_unavailable")
            assert [item["type"] for item in done["output"]] == ["function_call", "message"]
            assert done["output"][1]["content"][0]["transcript"].startswith("Sorry")
            await caller.speak(room_noise(4.0))
            await caller.say_one_turn()
            done = await caller.done(2)
            assert done["status"] == "failed"
            assert [item["type"] for item in done["output"]] == ["message", "function_call"]
            assert done["output"][0]["content"][0]["transcript"] == "Fine."

    run(main())


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (ReplyEnd(), "completed", None),
        (ReplyEnd("length"), "incomplete", "max_output_tokens"),
        (ReplyEnd("content_filter"), "incomplete", "content_filter"),
    ],
)
def test_how_the_brain_ended_is_how_the_response_ends(end: ReplyEnd, status: str, reason: str | None) -> None:
    async def main() -> None:
        async with Stand(FakeEars([]), FakeBrain([["Fine  so\nfar ", end]])).call(output_modalities=["text"]) as caller:
            caller.transport.push(type="response.create")
            done = await caller.done()
            assert done["status"] == status
            assert (done["status_details"] or {}).get("reason") == reason
            assert done["output"][0]["content"][0]["text"] == "Fine  so\nfar ", "text is not taken apart like speech"

    run(main())


def test_a_conversation_that_was_is_continued() -> None:
    async def main() -> None:
        brain = FakeBrain([["Again sunny."]])
        async with Stand(FakeEars([]), brain).call(output_modalities=["text"]) as caller:
            items: list[dict[str, Any]] = [
                {"type": "function_call", "name": "look_up", "arguments": "{}", "call_id": "c", "id": "call"},
                {"type": "function_call_output", "call_id": "c", "output": "sunny", "id": "output"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            ]
            for item, place in zip(items, (None, "call", "root"), strict=True):
                caller.transport.push(type="conversation.item.create", item=item, previous_item_id=place)
            caller.transport.push(type="response.create")
            await caller.done()
            assert [message.role for message in brain.asked[0]] == ["system", "user", "assistant", "tool"]

    run(main())
