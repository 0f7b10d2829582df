"""Every event that a client can send, and the decoder from any text to one of them or to a documented error."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from relay.errors import BadEvent
from relay.wire.types import (
    AudioFormat,
    CustomVoice,
    FunctionCallItem,
    FunctionCallOutputItem,
    Id,
    Item,
    ItemReference,
    MaxOutputTokens,
    MessageItem,
    Metadata,
    Milliseconds,
    Modality,
    Name,
    Prompt,
    Reasoning,
    Samples,
    SessionFields,
    Shape,
    Text,
    ToolChoice,
    Tools,
)

MAX_EVENT_ID_CHARS = 512
MAX_INPUT_ITEMS = 256

ERROR_CODES: dict[str, str] = {
    "invalid_json": "The text frame is not JSON.",
    "frame_too_large": "The event is larger than the server takes.",
    "unknown_event": "The event has no known type.",
    "unknown_parameter": "The event has a field that the API does not have.",
    "missing_required_parameter": "A required field is absent.",
    "invalid_type": "A field has a value of another type.",
    "invalid_value": "A field has a value that is not allowed.",
    "invalid_audio": "The audio is not base64, or not a whole number of samples.",
    "unexpected_binary": "A binary frame came on a connection without the subprotocol relay.v1.",
    "unsupported_content": "An item has an image, or speech without a transcript.",
    "unsupported_value": "The API has this value, and this server does not: a stored prompt, a tool server.",
    "item_not_found": "The conversation has no item of the id that an event refers to.",
    # The API's own names: clients tell by them that an item is gone, and go on.
    "item_retrieve_invalid_item_id": "The conversation has no item of this id to send.",
    "item_delete_invalid_item_id": "The conversation has no item of this id to delete.",
    "item_truncate_invalid_item_id": "The conversation has no item of this id to cut.",
    "duplicate_item_id": "The conversation already has an item of this id.",
    "item_in_progress": "The item is still being spoken.",
    "conversation_full": "The conversation holds as much as the server keeps.",
    "conversation_already_has_active_response": "A response is in progress.",
    "too_many_responses": "As many responses as the server gives at once are in progress out of band.",
    "transcription_session": "A transcription session gives no responses.",
    "response_cancel_not_active": "No such response is in progress.",
    "input_audio_buffer_commit_empty": "There is no audio to commit.",
}
"""Codes of the errors that a client's events can cause, and what they mean. The session goes on after each."""


class ClientEvent(Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of the client's events; `event_id` comes back in an error that the event causes."""

    event_id: Annotated[str, Meta(max_length=MAX_EVENT_ID_CHARS)] | None = None


class SessionUpdate(ClientEvent, tag="session.update", frozen=True):
    """Changes the configuration."""

    session: SessionFields


class InputAudioBufferAppend(ClientEvent, tag="input_audio_buffer.append", frozen=True):
    """Speech for the input buffer, base64 on the wire."""

    audio: bytes


class InputAudioBufferCommit(ClientEvent, tag="input_audio_buffer.commit", frozen=True):
    """Ends the caller's turn by hand."""


class InputAudioBufferClear(ClientEvent, tag="input_audio_buffer.clear", frozen=True):
    """Empties the input buffer."""


class OutputAudioBufferClear(ClientEvent, tag="output_audio_buffer.clear", frozen=True):
    """Drops the rest of the current audio."""


class ConversationItemCreate(ClientEvent, tag="conversation.item.create", frozen=True):
    """Adds an item: at the end, after another one, or first (`root`)."""

    item: Item
    previous_item_id: Id | None = None


class ConversationItemRetrieve(ClientEvent, tag="conversation.item.retrieve", frozen=True):
    """Asks for an item as the server holds it."""

    item_id: Id


class ConversationItemDelete(ClientEvent, tag="conversation.item.delete", frozen=True):
    """Removes an item."""

    item_id: Id


class ConversationItemTruncate(ClientEvent, tag="conversation.item.truncate", frozen=True):
    """Cuts the audio of an assistant's item to what was played."""

    item_id: Id
    content_index: Annotated[int, Meta(ge=0, le=2**31)]
    audio_end_ms: Milliseconds


class ResponseOutputSettings(Shape, frozen=True, omit_defaults=True):
    """`response.audio.output`."""

    format: AudioFormat | None = None
    voice: Name | CustomVoice | None = None


class ResponseAudioSettings(Shape, frozen=True, omit_defaults=True):
    """`response.audio`."""

    output: ResponseOutputSettings | None = None


class ResponseSettings(Shape, frozen=True, omit_defaults=True):
    """What one response does differently from the session."""

    instructions: Text | None = None
    output_modalities: Annotated[list[Modality], Meta(max_length=2)] | None = None
    audio: ResponseAudioSettings | None = None
    conversation: Literal["auto", "none"] | None = None
    input: (
        Annotated[
            list[MessageItem | FunctionCallItem | FunctionCallOutputItem | ItemReference],
            Meta(max_length=MAX_INPUT_ITEMS),
        ]
        | None
    ) = None
    metadata: Metadata | None = None
    max_output_tokens: MaxOutputTokens | None = None
    tools: Tools | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    prompt: Prompt | None = None
    reasoning: Reasoning | None = None


class ResponseCreate(ClientEvent, tag="response.create", frozen=True):
    """Asks for a response."""

    response: ResponseSettings | None = None


class ResponseCancel(ClientEvent, tag="response.cancel", frozen=True):
    """Cancels the response in progress, or the one of an id."""

    response_id: Id | None = None


class RelayPlayback(ClientEvent, tag="relay.playback", frozen=True):
    """Reports how much of a response the client has really played, in samples of the output format."""

    response_id: Id
    played_samples: Samples


AnyClientEvent: TypeAlias = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | OutputAudioBufferClear
    | ConversationItemCreate
    | ConversationItemRetrieve
    | ConversationItemDelete
    | ConversationItemTruncate
    | ResponseCreate
    | ResponseCancel
    | RelayPlayback
)


class _Envelope(Struct):
    """What is looked for in an event that could not be read."""

    event_id: Any = None


_decoder = msgspec.json.Decoder(AnyClientEvent)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()

# msgspec says in one line what is wrong and where: these read it. A field's name may hold anything.
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def encode(event: AnyClientEvent) -> str:
    """The event as a JSON text frame, for clients."""
    return _encoder.encode(event).decode()


def decode(data: str) -> AnyClientEvent:
    """The event in a JSON text frame.

    Raises:
        BadEvent: It is not one that the API has; `code` is one of ERROR_CODES.
    """
    try:
        event: AnyClientEvent = _decoder.decode(data)
        return event
    except msgspec.ValidationError as exc:
        raise _refusal(str(exc), _event_id(data)) from None
    except RecursionError:
        raise BadEvent("Nest JSON less deeply", code="invalid_value") from None
    except ValueError as exc:  # msgspec.DecodeError, and text that is not Unicode
        raise BadEvent(f"Send one JSON object in a text frame: {exc}", code="invalid_json") from None


def _event_id(data: str) -> str | None:
    """The client's id of an event that could not be read, as far as it has one."""
    try:
        event_id = _envelope_decoder.decode(data).event_id
    except (ValueError, RecursionError):
        return None
    return event_id if isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_CHARS else None


def _refusal(reason: str, event_id: str | None) -> BadEvent:
    """The error for an event of the wrong shape, from msgspec's reason."""
    at = _AT.search(reason)
    path = at[1] if at else ""
    what = reason[: at.start()] if at else reason
    if path == "type" or (not path and what == "Object missing required field `type`"):
        return BadEvent(
            f"Send an event with one of the documented types: {_short(what)}",
            code="unknown_event",
            param="type",
            event_id=event_id,
        )
    if missing := _MISSING.match(what):
        param = _join(path, missing[1])
        message = f"Missing required parameter: '{param}'"
        return BadEvent(message, code="missing_required_parameter", param=param, event_id=event_id)
    if unknown := _UNKNOWN.match(what):
        param = _join(path, _short(unknown[1]))
        return BadEvent(f"Unknown parameter: '{param}'", code="unknown_parameter", param=param, event_id=event_id)
    if "base64" in what:
        code = "invalid_audio"
    elif ", got `" in what:
        code = "invalid_type"
    else:
        code = "invalid_value"
    message = f"Invalid '{path}': {_short(what)}" if path else _short(what)
    return BadEvent(message, code=code, param=path or None, event_id=event_id)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _short(text: str) -> str:
    """At most 200 characters of what a client sent."""
    return text if len(text) <= 200 else text[:200] + "..."
