"""Words out of pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.channel import Channel
from relay.errors import StageFailed
from relay.stages.think import WordSplitter, think
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
        await think(pieces("Hel", "lo  wor", "ld"), words, seen.append)
        assert words.get_waiting() == seen == ["Hello", " world"]
        assert words.is_finished
        with pytest.raises(StageFailed, match="empty reply"):
            await think(pieces("  ", "\n"), Channel(9), seen.append)
        assert len(closed) == 2

    run(main())
