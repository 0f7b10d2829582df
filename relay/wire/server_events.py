"""Every event that the server can send. `event_id` is filled in when the event is queued."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from relay.wire.response_events import (
    RelayDraft,
    RelayDuck,
    RelayMetrics,
    RelayWords,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseCreated,
    ResponseDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from relay.wire.types import Item, ServerEvent, SessionFields, Shown


class ErrorDetail(Shown, frozen=True):
    """What went wrong; `event_id` is that of the client's event that caused it."""

    type: str
    code: str | None
    message: str
    param: str | None = None
    event_id: str | None = None


class Error(ServerEvent, tag="error", frozen=True):
    """Something went wrong; the session goes on unless the connection is closed."""

    error: ErrorDetail


class SessionCreated(ServerEvent, tag="session.created", frozen=True):
    """First event of a connection."""

    session: SessionFields


class SessionUpdated(ServerEvent, tag="session.updated", frozen=True):
    """The configuration after an update."""

    session: SessionFields


class ConversationObject(Shown, frozen=True):
    """A conversation."""

    id: str
    object: Literal["realtime.conversation"] = "realtime.conversation"


class ConversationCreated(ServerEvent, tag="conversation.created", frozen=True):
    """The one conversation of the session."""

    conversation: ConversationObject


class ConversationItemAdded(ServerEvent, tag="conversation.item.added", frozen=True):
    """An item took its place in the conversation."""

    previous_item_id: str | None
    item: Item


class ConversationItemDone(ServerEvent, tag="conversation.item.done", frozen=True):
    """An item is complete."""

    previous_item_id: str | None
    item: Item


class ConversationItemRetrieved(ServerEvent, tag="conversation.item.retrieved", frozen=True):
    """The item that the client asked for."""

    item: Item


class ConversationItemTruncated(ServerEvent, tag="conversation.item.truncated", frozen=True):
    """The item now ends where playback ended."""

    item_id: str
    content_index: int
    audio_end_ms: int


class ConversationItemDeleted(ServerEvent, tag="conversation.item.deleted", frozen=True):
    """The item is gone."""

    item_id: str


class LogProb(Shown, frozen=True):
    """How sure the recogniser is of a word: `bytes` are its UTF-8, `logprob` the natural logarithm."""

    token: str
    bytes: list[int]
    logprob: float


class TranscriptionDelta(ServerEvent, tag="conversation.item.input_audio_transcription.delta", frozen=True):
    """More of what the caller said; deltas are never taken back."""

    item_id: str
    content_index: int
    delta: str
    logprobs: list[LogProb] | UnsetType = UNSET


class DurationUsage(Shown, frozen=True):
    """Seconds of speech transcribed."""

    seconds: float
    type: Literal["duration"] = "duration"


class TranscriptionCompleted(ServerEvent, tag="conversation.item.input_audio_transcription.completed", frozen=True):
    """All that the caller said."""

    item_id: str
    content_index: int
    transcript: str
    usage: DurationUsage
    logprobs: list[LogProb] | UnsetType = UNSET


class TranscriptionError(Shown, frozen=True):
    """Why speech could not be transcribed."""

    type: str
    code: str | None
    message: str
    param: str | None = None


class TranscriptionFailed(ServerEvent, tag="conversation.item.input_audio_transcription.failed", frozen=True):
    """The caller's speech could not be transcribed."""

    item_id: str
    content_index: int
    error: TranscriptionError


class InputAudioBufferCommitted(ServerEvent, tag="input_audio_buffer.committed", frozen=True):
    """The input buffer became a user item."""

    previous_item_id: str | None
    item_id: str


class InputAudioBufferCleared(ServerEvent, tag="input_audio_buffer.cleared", frozen=True):
    """The input buffer is empty."""


class InputAudioBufferSpeechStarted(ServerEvent, tag="input_audio_buffer.speech_started", frozen=True):
    """The caller began to speak; the position counts from the start of the session's audio."""

    audio_start_ms: int
    item_id: str


class InputAudioBufferSpeechStopped(ServerEvent, tag="input_audio_buffer.speech_stopped", frozen=True):
    """The caller stopped."""

    audio_end_ms: int
    item_id: str


class InputAudioBufferTimeoutTriggered(ServerEvent, tag="input_audio_buffer.timeout_triggered", frozen=True):
    """The caller said nothing for `idle_timeout_ms`."""

    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class OutputAudioBufferCleared(ServerEvent, tag="output_audio_buffer.cleared", frozen=True):
    """The rest of the audio was dropped."""

    response_id: str


class RateLimit(Shown, frozen=True):
    """One limit."""

    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitsUpdated(ServerEvent, tag="rate_limits.updated", frozen=True):
    """Limits of the account, as a response begins. This server has none: the list is empty."""

    rate_limits: list[RateLimit]


class RelayPartial(ServerEvent, tag="relay.partial", frozen=True):
    """What the recogniser hears now: `stable` will not change, `unstable` may."""

    item_id: str
    stable: str
    unstable: str


AnyServerEvent: TypeAlias = (
    Error
    | SessionCreated
    | SessionUpdated
    | ConversationCreated
    | ConversationItemAdded
    | ConversationItemDone
    | ConversationItemRetrieved
    | ConversationItemTruncated
    | ConversationItemDeleted
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | InputAudioBufferCommitted
    | InputAudioBufferCleared
    | InputAudioBufferSpeechStarted
    | InputAudioBufferSpeechStopped
    | InputAudioBufferTimeoutTriggered
    | OutputAudioBufferCleared
    | RateLimitsUpdated
    | ResponseCreated
    | ResponseDone
    | ResponseOutputItemAdded
    | ResponseOutputItemDone
    | ResponseContentPartAdded
    | ResponseContentPartDone
    | ResponseOutputAudioDelta
    | ResponseOutputAudioDone
    | ResponseOutputAudioTranscriptDelta
    | ResponseOutputAudioTranscriptDone
    | ResponseOutputTextDelta
    | ResponseOutputTextDone
    | ResponseFunctionCallArgumentsDelta
    | ResponseFunctionCallArgumentsDone
    | RelayPartial
    | RelayWords
    | RelayMetrics
    | RelayDraft
    | RelayDuck
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyServerEvent)


def encode(event: AnyServerEvent) -> str:
    """The event as a JSON text frame."""
    return _encoder.encode(event).decode()


def decode(data: str | bytes) -> AnyServerEvent:
    """The event in a JSON text frame, for clients.

    Raises:
        msgspec.DecodeError: It is not an event that this version knows.
    """
    event: AnyServerEvent = _decoder.decode(data)
    return event
