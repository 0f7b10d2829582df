"""The server's events about responses, and the shapes in them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from relay.wire.types import AudioFormat, Item, MaxOutputTokens, Modality, ServerEvent, Shown


class CachedTokenDetails(Shown, frozen=True):
    """Cached input tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0


class InputTokenDetails(Shown, frozen=True):
    """Input tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    cached_tokens_details: CachedTokenDetails = CachedTokenDetails()


class OutputTokenDetails(Shown, frozen=True):
    """Output tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0


class UsageObject(Shown, frozen=True):
    """Tokens that a response took."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: InputTokenDetails
    output_token_details: OutputTokenDetails


class ResponseError(Shown, frozen=True):
    """Why a response failed."""

    type: str
    code: str
    message: str


class StatusDetails(Shown, frozen=True):
    """How a response ended, if not by completing."""

    type: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"] | UnsetType = UNSET
    error: ResponseError | UnsetType = UNSET


class ResponseOutputShown(Shown, frozen=True):
    """Voice and format of a response."""

    format: AudioFormat
    voice: str


class ResponseAudioShown(Shown, frozen=True):
    """Audio settings of a response."""

    output: ResponseOutputShown


class ResponseRelay(Shown, frozen=True):
    """`response.relay`: the number that names this response in binary frames."""

    index: int


class ResponseObject(Shown, frozen=True):
    """A response as clients see it."""

    id: str
    status: Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]
    status_details: StatusDetails | None
    output: list[Item]
    conversation_id: str | None
    output_modalities: list[Modality]
    max_output_tokens: MaxOutputTokens
    audio: ResponseAudioShown
    usage: UsageObject | None
    metadata: dict[str, str] | None
    object: Literal["realtime.response"] = "realtime.response"
    relay: ResponseRelay | UnsetType = UNSET


class ResponseCreated(ServerEvent, tag="response.created", frozen=True):
    """A response begins."""

    response: ResponseObject


class ResponseDone(ServerEvent, tag="response.done", frozen=True):
    """A response ended; the last event of each."""

    response: ResponseObject


class ResponseOutputItemAdded(ServerEvent, tag="response.output_item.added", frozen=True):
    """A response has a new item."""

    response_id: str
    output_index: int
    item: Item


class ResponseOutputItemDone(ServerEvent, tag="response.output_item.done", frozen=True):
    """An item of a response is complete."""

    response_id: str
    output_index: int
    item: Item


class ShownPart(Shown, frozen=True):
    """A content part inside `response.content_part.*`, where the API calls the types `text` and `audio`."""

    type: Literal["text", "audio"]
    text: str | UnsetType = UNSET
    transcript: str | UnsetType = UNSET


class OfPart(ServerEvent, kw_only=True, frozen=True):
    """Base of the events of one content part."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int


class ResponseContentPartAdded(OfPart, tag="response.content_part.added", frozen=True):
    """An item of a response has a new part."""

    part: ShownPart


class ResponseContentPartDone(OfPart, tag="response.content_part.done", frozen=True):
    """A part is complete."""

    part: ShownPart


class ResponseOutputAudioDelta(OfPart, tag="response.output_audio.delta", frozen=True):
    """More audio, base64 on the wire, in the response's output format."""

    delta: bytes


class ResponseOutputAudioDone(OfPart, tag="response.output_audio.done", frozen=True):
    """No more audio."""


class ResponseOutputAudioTranscriptDelta(OfPart, tag="response.output_audio_transcript.delta", frozen=True):
    """More of what is being said."""

    delta: str


class ResponseOutputAudioTranscriptDone(OfPart, tag="response.output_audio_transcript.done", frozen=True):
    """All that the response says."""

    transcript: str


class ResponseOutputTextDelta(OfPart, tag="response.output_text.delta", frozen=True):
    """More text."""

    delta: str


class ResponseOutputTextDone(OfPart, tag="response.output_text.done", frozen=True):
    """All of the text."""

    text: str


class ResponseFunctionCallArgumentsDelta(ServerEvent, tag="response.function_call_arguments.delta", frozen=True):
    """More of a call's arguments."""

    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


class ResponseFunctionCallArgumentsDone(ServerEvent, tag="response.function_call_arguments.done", frozen=True):
    """All of a call's arguments."""

    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str


class SpokenWord(Shown, frozen=True):
    """A word and where it stands in the response's audio, in samples of the output format."""

    word: str
    start_sample: int
    end_sample: int


class RelayWords(ServerEvent, tag="relay.words", frozen=True):
    """Words whose audio was just sent."""

    response_id: str
    item_id: str
    words: list[SpokenWord]


class RelayMetrics(ServerEvent, tag="relay.metrics", frozen=True):
    """Where the time of a response went."""

    response_id: str
    metrics: dict[str, Any]


class RelayDraft(ServerEvent, tag="relay.draft", frozen=True):
    """What the fast path drafted, and whether it was spoken."""

    response_id: str
    draft: dict[str, Any]


class RelayDuck(ServerEvent, tag="relay.duck", frozen=True):
    """Somebody speaks: hold what is being played, `ducked`, until it is known whether that interrupts; or play on."""

    response_id: str
    ducked: bool
