"""Think: the brain's stream of text -> whole words for the voice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import cast

from relay.channel import Channel
from relay.errors import RelayError, StageFailed


class WordSplitter:
    """Pieces of text that may split words -> whole words, which joined are the text with single spaces.

    All but the first word begin with the space before it: nothing follows the last.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._separator = ""

    def push(self, piece: str) -> list[str]:
        """The words that this piece completes: those with white space after them."""
        self._rest += piece
        words = self._rest.split()
        self._rest = words.pop() if words and not self._rest[-1].isspace() else ""
        return [self._separated(word) for word in words]

    def end(self) -> list[str]:
        """The last word, if one is left."""
        rest, self._rest = self._rest, ""
        return [self._separated(rest)] if rest else []

    def _separated(self, word: str) -> str:
        separator, self._separator = self._separator, " "
        return separator + word


async def think(pieces: AsyncIterator[str], words: Channel[str], on_word: Callable[[str], None]) -> None:
    """Streams a reply's words into `words` and closes it.

    Raises:
        StageFailed: The brain failed, or had nothing to say.
    """
    splitter = WordSplitter()
    count = 0

    async def emit(ready: list[str]) -> None:
        nonlocal count
        for word in ready:
            count += 1
            on_word(word)
            await words.put(word)

    try:
        # Closing the stream at once stops the brain's work when the reply is cancelled.
        async with aclosing(cast("AsyncGenerator[str]", pieces)) as stream:
            async for piece in stream:
                await emit(splitter.push(piece))
        await emit(splitter.end())
    except RelayError:
        raise
    except Exception as error:
        raise StageFailed("brain", f"the language model failed: {error}") from error
    finally:
        words.close()
    if not count:
        raise StageFailed("brain", "the language model gave an empty reply; ask again")
