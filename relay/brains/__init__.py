"""Slow-path text streams: what every brain offers to a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from relay.events import Message, Piece, ToolOffer


class Replies(Protocol):
    """What makes replies, one at a time."""

    def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncIterator[Piece]:
        """Streams the assistant's next turn: its text, then its calls of tools, then how it ended.

        Args:
            messages: The conversation so far, oldest first.
            prefix: Words of this turn that were spoken already; the stream continues them and does not repeat them.
            max_tokens: Upper bound of the reply's length, calls included.
            tools: What the model may call. A brain that cannot call tools answers in words.

        Raises:
            BrainUnavailable: The model cannot be reached, timed out, or failed.
        """
        ...


class Dialogue(Replies, Protocol):
    """A brain's side of one conversation; it may keep caches between replies."""

    async def end_probability(self, messages: Sequence[Message]) -> float | None:
        """How likely the user's turn, the last of the conversation, ends with its last word; None if none can say.

        It may be asked while a reply is made.

        Raises:
            BrainUnavailable: The model failed.
        """
        ...


class Brain(Protocol):
    """A source of replies, shared by all sessions. Entered once when the server starts.

    Attributes:
        name: What it is called.
        knows_ends: Whether its dialogues can tell how likely a turn ends.
    """

    name: str
    knows_ends: bool

    async def __aenter__(self) -> Brain:
        """Loads what is needed. Raises EngineUnavailable or WeightsError."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Frees it."""
        ...

    def dialogue(self) -> AbstractAsyncContextManager[Dialogue]:
        """The brain's side of a new conversation, or of a response beside one."""
        ...
