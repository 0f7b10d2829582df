"""Slow-path text streams: what every brain offers to a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from relay.events import Message


class Dialogue(Protocol):
    """A brain's side of one session; it may keep caches between replies."""

    def reply(
        self, messages: Sequence[Message], *, prefix: str = "", max_tokens: int | None = None
    ) -> AsyncIterator[str]:
        """Streams the assistant's next turn as pieces of text that may split words.

        Args:
            messages: The conversation so far, oldest first.
            prefix: Words of this turn that were spoken already; the stream continues them and does not repeat them.
            max_tokens: Upper bound of the reply's length.

        Raises:
            BrainUnavailable: The model cannot be reached, timed out, or failed.
        """
        ...


class Brain(Protocol):
    """A source of replies, shared by all sessions. Entered once when the server starts."""

    name: str

    async def __aenter__(self) -> Brain:
        """Loads what is needed. Raises EngineUnavailable or WeightsError."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Frees it."""
        ...

    def dialogue(self) -> AbstractAsyncContextManager[Dialogue]:
        """The brain's side of a new session."""
        ...
