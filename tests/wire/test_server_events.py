"""Server events: every one is what OpenAI's SDK expects, and reads back as it was sent."""

import json
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from relay.wire import response_events as rs
from relay.wire import server_events as ev
from relay.wire import types as t
from relay.wire.config import SessionConfig
from relay.wire.session_object import to_wire

FORMAT = t.AudioFormat(type="audio/pcm", rate=24000)
ITEM = t.MessageItem(
    id="item_1",
    object="realtime.item",
    status="completed",
    role="assistant",
    content=[t.OutputAudio(transcript="Hello")],
)
CALL = t.FunctionCallItem(id="item_2", status="completed", name="look_up", arguments="{}", call_id="call_1")
RESPONSE = rs.ResponseObject(
    id="resp_1",
    status="failed",
    status_details=rs.StatusDetails(
        type="failed", error=rs.ResponseError(type="server_error", code="stage_failed", message="No voice")
    ),
    output=[ITEM, CALL],
    conversation_id="conv_1",
    output_modalities=["audio"],
    max_output_tokens="inf",
    audio=rs.ResponseAudioShown(output=rs.ResponseOutputShown(format=FORMAT, voice="relay")),
    usage=rs.UsageObject(
        total_tokens=3,
        input_tokens=1,
        output_tokens=2,
        input_token_details=rs.InputTokenDetails(text_tokens=1),
        output_token_details=rs.OutputTokenDetails(audio_tokens=2),
    ),
    metadata={"a": "b"},
)
SESSION = to_wire(SessionConfig(), "sess_1")
ERROR = ev.ErrorDetail(type="server_error", code="stage_failed", message="No ears", param=None, event_id="e")
ID: dict[str, Any] = {"event_id": "event_1"}
PART: dict[str, Any] = {
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 0,
    "content_index": 0,
}
CALL_OF: dict[str, Any] = {
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_2",
    "output_index": 1,
    "call_id": "call_1",
}

EVENTS: list[Any] = [
    ev.Error(error=ERROR, **ID),
    ev.SessionCreated(session=SESSION, **ID),
    ev.SessionUpdated(session=SESSION, **ID),
    ev.ConversationCreated(conversation=ev.ConversationObject(id="conv_1"), **ID),
    ev.ConversationItemAdded(previous_item_id=None, item=ITEM, **ID),
    ev.ConversationItemDone(previous_item_id="item_0", item=CALL, **ID),
    ev.ConversationItemRetrieved(item=ITEM, **ID),
    ev.ConversationItemTruncated(item_id="item_1", content_index=0, audio_end_ms=120, **ID),
    ev.ConversationItemDeleted(item_id="item_1", **ID),
    ev.TranscriptionDelta(item_id="item_1", content_index=0, delta="Hel", **ID),
    ev.TranscriptionCompleted(
        item_id="item_1", content_index=0, transcript="Hello", usage=ev.DurationUsage(seconds=1.5), **ID
    ),
    ev.TranscriptionFailed(
        item_id="item_1",
        content_index=0,
        error=ev.TranscriptionError(type="server_error", code="stage_failed", message="No ears"),
        **ID,
    ),
    ev.InputAudioBufferCommitted(previous_item_id=None, item_id="item_1", **ID),
    ev.InputAudioBufferCleared(**ID),
    ev.InputAudioBufferSpeechStarted(audio_start_ms=10, item_id="item_1", **ID),
    ev.InputAudioBufferSpeechStopped(audio_end_ms=20, item_id="item_1", **ID),
    ev.InputAudioBufferTimeoutTriggered(audio_start_ms=10, audio_end_ms=20, item_id="item_1", **ID),
    ev.OutputAudioBufferCleared(response_id="resp_1", **ID),
    ev.RateLimitsUpdated(rate_limits=[ev.RateLimit(name="tokens", limit=2, remaining=1, reset_seconds=0.5)], **ID),
    rs.ResponseCreated(response=RESPONSE, **ID),
    rs.ResponseDone(response=RESPONSE, **ID),
    rs.ResponseOutputItemAdded(response_id="resp_1", output_index=0, item=ITEM, **ID),
    rs.ResponseOutputItemDone(response_id="resp_1", output_index=0, item=ITEM, **ID),
    rs.ResponseContentPartAdded(part=rs.ShownPart(type="audio", transcript=""), **PART),
    rs.ResponseContentPartDone(part=rs.ShownPart(type="text", text="Hello"), **PART),
    rs.ResponseOutputAudioDelta(delta=bytes(range(8)), **PART),
    rs.ResponseOutputAudioDone(**PART),
    rs.ResponseOutputAudioTranscriptDelta(delta="Hel", **PART),
    rs.ResponseOutputAudioTranscriptDone(transcript="Hello", **PART),
    rs.ResponseOutputTextDelta(delta="Hel", **PART),
    rs.ResponseOutputTextDone(text="Hello", **PART),
    rs.ResponseFunctionCallArgumentsDelta(delta="{", **CALL_OF),
    rs.ResponseFunctionCallArgumentsDone(name="look_up", arguments="{}", **CALL_OF),
]
OURS: list[Any] = [
    ev.RelayPartial(item_id="item_1", stable="Hello", unstable="wor", **ID),
    rs.RelayWords(response_id="resp_1", item_id="item_1", words=[rs.SpokenWord("Hello", 0, 9600)], **ID),
    rs.RelayMetrics(response_id="resp_1", metrics={"path": "cascade", "stages_ms": {"ears": 12.5}}, **ID),
    rs.RelayDuck(response_id="resp_1", ducked=True, **ID),
    rs.RelayDraft(response_id="resp_1", draft={"prefix": "Well", "probability": 0.9, "committed": True}, **ID),
]
NOT_SENT = {
    "conversation.item.created",  # the name before GA
    "conversation.item.input_audio_transcription.segment",  # speaker labels
    "input_audio_buffer.dtmf_event_received",  # telephones
    "output_audio_buffer.started",  # WebRTC
    "output_audio_buffer.stopped",
    "mcp_list_tools.in_progress",  # remote tools
    "mcp_list_tools.completed",
    "mcp_list_tools.failed",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.mcp_call.in_progress",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
}


def kind(event: Any) -> str:
    return str(type(event).__struct_config__.tag)


@pytest.mark.parametrize("event", EVENTS, ids=kind)
def test_the_sdk_reads_every_event(event: Any, sdk_parse: Callable[[str], Any]) -> None:
    frame = ev.encode(event)
    theirs = json.loads(sdk_parse(frame).model_dump_json(exclude_unset=True))
    assert theirs == json.loads(frame)


@pytest.mark.parametrize("event", [*EVENTS, *OURS], ids=kind)
def test_every_event_survives_a_round_trip(event: Any) -> None:
    assert ev.decode(ev.encode(event)) == event


def test_every_server_event_type_of_the_sdk_has_a_place(sdk_server_types: set[str]) -> None:
    ours = {str(cls.__struct_config__.tag) for cls in get_args(ev.AnyServerEvent)}
    assert ours == {kind(event) for event in [*EVENTS, *OURS]}
    relay = {kind(event) for event in OURS}
    assert all(name.startswith("relay.") for name in relay)
    assert ours - relay == sdk_server_types - NOT_SENT


def test_a_client_is_told_of_events_that_it_does_not_know() -> None:
    with pytest.raises(msgspec.DecodeError):
        ev.decode('{"type":"response.sing","event_id":"e"}')


def test_a_client_skips_fields_that_it_does_not_know() -> None:
    line = '{"type":"input_audio_buffer.cleared","event_id":"e","colour":"red"}'
    assert ev.decode(line) == ev.InputAudioBufferCleared(event_id="e")
