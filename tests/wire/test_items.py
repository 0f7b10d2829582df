"""Items of the conversation: where they stand, which are refused, and how little of speech was heard."""

import base64
from typing import Any

import pytest

from relay.events import Message, ToolCall
from relay.wire.commands import TruncateRequested
from relay.wire.realtime import RealtimeProtocol, Response
from tests.wire.protocol_talk import NewProtocol, SdkParse, events, send, text_item, the_error


def order(protocol: RealtimeProtocol) -> list[Any]:
    return [item.id for item in protocol.conversation.items]


def spoken(protocol: RealtimeProtocol, text: str = "Hello there", audio_ms: int = 1000) -> Response:
    """A finished spoken reply in the conversation, its events drained."""
    response = protocol.begin_response()
    response.transcript(text)
    response.audio(bytes(48 * audio_ms), 0)
    response.finish()
    protocol.outgoing()
    return response


# Items


def test_items_take_their_places(protocol: RealtimeProtocol) -> None:
    def create(item_id: str, **place: str) -> Any:
        assert send(protocol, type="conversation.item.create", item=text_item(item_id, id=item_id), **place) == []
        added, done = events(protocol)
        assert (added["type"], done["type"]) == ("conversation.item.added", "conversation.item.done")
        assert added["item"] == done["item"]
        assert added["item"]["status"] == "completed"
        return added["previous_item_id"]

    assert create("b") is None
    assert create("d") == "b"
    assert create("a", previous_item_id="root") is None
    assert create("c", previous_item_id="b") == "b"
    assert order(protocol) == ["a", "b", "c", "d"]


def test_items_of_all_kinds_are_kept_and_shown(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    speech = base64.b64encode(bytes(8)).decode()
    items = [
        text_item("Be brief.", "system"),
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look:"},
                {"type": "input_audio", "audio": speech, "transcript": "a bird"},
            ],
        },
        text_item("I see.", "assistant"),
        {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "Nice."}]},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]
    for item in items:
        send(protocol, type="conversation.item.create", item=item)
    frames = protocol.outgoing()
    assert len(frames) == 2 * len(items)
    for frame in frames:
        assert isinstance(frame, str)
        assert speech not in frame
        sdk_parse(frame)
    assert protocol.conversation.messages() == [
        Message("system", "Be brief."),
        Message("user", "Look: a bird"),
        Message("assistant", "I see."),
        Message("assistant", "Nice."),
        Message("assistant", "", calls=(ToolCall("c", "f", "{}"),)),
        Message("tool", "42", call_id="c"),
    ]


def test_items_are_retrieved_and_deleted(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    send(protocol, type="conversation.item.create", item=text_item("Hello", id="a"))
    protocol.outgoing()
    send(protocol, type="conversation.item.retrieve", item_id="a")
    send(protocol, type="conversation.item.delete", item_id="a")
    retrieved, deleted = protocol.outgoing()
    assert isinstance(retrieved, str)
    assert isinstance(deleted, str)
    assert sdk_parse(retrieved).item.content[0].text == "Hello"
    assert sdk_parse(deleted).item_id == "a"
    assert len(protocol.conversation) == 0
    for kind, fields in {"retrieve": {}, "delete": {}, "truncate": {"content_index": 0, "audio_end_ms": 0}}.items():
        send(protocol, type=f"conversation.item.{kind}", item_id="a", event_id="e", **fields)
        error = the_error(protocol)
        code = f"item_{kind}_invalid_item_id"
        assert (error["code"], error["param"], error["event_id"]) == (code, "item_id", "e")


@pytest.mark.parametrize(
    ("item", "place", "code", "param"),
    [
        (text_item("again", id="taken"), {}, "duplicate_item_id", "item.id"),
        (text_item("where?"), {"previous_item_id": "nobody"}, "item_not_found", "previous_item_id"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            {},
            "unsupported_content",
            "item.content[0].type",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "AAA="}]},
            {},
            "unsupported_content",
            "item.content[0].transcript",
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "input_text", "text": "x"}]},
            {},
            "invalid_value",
            "item.content[0].type",
        ),
    ],
)
def test_items_that_do_not_fit_are_refused(
    protocol: RealtimeProtocol, item: dict[str, Any], place: dict[str, str], code: str, param: str
) -> None:
    send(protocol, type="conversation.item.create", item=text_item("first", id="taken"))
    protocol.outgoing()
    assert send(protocol, type="conversation.item.create", item=item, event_id="e", **place) == []
    error = the_error(protocol)
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "e")
    assert order(protocol) == ["taken"]


def test_a_full_conversation_refuses_the_client_but_not_the_caller(new_protocol: NewProtocol) -> None:
    protocol = new_protocol(max_items=2)
    for _ in range(2):
        send(protocol, type="conversation.item.create", item=text_item("x"))
    protocol.outgoing()
    for event in ({"type": "conversation.item.create", "item": text_item("x")}, {"type": "response.create"}):
        assert send(protocol, **event) == []
        assert the_error(protocol)["code"] == "conversation_full"
    assert send(protocol, type="input_audio_buffer.commit") == []
    assert the_error(protocol)["code"] == "conversation_full"
    protocol.input_committed()
    assert len(protocol.conversation) == 3


def test_a_client_cannot_take_the_id_of_speech_under_way(protocol: RealtimeProtocol) -> None:
    announced = protocol.speech_started(0)
    send(protocol, type="conversation.item.create", item=text_item("mine", id=announced))
    committed = protocol.input_committed(announced)
    assert committed != announced
    assert order(protocol) == [announced, committed]


def test_an_item_under_way_is_neither_deleted_nor_in_the_context(protocol: RealtimeProtocol) -> None:
    response = protocol.begin_response()
    response.transcript("Well")
    protocol.outgoing()
    send(protocol, type="conversation.item.delete", item_id=response.item_id)
    assert the_error(protocol)["code"] == "item_in_progress"
    assert protocol.conversation.messages() == []
    response.finish()
    assert protocol.conversation.messages() == [Message("assistant", "Well")]


# What was heard


def test_truncation_leaves_what_was_heard(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    response = spoken(protocol, "Hello there", audio_ms=1000)
    asked = {"type": "conversation.item.truncate", "item_id": response.item_id, "content_index": 0}
    assert send(protocol, **asked, audio_end_ms=400, event_id="e") == [TruncateRequested(response.item_id, 400, "e")]
    protocol.item_truncated(response.item_id, 400, "Hello")
    (frame,) = protocol.outgoing()
    assert isinstance(frame, str)
    assert sdk_parse(frame).audio_end_ms == 400
    assert protocol.conversation.messages() == [Message("assistant", "Hello")]


def test_what_was_heard_is_kept_without_an_event(protocol: RealtimeProtocol) -> None:
    response = spoken(protocol)
    assert protocol.set_heard(response.item_id, "Hello")
    assert not protocol.has_outgoing
    assert protocol.conversation.messages() == [Message("assistant", "Hello")]


def test_nothing_heard_is_nothing_said(protocol: RealtimeProtocol) -> None:
    response = spoken(protocol)
    protocol.set_heard(response.item_id, "")
    assert protocol.conversation.messages() == []


def test_truncation_under_way_ends_the_output(protocol: RealtimeProtocol) -> None:
    response = protocol.begin_response()
    response.transcript("Hello there")
    response.audio(bytes(4800), 0)
    protocol.outgoing()
    protocol.item_truncated(response.item_id, 50, "Hello")
    response.audio(bytes(4800), 2400)
    response.transcript(" again")
    response.finish()
    found = events(protocol)
    assert found[0]["type"] == "conversation.item.truncated"
    assert "response.output_audio.delta" not in [event["type"] for event in found]
    by_type = {event["type"]: event for event in found}
    assert by_type["response.output_audio_transcript.done"]["transcript"] == "Hello there"
    assert by_type["conversation.item.done"]["item"]["content"][0]["transcript"] == "Hello"
    assert by_type["response.done"]["response"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"audio_end_ms": 1001}, "audio_end_ms"),
        ({"content_index": 1}, "content_index"),
        ({"item_id": "user"}, "item_id"),
        ({"item_id": "written"}, "content_index"),
        ({"item_id": "nobody"}, "item_id"),
    ],
)
def test_only_speech_of_the_assistant_is_truncated(
    protocol: RealtimeProtocol, change: dict[str, Any], param: str
) -> None:
    response = spoken(protocol, audio_ms=1000)
    send(protocol, type="conversation.item.create", item=text_item("x", id="user"))
    send(protocol, type="conversation.item.create", item=text_item("x", "assistant", id="written"))
    protocol.outgoing()
    asked = {"item_id": response.item_id, "content_index": 0, "audio_end_ms": 0, **change}
    assert send(protocol, type="conversation.item.truncate", **asked) == []
    assert the_error(protocol)["param"] == param


def test_an_item_deleted_meanwhile_is_let_go(protocol: RealtimeProtocol) -> None:
    response = spoken(protocol)
    send(protocol, type="conversation.item.delete", item_id=response.item_id)
    protocol.outgoing()
    protocol.item_truncated(response.item_id, 10, "Hello")
    protocol.transcription_completed("gone", "text", 1.0)
    assert not protocol.has_outgoing
