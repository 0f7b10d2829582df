"""What a client's event asks of the session: the values that `RealtimeProtocol.receive` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relay.audio import Format
from relay.wire.config import SessionConfig
from relay.wire.types import Item, ItemReference, Modality, Tool, ToolChoice


@dataclass(frozen=True, slots=True)
class ResponseParams:
    """What one response does differently from the session; None means as the session does.

    Attributes:
        instructions: System instructions for this response only.
        output_modalities: `("audio",)` or `("text",)`.
        conversation: `none` keeps the response out of the conversation (out of band).
        input: The context to answer instead of the conversation; empty means no context. What a reference stands for is
            looked up when the response is made: speech that is still being recognised has no words before.
        metadata: Up to 16 pairs, echoed in `response.created` and `response.done`.
        max_output_tokens: 1 to 4096, or `inf` for no limit.
        voice: Name of the voice.
        output_format: Format of the audio bytes.
        tools: Tools that may be called; empty for none.
        tool_choice: Which of them has to be.
        parallel_tool_calls: Whether several may be called at once.
    """

    instructions: str | None = None
    output_modalities: tuple[Modality, ...] | None = None
    conversation: Literal["auto", "none"] = "auto"
    input: tuple[Item | ItemReference, ...] | None = None
    metadata: Mapping[str, str] | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    voice: str | None = None
    output_format: Format | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one response took, by kind.

    Text tokens are those that the language model's server counts; `cached_tokens` are those of the input that came from
    its cache. Audio has no tokens here: it is counted as the API does, a token for 100 ms of the user's and for 50 ms
    of the reply's.
    """

    input_text_tokens: int = 0
    input_audio_tokens: int = 0
    cached_tokens: int = 0
    output_text_tokens: int = 0
    output_audio_tokens: int = 0


@dataclass(frozen=True, slots=True)
class AudioAppended:
    """Audio for the input buffer, in the session's input format, a whole number of samples, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CommitRequested:
    """The client ends its turn by hand.

    Answer: `input_committed`, or `error` with a `BadEvent` of code `input_audio_buffer_commit_empty`.
    """

    event_id: str | None


@dataclass(frozen=True, slots=True)
class InputCleared:
    """The client empties the input buffer. Answer: `input_cleared`."""


@dataclass(frozen=True, slots=True)
class OutputCleared:
    """The client wants the rest of the current audio dropped. Answer: `output_cleared`."""


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """The configuration changed; `changed` names the fields of `SessionConfig` that differ. Already answered."""

    config: SessionConfig
    changed: frozenset[str]


@dataclass(frozen=True, slots=True)
class TruncateRequested:
    """The client played an assistant item only up to `audio_end_ms`. Answer: `item_truncated` with the words heard."""

    item_id: str
    audio_end_ms: int
    event_id: str | None


@dataclass(frozen=True, slots=True)
class ResponseRequested:
    """The client asks for a response. Answer: `begin_response(params)`; out of band at once, beside any other."""

    params: ResponseParams
    event_id: str | None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The client cancels a response in progress; its output is dropped from now on. Answer: its `Response.finish`."""

    response_id: str
    event_id: str | None


@dataclass(frozen=True, slots=True)
class PlaybackReported:
    """The client has played this many samples of the response, counted at the output format's rate."""

    response_id: str
    played_samples: int


Command: TypeAlias = (
    AudioAppended
    | CommitRequested
    | InputCleared
    | OutputCleared
    | SessionChanged
    | TruncateRequested
    | ResponseRequested
    | CancelRequested
    | PlaybackReported
)
