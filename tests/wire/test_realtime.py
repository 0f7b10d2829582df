"""The protocol of one connection: what it answers, what it asks of the session, and who sees what."""

import base64
import json

import pytest

from relay.errors import BadEvent, StageFailed
from relay.events import Message
from relay.wire.binary import AudioFrame, decode_audio
from relay.wire.commands import (
    AudioAppended,
    CommitRequested,
    InputCleared,
    OutputCleared,
    PlaybackReported,
    SessionChanged,
)
from relay.wire.config import SessionConfig
from relay.wire.realtime import RealtimeProtocol
from tests.wire.protocol_talk import NewProtocol, SdkParse, events, kinds, send, the_error


def test_the_greeting(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    protocol.open()
    frames = protocol.outgoing()
    assert [json.loads(frame)["type"] for frame in frames] == ["session.created", "conversation.created"]
    for frame in frames:
        assert isinstance(frame, str)
        sdk_parse(frame)
    assert not protocol.has_outgoing


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
    response.ducked(True)
    response.transcript("a")
    response.finish()
    assert "relay." not in "".join(kinds(protocol))


def test_relay_events_go_to_clients_that_ask(protocol: RealtimeProtocol) -> None:
    send(protocol, type="session.update", session={"relay": {"draft": False, "duck": True}})
    protocol.outgoing()
    protocol.relay_partial("item_x", "a", "b")
    response = protocol.begin_response()
    response.words([("a", 0, 1)])
    response.draft({"prefix": "a"})
    response.finish()
    response.metrics({"path": "cascade"})
    response.ducked(False)
    found = events(protocol)
    ours = [event for event in found if event["type"].startswith("relay.")]
    assert [event["type"] for event in ours] == ["relay.partial", "relay.words", "relay.metrics", "relay.duck"]
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
