"""Responses beside the conversation, and sessions that only transcribe."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import BadEvent
from relay.events import Message
from relay.wire.commands import CancelRequested, ResponseParams
from relay.wire.realtime import MAX_BESIDE, RealtimeProtocol
from tests.wire.protocol_talk import SdkParse, send, the_error

BESIDE = ResponseParams(conversation="none")


def test_several_at_once_beside_the_conversations_own(protocol: RealtimeProtocol) -> None:
    own = protocol.begin_response()
    others = [protocol.begin_response(BESIDE) for _ in range(MAX_BESIDE)]
    assert protocol.response is own
    protocol.outgoing()
    assert send(protocol, type="response.create", event_id="e", response={"conversation": "none"}) == []
    error = the_error(protocol)
    assert (error["code"], error["event_id"]) == ("too_many_responses", "e")
    with pytest.raises(BadEvent):
        protocol.begin_response(BESIDE)
    others[1].finish()
    assert len(send(protocol, type="response.create", response={"conversation": "none"})) == 1
    for number, response in enumerate([own, *others]):
        response.transcript(str(number))
        response.finish()
    done = [json.loads(frame) for frame in protocol.outgoing()]
    assert [event["response"]["conversation_id"] is None for event in done if event["type"] == "response.done"] == [
        *[True, False],
        *[True] * (MAX_BESIDE - 1),
    ]
    assert protocol.conversation.messages() == [Message("assistant", "0")]


def test_each_is_cancelled_by_its_id_and_only_so(protocol: RealtimeProtocol) -> None:
    first, second = protocol.begin_response(BESIDE), protocol.begin_response(BESIDE)
    protocol.outgoing()
    assert send(protocol, type="response.cancel") == []
    assert the_error(protocol)["code"] == "response_cancel_not_active"
    assert send(protocol, type="response.cancel", response_id=second.id) == [CancelRequested(second.id, None)]
    assert (first.muted, second.muted) == (False, True)
    assert send(protocol, type="response.cancel", response_id=second.id) == []
    assert the_error(protocol)["param"] == "response_id"


def test_the_input_is_looked_up_when_the_response_is_made(protocol: RealtimeProtocol) -> None:
    item_id = protocol.input_committed()
    told = protocol.input_committed()
    (command,) = send(
        protocol,
        type="response.create",
        response={
            "conversation": "none",
            "input": [
                {"type": "item_reference", "id": item_id},
                {"type": "item_reference", "id": told},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Is that a question?"}]},
            ],
        },
    )
    response = protocol.begin_response(command.params)
    protocol.transcription_completed(item_id, "what time is it", 1.0)
    protocol.transcription_completed(told, "tell me", 1.0)
    send(protocol, type="conversation.item.delete", item_id=told)
    assert response.context() == [Message("user", "what time is it"), Message("user", "Is that a question?")]
    assert protocol.begin_response(ResponseParams(input=())).context() == []
    assert protocol.begin_response(BESIDE).context() == [Message("user", "what time is it")]


def test_a_transcription_session_gives_no_responses(
    protocol: RealtimeProtocol, sdk_parse: Callable[[str], Any]
) -> None:
    response = protocol.begin_response()
    protocol.outgoing()
    update = {"type": "session.update", "session": {"type": "transcription"}}
    assert send(protocol, **update) == []
    assert the_error(protocol)["code"] == "conversation_already_has_active_response"
    response.finish()
    protocol.outgoing()
    assert len(send(protocol, **update)) == 1
    (updated,) = protocol.outgoing()
    assert sdk_parse(str(updated)).session.type == "transcription"
    assert send(protocol, type="response.create", event_id="e") == []
    assert the_error(protocol)["code"] == "transcription_session"
    item_id = protocol.input_committed()
    protocol.outgoing()
    protocol.transcription_delta(item_id, "hello")
    protocol.transcription_completed(item_id, "hello", 1.0)
    assert len(protocol.outgoing()) == 2


def test_log_probabilities_for_a_client_that_asks(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    send(protocol, type="session.update", session={"audio": {"input": {"transcription": {}}}})
    item_id = protocol.input_committed()
    protocol.outgoing()
    protocol.transcription_completed(item_id, "good night", 1.0, [("good", 1.0), ("night", 0.5)])
    (plain,) = protocol.outgoing()
    assert "logprobs" not in json.loads(plain)
    send(protocol, type="session.update", session={"include": ["item.input_audio_transcription.logprobs"]})
    protocol.outgoing()
    protocol.transcription_delta(item_id, "good night", [("good", 1.0), ("night", 0.5)])
    protocol.transcription_completed(item_id, "good night", 1.0, [("good", 0.0), ("night", 0.5)])
    delta, completed = (sdk_parse(str(frame)) for frame in protocol.outgoing())
    assert [(entry.token, round(entry.logprob, 3)) for entry in delta.logprobs] == [("good", 0.0), (" night", -0.693)]
    assert bytes(completed.logprobs[1].bytes).decode() == " night"
    assert completed.logprobs[0].logprob < -20
