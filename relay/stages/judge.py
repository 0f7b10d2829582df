"""Judge: words of a turn in a pause -> how likely the turn ends with them, by the language model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from relay.errors import BrainUnavailable

log = logging.getLogger(__name__)


class Judge:
    """Judges the latest words it was shown; older ones that it has not come to are forgotten.

    Args:
        end_probability: How likely a turn of such words ends with them, 0 to 1; None if nobody can say.
        on_judged: Told of the turn, its words and the answer.
    """

    def __init__(
        self,
        end_probability: Callable[[str], Awaitable[float | None]],
        on_judged: Callable[[int, str, float], None],
    ) -> None:
        self._end_probability = end_probability
        self._on_judged = on_judged
        self._waiting: tuple[int, str] | None = None
        self._shown: tuple[int, str] | None = None
        self._news = asyncio.Event()

    def show(self, turn_id: int, text: str) -> None:
        """Asks for a judgement of these words, unless they are the last that were shown."""
        if (turn_id, text) != self._shown:
            self._shown = self._waiting = (turn_id, text)
            self._news.set()

    async def run(self) -> None:
        """Runs until cancelled; a language model that fails leaves words unjudged."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._waiting is None:
                continue
            (turn_id, text), self._waiting = self._waiting, None
            try:
                probability = await self._end_probability(text)
            except BrainUnavailable as error:
                log.info("a pause could not be judged: %s", error)
                continue
            if probability is not None:
                self._on_judged(turn_id, text, probability)
