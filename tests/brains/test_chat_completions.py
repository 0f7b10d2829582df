"""The dialect of chat completions: conversations in a form that templates take, calls in the order that was meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.brains.chat_completions import CallOrder, Function, ToolCallPart, chat_messages, tool_fields
from relay.events import CallDelta, Message, Tool, ToolCall, ToolOffer


def test_conversations_fit_any_template() -> None:
    messages = [
        Message("assistant", "Hello."),
        Message("system", "One."),
        Message("user", "Weather?"),
        Message("tool", "rain"),
        Message("system", "Two."),
        Message("assistant", "It"),
    ]
    assert chat_messages(messages, "", "instruct") == [
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "user", "content": "(Begin the conversation.)"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Weather?\n(Result of a tool: rain)"},
        {"role": "assistant", "content": "It"},
        {"role": "user", "content": "(Go on.)"},
    ]
    assert chat_messages(messages, "rains", "prefill")[-1] == {"role": "assistant", "content": "It\nrains"}
    assert chat_messages(messages, "rains", "instruct")[-1]["role"] == "user"
    assert chat_messages([], "", "instruct") == [{"role": "user", "content": "(Begin the conversation.)"}]


USER = Message("user", "?")


def calling(*names: str) -> Message:
    return Message("assistant", "", calls=tuple(ToolCall(name, "look_up", "{}") for name in names))


def roles(messages: list[dict[str, Any]]) -> list[str]:
    """Roles in order; of an assistant the calls it makes, of a tool the call that it answers."""
    shown = {
        "assistant": lambda m: "assistant" + "".join(f" {call['id']}" for call in m.get("tool_calls", ())),
        "tool": lambda m: f"tool {m['tool_call_id']}",
        "user": lambda m: "user",
    }
    return [shown[message["role"]](message) for message in messages]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [
                Message("user", "?"),
                Message("assistant", "Hm."),
                calling("a"),
                calling("b"),
                Message("tool", "1", call_id="b"),
            ],
            ["user", "assistant a b", "tool a", "tool b"],
        ),
        (
            [
                Message("user", "?"),
                calling("a"),
                Message("tool", "1", call_id="a"),
                calling("b"),
                Message("assistant", "So."),
            ],
            ["user", "assistant a", "tool a", "assistant b", "tool b", "assistant", "user"],
        ),
        (
            [calling("a"), Message("user", "Hurry"), Message("assistant", "Yes."), Message("tool", "1", call_id="a")],
            ["user", "assistant a", "tool a", "user", "assistant", "user"],
        ),
        ([USER, Message("tool", "1", call_id="z")], ["user"]),
    ],
)
def test_results_stand_with_their_calls(messages: list[Message], expected: list[str]) -> None:
    assert roles(chat_messages(messages, "", "instruct")) == expected


def test_what_calls_and_results_look_like() -> None:
    broken = Message("assistant", "", calls=(ToolCall("a", "look_up", '{"ci'), ToolCall("b", "ring", '{"n":1}')))
    results = [Message("tool", "no", call_id="b"), Message("tool", "yes", call_id="b")]
    assert chat_messages([Message("user", "?"), broken, *results], "", "instruct")[1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "ring", "arguments": '{"n":1}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "(There is no result yet.)"},
        {"role": "tool", "tool_call_id": "b", "content": "no\nyes"},
    ]


MESSAGES = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["x", "y z"])),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True).map(lambda names: calling(*names)),
        st.sampled_from("abcd").map(lambda name: Message("tool", "1", call_id=name)),
    ),
    max_size=12,
)


@given(MESSAGES, st.sampled_from(["", "Well"]), st.sampled_from(["instruct", "prefill"]))
def test_any_conversation_is_well_formed(messages: list[Message], prefix: str, continuation: Any) -> None:
    made = chat_messages(messages, prefix, continuation)
    assert all(message["role"] != "system" for message in made[1:])
    turns = made[1:] if made[0]["role"] == "system" else made
    assert turns[0]["role"] == "user"
    open_calls: list[str] = []
    for before, message in zip([None, *turns], turns, strict=False):
        if message["role"] == "tool":
            assert open_calls.pop(0) == message["tool_call_id"]
            continue
        assert not open_calls, "every call is answered before anything else is said"
        if before is not None and before["role"] == message["role"]:
            assert "tool_calls" in message
        open_calls = [call["id"] for call in message.get("tool_calls", ())]
        assert all(json.loads(call["function"]["arguments"]) == {} for call in message.get("tool_calls", ()))
    assert not open_calls
    assert turns[-1]["role"] != "assistant" or (prefix and continuation == "prefill")


@pytest.mark.parametrize(
    ("offer", "fields"),
    [
        (None, {}),
        (ToolOffer((Tool("f"),)), {}),
        (ToolOffer((Tool("f"),), "none"), {"tool_choice": "none"}),
        (ToolOffer((Tool("f"),), "required", parallel=True), {"tool_choice": "required", "parallel_tool_calls": True}),
        (ToolOffer((Tool("f"),), only="f"), {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ],
)
def test_what_is_offered(offer: ToolOffer | None, fields: dict[str, Any]) -> None:
    found = tool_fields(offer)
    tools = found.pop("tools", [])
    assert found == fields
    assert bool(tools) == (offer is not None)
    for tool in tools:
        parameters = {"type": "object", "properties": {}}
        assert tool == {"type": "function", "function": {"name": "f", "parameters": parameters}}


def test_a_tool_with_everything() -> None:
    (tool,) = tool_fields(ToolOffer((Tool("f", "Does it.", {"type": "object", "required": ["x"]}),)))["tools"]
    parameters = {"type": "object", "required": ["x"]}
    assert tool["function"] == {"name": "f", "description": "Does it.", "parameters": parameters}


# Calls as servers send them: each as pieces, the first of which has its name; those of several calls may be mixed.


def piece(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> ToolCallPart:
    return ToolCallPart(index, call_id, Function(name, arguments))


@given(st.lists(st.text('{}":1a', max_size=8), min_size=1, max_size=4), st.data())
def test_any_mixture_of_pieces_gives_whole_calls_in_order(arguments: list[str], data: st.DataObject) -> None:
    waiting = [[*text] for text in arguments]
    order, told = CallOrder(), []
    for index in range(len(arguments)):
        told += order.push([piece(index, f"id{index}", f"f{index}", "")])
    while any(waiting):
        index = data.draw(st.sampled_from([n for n, rest in enumerate(waiting) if rest]))
        told += order.push([piece(index, None, None, waiting[index].pop(0))])
    told += order.end()
    assert [delta.index for delta in told] == sorted(delta.index for delta in told)
    for index, text in enumerate(arguments):
        mine = [delta for delta in told if delta.index == index]
        assert "".join(delta.arguments for delta in mine) == (text or "{}")
        assert {(delta.name, delta.call_id) for delta in mine} == {(f"f{index}", f"id{index}")}


def test_servers_with_habits_of_their_own() -> None:
    order = CallOrder()
    # Every call is number 0, and only the id tells them apart.
    assert order.push([piece(0, "a", "f", "{}")]) == [CallDelta(0, "f", "{}", "a")]
    assert order.push([piece(0, "b", "g", "{}")]) == []
    assert order.end() == [CallDelta(1, "g", "{}", "b")]
    # No numbers and no ids: the place in the list counts.
    order = CallOrder()
    told = order.push([piece(None, None, "f", "{}"), piece(None, "", "g", None)])
    assert [*told, *order.end()] == [CallDelta(0, "f", "{}"), CallDelta(1, "g", "{}")]
    # A name that comes late, and a call without one.
    order = CallOrder()
    assert order.push([piece(0, "a", None, "{"), ToolCallPart(1, "b")]) == []
    assert order.push([piece(0, None, "f", "}")]) == [CallDelta(0, "f", "{}", "a")]
    assert order.end() == []
