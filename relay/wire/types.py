"""Shapes that client and server events share: audio formats, items and their content, the session object.

Field names and shapes are those of the OpenAI Realtime API (GA), as in `openai.types.realtime` of its Python SDK. A
field of type `UnsetType` may be absent; absent and null are different things in a session update.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from relay.config import Path_

MAX_ID_CHARS = 128
MAX_TEXT_CHARS = 65_536
MAX_NAME_CHARS = 512
MAX_PARTS = 32
MAX_TOOLS = 128

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
Name: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=2**40)]
Samples: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Modality: TypeAlias = Literal["text", "audio"]
ItemStatus: TypeAlias = Literal["completed", "incomplete", "in_progress"]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
MaxOutputTokens: TypeAlias = Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"]


class Shown(Struct, frozen=True):
    """Base of the objects inside server events. A client skips fields that it does not know."""


class ServerEvent(Struct, tag_field="type", frozen=True, kw_only=True):
    """Base of the server's events."""

    event_id: str


class Shape(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the objects inside events; a field that the API does not have is refused."""


class AudioFormat(Shape, frozen=True):
    """Format of audio on the wire; `rate` is 24000 Hz for PCM and 8000 Hz for G.711."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | UnsetType | None = UNSET


class Part(Shape, tag_field="type", frozen=True):
    """Base of the content parts of a message."""


class InputText(Part, tag="input_text", frozen=True):
    """Text of a system or user message."""

    text: Text


class InputAudio(Part, tag="input_audio", frozen=True):
    """Speech of a user message; the server sends its transcript, never its audio."""

    audio: bytes | UnsetType | None = UNSET
    transcript: Text | UnsetType | None = UNSET


class InputImage(Part, tag="input_image", frozen=True):
    """An image of a user message. Part of the API; this server refuses it."""

    image_url: str | UnsetType | None = UNSET
    detail: Literal["auto", "low", "high"] | UnsetType | None = UNSET


class OutputText(Part, tag="output_text", frozen=True):
    """Text of an assistant message."""

    text: Text


class OutputAudio(Part, tag="output_audio", frozen=True):
    """Speech of an assistant message; the server sends its transcript, never its audio."""

    audio: bytes | UnsetType | None = UNSET
    transcript: Text | UnsetType | None = UNSET


ContentPart: TypeAlias = InputText | InputAudio | InputImage | OutputText | OutputAudio


class BaseItem(Shape, tag_field="type", kw_only=True, frozen=True):
    """Base of the items of a conversation; `id` is the client's choice or given by the server."""

    id: Id | UnsetType | None = UNSET
    object: Literal["realtime.item"] | UnsetType | None = UNSET
    status: ItemStatus | UnsetType | None = UNSET


class MessageItem(BaseItem, tag="message", frozen=True):
    """A message of the system, the user or the assistant."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[list[ContentPart], Meta(max_length=MAX_PARTS)]


class FunctionCallItem(BaseItem, tag="function_call", frozen=True):
    """A call of a tool by the model; `arguments` is JSON as text."""

    name: Name
    arguments: Text
    call_id: Id | UnsetType | None = UNSET


class FunctionCallOutputItem(BaseItem, tag="function_call_output", frozen=True):
    """What a tool answered."""

    call_id: Id
    output: Text


class ItemReference(Shape, tag_field="type", tag="item_reference", frozen=True):
    """An item of this conversation, by id, as input of one response."""

    id: Id


Item: TypeAlias = MessageItem | FunctionCallItem | FunctionCallOutputItem


class ServerVad(Shape, tag_field="type", tag="server_vad", frozen=True):
    """Turn detection by voice activity and a pause."""

    threshold: Annotated[float, Meta(ge=0, le=1)] | UnsetType | None = UNSET
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10000)] | UnsetType | None = UNSET
    silence_duration_ms: Annotated[int, Meta(ge=0, le=10000)] | UnsetType | None = UNSET
    idle_timeout_ms: Annotated[int, Meta(ge=1000, le=3600000)] | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class SemanticVad(Shape, tag_field="type", tag="semantic_vad", frozen=True):
    """Turn detection by what was said, too."""

    eagerness: Literal["low", "medium", "high", "auto"] | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class TranscriptionOptions(Shape, frozen=True):
    """Whether and how the caller's speech is transcribed for the client."""

    model: Name | UnsetType | None = UNSET
    language: Name | UnsetType | None = UNSET
    languages: Annotated[list[Name], Meta(max_length=64)] | UnsetType | None = UNSET
    prompt: Text | UnsetType | None = UNSET
    keywords: Annotated[list[Name], Meta(max_length=1024)] | UnsetType | None = UNSET
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | UnsetType | None = UNSET


class NoiseReduction(Shape, frozen=True):
    """Noise reduction of the input."""

    type: Literal["near_field", "far_field"] | UnsetType | None = UNSET
    strength: Annotated[float, Meta(ge=0, le=1)] | UnsetType | None = UNSET


class CustomVoice(Shape, frozen=True):
    """A voice by its id."""

    id: Name


class AudioInput(Shape, frozen=True):
    """`session.audio.input`."""

    format: AudioFormat | UnsetType | None = UNSET
    turn_detection: ServerVad | SemanticVad | UnsetType | None = UNSET
    transcription: TranscriptionOptions | UnsetType | None = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET


class AudioOutput(Shape, frozen=True):
    """`session.audio.output`."""

    format: AudioFormat | UnsetType | None = UNSET
    voice: Name | CustomVoice | UnsetType | None = UNSET
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType | None = UNSET


class SessionAudio(Shape, frozen=True):
    """`session.audio`."""

    input: AudioInput | UnsetType = UNSET
    output: AudioOutput | UnsetType = UNSET


class FunctionTool(Shape, tag_field="type", tag="function", frozen=True):
    """A function that the client offers; `parameters` is a JSON schema."""

    name: Name
    description: Text | UnsetType | None = UNSET
    parameters: Any | UnsetType = UNSET


class McpTool(Shape, tag_field="type", tag="mcp", frozen=True):
    """A tool server. Part of the API; this server refuses it."""

    server_label: Name
    allowed_callers: list[Literal["direct", "programmatic"]] | UnsetType | None = UNSET
    allowed_tools: Any | UnsetType = UNSET
    authorization: Text | UnsetType | None = UNSET
    connector_id: Name | UnsetType | None = UNSET
    defer_loading: bool | UnsetType | None = UNSET
    headers: dict[str, str] | UnsetType | None = UNSET
    require_approval: Any | UnsetType = UNSET
    server_description: Text | UnsetType | None = UNSET
    server_url: Text | UnsetType | None = UNSET
    tunnel_id: Name | UnsetType | None = UNSET


class ToolChoice(Shape, frozen=True):
    """A tool that the model has to call."""

    type: Literal["function", "mcp"]
    name: Name | UnsetType | None = UNSET
    server_label: Name | UnsetType | None = UNSET


class Prompt(Shape, frozen=True):
    """A stored prompt template. Part of the API; this server refuses it."""

    id: Name
    variables: dict[str, Any] | UnsetType | None = UNSET
    version: Name | UnsetType | None = UNSET


class Reasoning(Shape, frozen=True):
    """Effort of reasoning; accepted and echoed."""

    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | UnsetType | None = UNSET


class Tracing(Shape, frozen=True):
    """Options of tracing; accepted and echoed."""

    workflow_name: Name | UnsetType | None = UNSET
    group_id: Name | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET


class TokenLimits(Shape, frozen=True):
    """Limits of a truncation."""

    post_instructions: Annotated[int, Meta(ge=0, le=2**31)] | UnsetType | None = UNSET


class RetentionRatio(Shape, frozen=True):
    """Truncation of a long conversation to a share of the limit."""

    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Meta(ge=0, le=1)]
    token_limits: TokenLimits | UnsetType | None = UNSET


class RelaySettings(Shape, frozen=True):
    """`session.relay`: which extra events this client wants, whether it sends `relay.playback` and ducks, its path.

    `paths`, those that the server has models for, its own first, is the server's to tell; a client's is not read.
    """

    playback: bool | UnsetType = UNSET
    partials: bool | UnsetType = UNSET
    words: bool | UnsetType = UNSET
    metrics: bool | UnsetType = UNSET
    draft: bool | UnsetType = UNSET
    duck: bool | UnsetType = UNSET
    path: Path_ | UnsetType | None = UNSET
    paths: list[Path_] | UnsetType = UNSET


Tool: TypeAlias = FunctionTool | McpTool
Tools: TypeAlias = Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]
Include: TypeAlias = list[Literal["item.input_audio_transcription.logprobs"]]


class SessionFields(Shape, frozen=True):
    """The session object, as a client updates it and as the server shows it."""

    type: Literal["realtime", "transcription"] | UnsetType = UNSET
    object: Literal["realtime.session", "realtime.transcription_session"] | UnsetType = UNSET
    id: str | UnsetType = UNSET
    model: Name | UnsetType | None = UNSET
    output_modalities: Annotated[list[Modality], Meta(max_length=2)] | UnsetType | None = UNSET
    instructions: Text | UnsetType | None = UNSET
    audio: SessionAudio | UnsetType = UNSET
    tools: Tools | UnsetType | None = UNSET
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_output_tokens: MaxOutputTokens | UnsetType | None = UNSET
    reasoning: Reasoning | UnsetType | None = UNSET
    tracing: Literal["auto"] | Tracing | UnsetType | None = UNSET
    truncation: Literal["auto", "disabled"] | RetentionRatio | UnsetType | None = UNSET
    prompt: Prompt | UnsetType | None = UNSET
    include: Include | UnsetType | None = UNSET
    relay: RelaySettings | UnsetType | None = UNSET
