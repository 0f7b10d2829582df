"""What stages say to each other: plain frozen data with a turn id and positions on the sample clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a language model has made; `arguments` is JSON as text, as the model wrote it."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation as the language model sees it.

    Attributes:
        role: Who says it.
        text: What is said; for a tool, what it answered. May be empty beside calls, and for a tool.
        calls: Calls that the assistant made.
        call_id: The call that a tool's message answers.
    """

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the client offers to the language model; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """The tools of one reply.

    Attributes:
        tools: At least one.
        choice: `auto` leaves it to the model, `none` forbids calls, `required` demands at least one.
        only: The one tool that has to be called, whatever `choice` says.
        parallel: Whether one reply may call several; None leaves it to the model's server.
    """

    tools: tuple[Tool, ...]
    choice: Literal["auto", "none", "required"] = "auto"
    only: str | None = None
    parallel: bool | None = None


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a call that a language model makes. All pieces of one call come together, each call's after the other's.

    Attributes:
        index: Number of the call within the reply, from 0.
        name: The tool.
        arguments: The next piece of its arguments' JSON; may be empty.
        call_id: The call's id, if the model's server gave it one.
    """

    index: int
    name: str
    arguments: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """How a language model ended a reply.

    Attributes:
        reason: `stop` by itself, `length` at the bound on its tokens, `content_filter` by its server's filter.
        input_tokens: Tokens that it read; 0 when its server does not say.
        cached_tokens: Those of them that were in a cache.
        output_tokens: Tokens that it wrote; 0 when its server does not say.
    """

    reason: Literal["stop", "length", "content_filter"] = "stop"
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


Piece: TypeAlias = str | CallDelta | ReplyEnd
"""What a language model streams: text, which may split words; then calls of tools; last, how it ended."""
