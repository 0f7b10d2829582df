"""A brain that is slower than it is: for measuring what a slow language model costs, with everything else as it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from relay.brains import Brain, Dialogue
from relay.events import Message, Piece, ToolOffer


class DelayedBrain:
    """A brain whose every reply, and every continuation of one, begins so much later. It is then as fast as it was.

    Args:
        brain: The brain that answers.
        delay_s: What is added before the first piece.

    Attributes:
        brain: The brain behind.
    """

    def __init__(self, brain: Brain, delay_s: float) -> None:
        self.name = brain.name
        self.knows_ends = brain.knows_ends
        self.brain = brain
        self._delay_s = delay_s

    async def __aenter__(self) -> DelayedBrain:
        """Enters the brain behind. Raises what that raises."""
        await self.brain.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leaves it."""
        await self.brain.__aexit__(*exc)

    @contextlib.asynccontextmanager
    async def dialogue(self) -> AsyncIterator[Dialogue]:
        """As in `Brain`."""
        async with self.brain.dialogue() as dialogue:
            yield _Delayed(dialogue, self._delay_s)


class _Delayed:
    def __init__(self, dialogue: Dialogue, delay_s: float) -> None:
        self._dialogue = dialogue
        self._delay_s = delay_s

    async def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """As in `Dialogue`."""
        await asyncio.sleep(self._delay_s)
        reply = self._dialogue.reply(messages, prefix=prefix, max_tokens=max_tokens, tools=tools)
        async with aclosing(
            cast("AsyncGenerator[Piece, None]", reply)
        ) as pieces:  # a reply that is broken off ends here
            async for piece in pieces:
                yield piece

    async def end_probability(self, messages: Sequence[Message]) -> float | None:
        """As in `Dialogue`, without a delay: it is no reply."""
        return await self._dialogue.end_probability(messages)
