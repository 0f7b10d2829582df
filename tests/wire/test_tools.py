"""Functions: how they are offered, how calls of them are told, and what a language model sees of both."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events import CallDelta, Message, Tool, ToolCall, ToolOffer
from relay.wire.commands import ResponseParams
from relay.wire.realtime import RealtimeProtocol
from relay.wire.types import FunctionCallItem
from tests.wire.protocol_talk import NewProtocol, SdkParse, send

LOOK_UP = {
    "type": "function",
    "name": "look_up",
    "description": "Looks a city up.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
RING = {"type": "function", "name": "ring"}


def events(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> list[dict[str, Any]]:
    frames = [str(frame) for frame in protocol.outgoing()]
    for frame in frames:
        sdk_parse(frame)
    return [json.loads(frame) for frame in frames]


def offered(protocol: RealtimeProtocol, **settings: Any) -> ToolOffer | None:
    """What the language model is offered for a response with these settings."""
    (command,) = send(protocol, type="response.create", response=settings)
    response = protocol.begin_response(command.params)
    response.finish()
    return response.basis().tools


def test_tools_of_the_session_and_of_a_response(protocol: RealtimeProtocol) -> None:
    assert offered(protocol) is None
    send(protocol, type="session.update", session={"tools": [LOOK_UP, RING]})
    look_up, ring = Tool("look_up", "Looks a city up.", LOOK_UP["parameters"]), Tool("ring")  # type: ignore[arg-type]
    assert offered(protocol) == ToolOffer((look_up, ring))
    assert offered(protocol, tool_choice="required") == ToolOffer((look_up, ring), "required")
    assert offered(protocol, tool_choice={"type": "function", "name": "ring"}) == ToolOffer(
        (look_up, ring), only="ring"
    )
    assert offered(protocol, tools=[RING], parallel_tool_calls=False) == ToolOffer((ring,), parallel=False)
    assert offered(protocol, tools=[]) is None
    session = {"tool_choice": {"type": "function", "name": "look_up"}}
    send(protocol, type="session.update", session=session)
    assert offered(protocol) == ToolOffer((look_up, ring), only="look_up")
    assert offered(protocol, tools=[RING]) == ToolOffer((ring,)), "what the session asks for is not among these"


@pytest.mark.parametrize(
    ("settings", "code", "param"),
    [
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "unsupported_value", "response.tools[0].type"),
        ({"tools": [RING, RING]}, "invalid_value", "response.tools[1].name"),
        ({"tools": [{"type": "function", "name": ""}]}, "invalid_value", "response.tools[0].name"),
        ({"tools": [{**RING, "parameters": "x"}]}, "invalid_value", "response.tools[0].parameters"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "invalid_value", "response.tool_choice.name"),
        ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "response.tool_choice.name"),
        ({"tool_choice": "sometimes"}, "invalid_type", "response.tool_choice"),
        ({"prompt": {"id": "p"}}, "unsupported_value", "response.prompt"),
    ],
)
def test_an_offer_that_cannot_be_followed_is_refused(
    protocol: RealtimeProtocol, sdk_parse: SdkParse, settings: dict[str, Any], code: str, param: str
) -> None:
    assert send(protocol, type="response.create", event_id="e", response=settings) == []
    (event,) = events(protocol, sdk_parse)
    assert (event["error"]["param"], event["error"]["event_id"]) == (param, "e")
    assert event["error"]["code"] in (code, "invalid_value")


def test_words_and_two_calls_have_the_documented_order(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    response = protocol.begin_response()
    response.transcript("One moment.")
    response.audio(bytes(960), 0)
    response.call(CallDelta(0, "look_up", '{"city":', "call_a"))
    response.call(CallDelta(0, "look_up", '"Bern"}', "call_a"))
    response.call(CallDelta(1, "ring", "{}", "call_b"))
    response.transcript(" Too late.")
    response.finish()
    found = events(protocol, sdk_parse)
    call = [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    assert [event["type"] for event in found] == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        *call[:3],
        *call[2:],
        *call,
        "response.done",
    ]
    added = [event for event in found if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1, 2]
    assert (added[1]["item"]["status"], added[1]["item"]["arguments"]) == ("in_progress", "")
    done = found[-1]["response"]
    assert [item["type"] for item in done["output"]] == ["message", "function_call", "function_call"]
    assert done["output"][1]["arguments"] == '{"city":"Bern"}'
    assert {item["status"] for item in done["output"]} == {"completed"}
    output = {"type": "function_call_output", "call_id": "call_a", "output": "sunny"}
    send(protocol, type="conversation.item.create", item=output)
    assert protocol.conversation.messages() == [
        Message("assistant", "One moment."),
        Message("assistant", "", calls=(ToolCall("call_a", "look_up", '{"city":"Bern"}'),)),
        Message("assistant", "", calls=(ToolCall("call_b", "ring", "{}"),)),
        Message("tool", "sunny", call_id="call_a"),
    ]


def test_a_call_that_is_cut_off_is_told_and_forgotten(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    response = protocol.begin_response()
    response.call(CallDelta(0, "look_up", '{"ci'))
    events(protocol, sdk_parse)
    response.finish("cancelled", "turn_detected")
    found = events(protocol, sdk_parse)
    assert [event["type"] for event in found] == [
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert found[0]["arguments"] == '{"ci'
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"
    assert found[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert protocol.conversation.messages() == []
    response.call(CallDelta(0, "look_up", "more"))
    assert not protocol.has_outgoing


def test_words_that_are_truncated_while_a_call_is_made_leave_the_call_alone(
    protocol: RealtimeProtocol, sdk_parse: SdkParse
) -> None:
    response = protocol.begin_response()
    response.transcript("One moment")
    response.audio(bytes(48_000), 0)
    response.call(CallDelta(0, "ring", "{"))
    protocol.item_truncated(response.item_id, 500, "One")
    response.call(CallDelta(0, "ring", "}"))
    response.finish()
    done = events(protocol, sdk_parse)[-1]["response"]
    assert (done["status"], done["output"][1]["arguments"]) == ("completed", "{}")
    assert protocol.conversation.messages()[0] == Message("assistant", "One")


def test_what_a_brain_says_after_a_broken_call_follows_it(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    response = protocol.begin_response()
    response.call(CallDelta(0, "look_up", "{"))
    response.transcript("Sorry.")
    response.finish("failed", error=ValueError())
    done = events(protocol, sdk_parse)[-1]["response"]
    assert [(item["type"], item["status"]) for item in done["output"]] == [
        ("function_call", "incomplete"),
        ("message", "incomplete"),
    ]


def test_every_call_has_an_id_of_its_own(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    for given_id in ("call_0", "call_0", None, "x" * 1000):
        response = protocol.begin_response()
        response.call(CallDelta(0, "ring", "{}", given_id))
        response.finish()
    send(protocol, type="conversation.item.create", item={"type": "function_call", "name": "f", "arguments": "{}"})
    ids = [item.call_id for item in protocol.conversation.items if isinstance(item, FunctionCallItem)]
    assert ids[0] == "call_0"
    assert len(set(ids)) == 5
    assert all(isinstance(call_id, str) and len(call_id) <= 128 for call_id in ids)
    events(protocol, sdk_parse)


@given(pieces=st.lists(st.tuples(st.integers(0, 3), st.text(max_size=5)), max_size=12))
def test_the_deltas_of_a_call_are_its_arguments(pieces: list[tuple[int, str]], new_protocol: NewProtocol) -> None:
    protocol = new_protocol()
    response = protocol.begin_response(ResponseParams(conversation="none"))
    for index, arguments in sorted(pieces, key=lambda piece: piece[0]):
        response.call(CallDelta(index, "f", arguments))
    response.finish()
    told: dict[str, str] = {}
    for frame in protocol.outgoing():
        event = json.loads(frame)
        if event["type"] == "response.function_call_arguments.delta":
            told[event["item_id"]] = told.get(event["item_id"], "") + event["delta"]
        elif event["type"] == "response.function_call_arguments.done":
            assert event["arguments"] == told.get(event["item_id"], "")
        elif event["type"] == "response.done":
            whole = {index: "".join(text for at, text in pieces if at == index) for index, _ in sorted(pieces)}
            assert [item["arguments"] for item in event["response"]["output"]] == list(whole.values())
