"""Words out of pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.channel import Channel
from relay.errors import StageFailed
from relay.events import CallDelta, Piece, ReplyEnd
from relay.stages.think import Verbatim, WordSplitter, think
from tests.virtual_time import run

TEXT = st.text(alphabet="ab \n.é", max_size=60)


@given(TEXT, st.lists(st.integers(0, 60), max_size=10))
def test_any_pieces_give_the_same_words(text: str, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    splitter = WordSplitter()
    words = [w for begin, end in pairwise(edges) for w in splitter.push(text[begin:end])]
    words += splitter.end()
    assert [word.strip() for word in words] == text.split()
    assert "".join(words) == " ".join(text.split())
    assert splitter.end() == []


def test_the_stream_is_closed_and_an_empty_reply_is_a_failure() -> None:
    closed = []

    async def pieces(*texts: str):  # type: ignore[no-untyped-def]
        try:
            for text in texts:
                yield text
        finally:
            closed.append(texts)

    async def main() -> None:
        words: Channel[str] = Channel(9)
        seen: list[str] = []
        assert await think(pieces("Hel", "lo  wor", "ld"), words, seen.append, no_call, WordSplitter()) == ReplyEnd()
        assert words.get_waiting() == seen == ["Hello", " world"]
        assert words.is_finished
        for splitter in (WordSplitter(), Verbatim()):
            with pytest.raises(StageFailed, match="empty reply"):
                await think(pieces("  ", "\n"), Channel(9), seen.append, no_call, splitter)
        assert len(closed) == 3

    run(main())


def test_all_words_are_out_before_the_first_call_and_the_end_is_told() -> None:
    async def pieces() -> AsyncIterator[Piece]:
        yield "One mom"
        yield "ent"
        yield CallDelta(0, "f", "{}")
        yield ReplyEnd("length", output_tokens=3)

    async def main() -> None:
        words: Channel[str] = Channel(9)
        calls: list[CallDelta] = []

        async def on_call(delta: CallDelta) -> None:
            assert words.get_waiting() == ["One", " moment"]
            assert words.is_finished
            calls.append(delta)

        end = await think(pieces(), words, lambda _: None, on_call, WordSplitter())
        assert calls == [CallDelta(0, "f", "{}")]
        assert end == ReplyEnd("length", output_tokens=3)

    run(main())


def test_text_to_be_read_is_left_as_it_is() -> None:
    async def pieces() -> AsyncIterator[Piece]:
        for piece in ("{\n", "  ", '"a": 1}\n'):
            yield piece

    async def main() -> None:
        seen: list[str] = []
        await think(pieces(), Channel(9), seen.append, no_call, Verbatim())
        assert "".join(seen) == '{\n  "a": 1}\n'

    run(main())


async def no_call(delta: CallDelta) -> None:
    raise AssertionError(delta)
