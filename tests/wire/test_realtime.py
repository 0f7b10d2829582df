"""The protocol of one connection: what it answers, what it asks of the session, and in which order its events come."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import BadEvent, BrainUnavailable, StageFailed, UsageError
from relay.events import Message, Tool, ToolCall, ToolOffer
from relay.wire.binary import AudioFrame, decode_audio
from relay.wire.commands import (
    AudioAppended,
    CancelRequested,
    CommitRequested,
    InputCleared,
    OutputCleared,
    PlaybackReported,
    ResponseParams,
    ResponseRequested,
    SessionChanged,
    TruncateRequested,
    Usage,
)
from relay.wire.config import SessionConfig
from relay.wire.realtime import RealtimeProtocol, Response

NewProtocol = Callable[..., RealtimeProtocol]
SdkParse = Callable[[str], Any]


@pytest.fixture
def protocol(new_protocol: NewProtocol) -> RealtimeProtocol:
    return new_protocol()


def send(protocol: RealtimeProtocol, **event: Any) -> list[Any]:
    return protocol.receive(json.dumps(event))


def events(protocol: RealtimeProtocol) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in protocol.outgoing() if isinstance(frame, str)]


def kinds(protocol: RealtimeProtocol) -> list[str]:
    return [event["type"] for event in events(protocol)]


def the_error(protocol: RealtimeProtocol) -> dict[str, Any]:
    (event,) = events(protocol)
    assert event["type"] == "error"
    return dict(event["error"])


def text_item(text: str, role: str = "user", **fields: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **fields}


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


# Order of events


def test_the_greeting(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    protocol.open()
    frames = protocol.outgoing()
    assert [json.loads(frame)["type"] for frame in frames] == ["session.created", "conversation.created"]
    for frame in frames:
        assert isinstance(frame, str)
        sdk_parse(frame)
    assert not protocol.has_outgoing


def test_a_spoken_turn_has_the_documented_order(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    send(protocol, type="session.update", session={"audio": {"input": {"transcription": {}}}})
    protocol.outgoing()
    item_id = protocol.speech_started(100)
    protocol.speech_stopped(1900, item_id)
    assert protocol.input_committed(item_id) == item_id
    protocol.transcription_delta(item_id, "What time ")
    protocol.transcription_completed(item_id, "What time is it?", 1.8)
    response = protocol.begin_response()
    response.transcript("It is ")
    response.audio(bytes(960), 0)
    response.transcript("noon.")
    response.audio(bytes(960), 480)
    response.finish(usage=Usage(input_audio_tokens=18, output_text_tokens=4))
    frames = protocol.outgoing()
    for frame in frames:
        assert isinstance(frame, str)
        sdk_parse(frame)
    assert [json.loads(frame)["type"] for frame in frames] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    done = json.loads(frames[-1])["response"]
    assert done["status"] == "completed"
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "It is noon."}]
    assert done["usage"]["total_tokens"] == 22
    assert protocol.conversation.messages() == [
        Message("user", "What time is it?"),
        Message("assistant", "It is noon."),
    ]


def test_a_written_reply_has_the_documented_order(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    response = protocol.begin_response(ResponseParams(output_modalities=("text",)))
    response.transcript("No")
    response.transcript("on.")
    with pytest.raises(UsageError):
        response.audio(bytes(2), 0)
    response.finish()
    frames = protocol.outgoing()
    for frame in frames:
        assert isinstance(frame, str)
        sdk_parse(frame)
    assert [json.loads(frame)["type"] for frame in frames] == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]


def test_a_reply_out_of_band_stays_out_of_the_conversation(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    response = protocol.begin_response(ResponseParams(conversation="none", metadata={"topic": "mood"}))
    response.transcript("Calm.")
    response.finish()
    frames = [json.loads(frame) for frame in protocol.outgoing() if sdk_parse(str(frame))]
    assert not [frame for frame in frames if frame["type"].startswith("conversation.")]
    assert frames[-1]["response"]["conversation_id"] is None
    assert frames[-1]["response"]["metadata"] == {"topic": "mood"}
    assert len(protocol.conversation) == 0


def test_a_reply_without_a_word_still_ends(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    protocol.begin_response().finish("failed", error=BrainUnavailable("the model server does not answer"))
    created, limits, done = map(str, protocol.outgoing())
    sdk_parse(created)
    assert sdk_parse(limits).rate_limits == []
    response = sdk_parse(done).response
    assert response.output == []
    assert response.status_details.error.code == "brain_unavailable"
    assert response.status_details.error.message == "the model server does not answer"
    assert response.usage.total_tokens == 0


# The end of a response


def test_a_response_ends_once_and_nothing_leaves_it_afterwards(protocol: RealtimeProtocol) -> None:
    response = protocol.begin_response()
    response.transcript("Well")
    response.finish("cancelled", reason="turn_detected")
    assert protocol.response is None
    protocol.outgoing()
    response.finish()
    response.transcript("more")
    response.audio(bytes(960), 0)
    response.words([("more", 0, 480)])
    assert not protocol.has_outgoing


def test_a_cancelled_response_is_silent_at_once_and_cannot_complete(protocol: RealtimeProtocol) -> None:
    response = protocol.begin_response()
    response.transcript("Well")
    protocol.outgoing()
    assert send(protocol, type="response.cancel", event_id="e") == [CancelRequested(response.id, "e")]
    response.audio(bytes(960), 0)
    assert not protocol.has_outgoing
    assert send(protocol, type="response.cancel") == []
    assert the_error(protocol)["code"] == "response_cancel_not_active"
    response.finish()
    done = events(protocol)[-1]["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done["output"][0]["status"] == "incomplete"


def test_what_a_mistake_of_the_server_says_stays_inside(protocol: RealtimeProtocol) -> None:
    protocol.begin_response().finish(error=ZeroDivisionError("secret"))
    done = events(protocol)[-1]["response"]
    assert done["status"] == "failed"
    assert done["status_details"]["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(done)


def test_one_response_at_a_time(protocol: RealtimeProtocol) -> None:
    response = protocol.begin_response()
    protocol.outgoing()
    assert send(protocol, type="response.create", event_id="e") == []
    error = the_error(protocol)
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "e")
    with pytest.raises(UsageError):
        protocol.begin_response()
    response.finish()
    assert len(send(protocol, type="response.create")) == 1


@pytest.mark.parametrize("response_id", [None, "resp_x"])
def test_there_must_be_something_to_cancel(protocol: RealtimeProtocol, response_id: str | None) -> None:
    if response_id is not None:
        protocol.begin_response()
        protocol.outgoing()
    assert send(protocol, type="response.cancel", response_id=response_id) == []
    assert the_error(protocol)["code"] == "response_cancel_not_active"


# Commands


def test_commands_of_the_input_buffer(protocol: RealtimeProtocol) -> None:
    audio = bytes(range(20))
    encoded = base64.b64encode(audio).decode()
    assert send(protocol, type="input_audio_buffer.append", audio=encoded) == [AudioAppended(audio)]
    assert send(protocol, type="input_audio_buffer.append", audio="") == []
    assert send(protocol, type="input_audio_buffer.commit", event_id="e") == [CommitRequested("e")]
    assert send(protocol, type="input_audio_buffer.clear") == [InputCleared()]
    assert send(protocol, type="output_audio_buffer.clear") == [OutputCleared()]
    assert send(protocol, type="relay.playback", response_id="r", played_samples=9) == [PlaybackReported("r", 9)]
    assert not protocol.has_outgoing


def test_half_samples_are_refused_in_pcm_and_do_not_exist_in_g711(protocol: RealtimeProtocol) -> None:
    odd = base64.b64encode(bytes(3)).decode()
    assert send(protocol, type="input_audio_buffer.append", audio=odd, event_id="e") == []
    error = the_error(protocol)
    assert (error["code"], error["param"], error["event_id"]) == ("invalid_audio", "audio", "e")
    (changed,) = send(protocol, type="session.update", session={"audio": {"input": {"format": {"type": "audio/pcma"}}}})
    assert isinstance(changed, SessionChanged)
    assert changed.changed == {"input_format"}
    assert changed.config is protocol.config
    assert send(protocol, type="input_audio_buffer.append", audio=odd) == [AudioAppended(bytes(3))]


def test_a_response_is_asked_for_with_all_its_parameters(protocol: RealtimeProtocol) -> None:
    send(protocol, type="conversation.item.create", item=text_item("Hello", id="msg_1"))
    protocol.outgoing()
    (command,) = send(
        protocol,
        type="response.create",
        event_id="e",
        response={
            "instructions": "Greet.",
            "output_modalities": ["audio"],
            "audio": {"output": {"voice": "v", "format": {"type": "audio/pcmu"}}},
            "conversation": "none",
            "input": [
                {"type": "item_reference", "id": "msg_1"},
                text_item("Hi", "assistant"),
                {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
                {"type": "function_call_output", "call_id": "c", "output": "42"},
            ],
            "metadata": {"a": "b"},
            "max_output_tokens": 9,
            "tools": [{"type": "function", "name": "f", "description": "Does it."}],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": False,
        },
    )
    assert isinstance(command, ResponseRequested)
    params = command.params
    assert command.event_id == "e"
    assert (params.instructions, params.output_modalities, params.conversation) == ("Greet.", ("audio",), "none")
    assert (params.metadata, params.max_output_tokens, params.voice) == ({"a": "b"}, 9, "v")
    assert not protocol.has_outgoing
    response = protocol.begin_response(params)
    assert response.output_format == "g711_ulaw"
    shown = events(protocol)[0]["response"]
    assert shown["audio"]["output"] == {"format": {"type": "audio/pcmu"}, "voice": "v"}
    assert shown["max_output_tokens"] == 9
    assert response.basis().max_tokens == 9
    assert response.basis().tools == ToolOffer((Tool("f", "Does it."),), only="f", parallel=False)
    assert response.context() == [
        Message("user", "Hello"),
        Message("assistant", "Hi"),
        Message("assistant", "", calls=(ToolCall("c", "f", "{}"),)),
        Message("tool", "42", call_id="c"),
    ]


def test_input_of_a_response_is_checked(protocol: RealtimeProtocol) -> None:
    reference = {"type": "item_reference", "id": "nobody"}
    assert send(protocol, type="response.create", response={"input": [reference]}) == []
    error = the_error(protocol)
    assert (error["code"], error["param"]) == ("item_not_found", "response.input[0].id")


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


# Who sees what


def test_transcription_is_kept_always_and_sent_if_asked_for(protocol: RealtimeProtocol) -> None:
    item_id = protocol.input_committed()
    protocol.outgoing()
    protocol.transcription_delta(item_id, "Hel")
    protocol.transcription_completed(item_id, "Hello", 1.0)
    protocol.transcription_failed(item_id, StageFailed("ears", "no ears"))
    assert not protocol.has_outgoing
    assert protocol.conversation.messages() == [Message("user", "Hello")]
    send(protocol, type="session.update", session={"audio": {"input": {"transcription": {}}}})
    protocol.outgoing()
    protocol.transcription_failed(item_id, StageFailed("ears", "no ears"))
    (event,) = events(protocol)
    assert event["error"] == {"type": "server_error", "code": "stage_failed", "message": "no ears", "param": None}


def test_strict_clients_see_nothing_of_relay(protocol: RealtimeProtocol) -> None:
    protocol.open()
    protocol.relay_partial("item_x", "a", "b")
    response = protocol.begin_response()
    response.words([("a", 0, 1)])
    response.metrics({"path": "cascade"})
    response.draft({"prefix": "a"})
    response.transcript("a")
    response.finish()
    assert "relay." not in "".join(kinds(protocol))


def test_relay_events_go_to_clients_that_ask(protocol: RealtimeProtocol) -> None:
    send(protocol, type="session.update", session={"relay": {"draft": False}})
    protocol.outgoing()
    protocol.relay_partial("item_x", "a", "b")
    response = protocol.begin_response()
    response.words([("a", 0, 1)])
    response.draft({"prefix": "a"})
    response.finish()
    response.metrics({"path": "cascade"})
    found = events(protocol)
    ours = [event for event in found if event["type"].startswith("relay.")]
    assert [event["type"] for event in ours] == ["relay.partial", "relay.words", "relay.metrics"]
    assert ours[1]["words"] == [{"word": "a", "start_sample": 0, "end_sample": 1}]
    assert found[1]["response"]["relay"] == {"index": 1}


# relay.v1


def test_binary_audio_both_ways(new_protocol: NewProtocol) -> None:
    protocol = new_protocol(subprotocol="relay.v1")
    assert protocol.receive(bytes(8)) == [AudioAppended(bytes(8))]
    assert protocol.receive(b"") == []
    assert protocol.receive(bytes(7)) == []
    assert the_error(protocol)["code"] == "invalid_audio"
    response = protocol.begin_response()
    response.audio(bytes(range(8)), 480)
    binary = [frame for frame in protocol.outgoing() if isinstance(frame, bytes)]
    assert [decode_audio(frame) for frame in binary] == [AudioFrame(1, 480, "pcm16", bytes(range(8)))]


def test_binary_frames_need_the_subprotocol(protocol: RealtimeProtocol) -> None:
    assert protocol.receive(bytes(8)) == []
    assert the_error(protocol)["code"] == "unexpected_binary"


@pytest.mark.parametrize("data", ["x" * 1001, bytes(1001)])
def test_events_have_a_largest_size(new_protocol: NewProtocol, data: str | bytes) -> None:
    protocol = new_protocol(subprotocol="relay.v1", max_event_bytes=1000)
    assert protocol.receive(data) == []
    assert the_error(protocol)["code"] == "frame_too_large"


# The rest


def test_the_servers_defaults_and_the_model(new_protocol: NewProtocol) -> None:
    protocol = new_protocol(model="m", config=SessionConfig(instructions="Be kind."))
    protocol.open()
    session = events(protocol)[0]["session"]
    assert (session["model"], session["instructions"]) == ("m", "Be kind.")


def test_plain_notices(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    item_id = protocol.new_item_id()
    protocol.input_cleared()
    protocol.output_cleared("resp_x")
    protocol.timeout_triggered(0, 5000, item_id)
    protocol.error(BadEvent("no", code="invalid_value", param="p", event_id="e"))
    for frame in protocol.outgoing():
        assert isinstance(frame, str)
        sdk_parse(frame)


def test_ids_are_unique_across_connections() -> None:
    first, second = RealtimeProtocol(), RealtimeProtocol()
    assert first.session_id != second.session_id
    assert first.new_item_id() != second.new_item_id()
