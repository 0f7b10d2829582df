from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.phonemes import (
    BOUNDARY_ID,
    END_ID,
    PAD_ID,
    PAUSES,
    PHONEMES,
    SYMBOLS,
    is_vowel,
    to_ids,
    to_symbols,
    with_pause,
)


def test_ids_are_what_weights_were_trained_with() -> None:
    assert len(PHONEMES) == 15 * 3 + 24
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 77
    assert to_ids(["<pad>", "AA0", "AH1", "UW2", "B", "ZH", " ", ",", "-", ".", "?", "!", "<end>"]) == [
        0, 1, 8, 45, 46, 69, 70, 71, 72, 73, 74, 75, 76,
    ]  # fmt: skip
    assert (PAD_ID, BOUNDARY_ID, END_ID) == (0, 70, 76)


@given(st.lists(st.sampled_from(SYMBOLS)))
def test_there_and_back(symbols: list[str]) -> None:
    assert to_symbols(to_ids(symbols)) == symbols


def test_what_is_no_symbol_is_refused() -> None:
    with pytest.raises(KeyError):
        to_ids(["AH"])
    for wrong in (-1, len(SYMBOLS)):
        with pytest.raises(IndexError, match="no symbol's id"):
            to_symbols([wrong])


def test_vowels_carry_stress() -> None:
    assert [p for p in PHONEMES if is_vowel(p)] == list(PHONEMES[:45])
    assert not any(is_vowel(s) for s in (*PAUSES, " ", "", "<end>", "AH", "B", "0"))


def test_a_word_ends_in_a_boundary_or_a_pause() -> None:
    assert with_pause(("HH", "AY1")) == ("HH", "AY1", " ")
    assert with_pause(("HH", "AY1"), "?") == ("HH", "AY1", "?")
    assert with_pause((), ".") == (".",)
