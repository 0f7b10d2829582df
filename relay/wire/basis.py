"""What a reply is made from: settings and conversation, as a language model and a voice are given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.config import Path_
from relay.events import Message, ToolOffer
from relay.phrase import same_words
from relay.wire.commands import ResponseParams
from relay.wire.config import SessionConfig
from relay.wire.tools import offer


@dataclass(frozen=True, slots=True)
class Basis:
    """All that the words and the sound of a reply depend on.

    Attributes:
        messages: The instructions, if there are any, and what is answered, oldest first.
        max_tokens: Upper bound of its length; None for none.
        tools: What the language model may call.
        speaks: Whether it is spoken; else it is written.
        speed: Speaking rate.
        path: Which models make it.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None
    tools: ToolOffer | None
    speaks: bool
    speed: float
    path: Path_

    def is_same(self, other: Basis) -> bool:
        """Whether a reply to the one answers the other: only the last message may differ, in case and punctuation."""
        if not self.messages or not other.messages:
            return self == other
        (*before, last), (*other_before, other_last) = self.messages, other.messages
        return (
            before == other_before
            and (last.role, last.calls, last.call_id) == (other_last.role, other_last.calls, other_last.call_id)
            and same_words(last.text, other_last.text)
            and (self.max_tokens, self.tools, self.speaks, self.speed, self.path)
            == (other.max_tokens, other.tools, other.speaks, other.speed, other.path)
        )


def resolved(params: ResponseParams, config: SessionConfig) -> ResponseParams:
    """Parameters with the session's configuration filled in; `input` stays as it is."""
    return ResponseParams(
        instructions=config.instructions if params.instructions is None else params.instructions,
        output_modalities=params.output_modalities or config.output_modalities,
        conversation=params.conversation,
        input=params.input,
        metadata=params.metadata,
        max_output_tokens=params.max_output_tokens or config.max_output_tokens or "inf",
        voice=params.voice or config.voice,
        output_format=params.output_format or config.output_format,
        tools=config.tools if params.tools is None else params.tools,
        tool_choice=config.tool_choice if params.tool_choice is None else params.tool_choice,
        parallel_tool_calls=(
            config.parallel_tool_calls if params.parallel_tool_calls is None else params.parallel_tool_calls
        ),
    )


def basis_of(params: ResponseParams, context: Sequence[Message], *, speed: float, path: Path_) -> Basis:
    """What a response is made from.

    Args:
        params: Its parameters, resolved.
        context: What it answers.
        speed: Speaking rate.
        path: Which models make it.
    """
    system = [Message("system", params.instructions)] if params.instructions else []
    limit = params.max_output_tokens
    return Basis(
        messages=(*system, *context),
        max_tokens=limit if isinstance(limit, int) else None,
        tools=offer(params.tools or (), params.tool_choice or "auto", params.parallel_tool_calls),
        speaks="audio" in (params.output_modalities or ()),
        speed=speed,
        path=path,
    )
