from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.words import Token, Word, Words

PIECES = ["▁the", "▁c", "at", "s", "▁", ".", "▁I", ""]
TOKENS = st.lists(
    st.builds(Token, st.integers(0, len(PIECES) - 2), st.integers(0, 3), st.floats(-3, 0)), max_size=30
).map(
    lambda tokens: [Token(t.number, sum(x.frame for x in tokens[:i]), t.log_probability) for i, t in enumerate(tokens)]
)


def test_a_word_has_times_and_a_confidence() -> None:
    words = Words(PIECES, frame_ms=80)
    assert words.push([Token(0, 2, 0.0), Token(1, 5, math.log(0.5))]) == (Word("the", 160, 240, 1.0),)
    assert words.text == "the c"
    assert words.push([Token(2, 6, math.log(0.125)), Token(5, 9, math.log(0.5))]) == ()
    (last,) = words.finish()
    assert (last.text, last.start_ms, last.end_ms) == ("cat.", 400, 800)
    assert last.confidence == pytest.approx(0.03125 ** (1 / 3))
    assert words.partial is None
    assert [word.text for word in words.stable] == ["the", "cat."]


def test_a_lone_mark_is_no_word() -> None:
    words = Words(PIECES, frame_ms=80)
    assert words.push([Token(4, 0, 0.0), Token(4, 1, 0.0)]) == ()
    assert words.finish() == ()
    assert words.text == ""


@given(TOKENS, st.lists(st.integers(0, 5)), st.sets(st.integers(0, 9)))
def test_what_was_shown_as_stable_never_changes(tokens: list[Token], cuts: list[int], pauses: set[int]) -> None:
    """Whatever the pieces and wherever utterances end: stable words are only added to."""
    words, shown, start = Words(PIECES, frame_ms=80), (), 0  # type: tuple[Words, tuple[Word, ...], int]
    for number, cut in enumerate([*cuts, len(tokens)]):
        fresh = words.push(tokens[start : start + cut])
        fresh += words.finish() if number in pauses else ()
        start += cut
        assert words.stable == shown + fresh
        assert words.text.startswith(" ".join(word.text for word in words.stable))
        shown = words.stable
    words.finish()
    assert words.text.replace(" ", "") == "".join(PIECES[t.number] for t in tokens).replace("▁", "")
    assert all(0 < word.confidence <= 1 and word.start_ms < word.end_ms for word in words.stable)


@given(TOKENS, st.integers(0, 30))
def test_a_copy_goes_its_own_way(tokens: list[Token], cut: int) -> None:
    words = Words(PIECES, frame_ms=80)
    words.push(tokens[:cut])
    twin, before = words.copy(), (words.stable, words.partial)
    twin.push(tokens[cut:])
    twin.finish()
    assert (words.stable, words.partial) == before


@given(TOKENS, st.integers(0, 30))
def test_a_preview_is_what_would_follow_and_changes_nothing(tokens: list[Token], cut: int) -> None:
    words, sure = Words(PIECES, frame_ms=80), Words(PIECES, frame_ms=80)
    words.push(tokens[:cut])
    before = (words.stable, words.partial)
    sure.push(tokens)
    sure.finish()
    assert words.stable + words.preview(tokens[cut:]) == sure.stable
    assert (words.stable, words.partial) == before
