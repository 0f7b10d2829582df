"""Responses: how one is asked for, in which order its events come, how it ends."""

import json

import pytest

from relay.errors import BrainUnavailable, UsageError
from relay.events import Message, Tool, ToolCall, ToolOffer
from relay.wire.commands import CancelRequested, ResponseParams, ResponseRequested, Usage
from relay.wire.realtime import RealtimeProtocol
from tests.wire.protocol_talk import SdkParse, events, send, text_item, the_error

# Order of events


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


# Asking for one


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
