"""Think: the brain's stream -> whole words for the voice, and calls of tools for the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

from relay.channel import Channel
from relay.errors import RelayError, StageFailed
from relay.events import CallDelta, Piece, ReplyEnd


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


class Verbatim:
    """Pieces of text as they are, for a reply that is read."""

    def push(self, piece: str) -> list[str]:
        """The piece."""
        return [piece] if piece else []

    def end(self) -> list[str]:
        """Nothing is left."""
        return []


async def think(
    pieces: AsyncIterator[Piece],
    words: Channel[str],
    on_word: Callable[[str], None],
    on_call: Callable[[CallDelta], Awaitable[None]],
    splitter: WordSplitter | Verbatim,
) -> ReplyEnd:
    """Streams a reply's words into `words` and closes it; then gives its calls of tools, piece by piece, to `on_call`.

    Args:
        pieces: The brain's stream.
        words: Takes the words.
        on_word: Told of each word before it is put.
        on_call: Takes a piece of a call; may wait.
        splitter: Makes words of text.

    Returns:
        How the reply ended; by itself, if the brain does not say.

    Raises:
        StageFailed: The brain failed, or gave neither words nor a call.
    """
    end = ReplyEnd()
    count = 0

    async def emit(ready: list[str]) -> None:
        nonlocal count
        for word in ready:
            count += not word.isspace()
            on_word(word)
            await words.put(word)

    try:
        # Closing the stream at once stops the brain's work when the reply is cancelled.
        async with aclosing(cast("AsyncGenerator[Piece]", pieces)) as stream:
            async for piece in stream:
                if isinstance(piece, str):
                    await emit(splitter.push(piece))
                    continue
                await emit(splitter.end())
                words.close()
                if isinstance(piece, CallDelta):
                    count += 1
                    await on_call(piece)
                else:
                    end = piece
        await emit(splitter.end())
    except RelayError:
        raise
    except Exception as error:
        raise StageFailed("brain", f"the language model failed: {error}") from error
    finally:
        words.close()
    if not count:
        raise StageFailed("brain", "the language model gave an empty reply; ask again")
    return end
