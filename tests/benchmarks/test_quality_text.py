from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_benchmarks.quality_text import WordErrors, places_shown, plain_words, same_words, scored_words, word_errors

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("The 7:45 train, please!", "the seven forty five train please"),
        ("It costs $12.50.", "it costs twelve dollars and fifty cents"),
        ("the 21st of June", "the twenty first of june"),
        ("Mr. Hill’s dog isn’t here", "mister hill's dog isn't here"),
        ("a well-known 'fact'", "a well known fact"),
        ("— … ?", ""),
    ],
)
def test_what_is_written_differently_and_said_alike_is_the_same(written: str, said: str) -> None:
    assert scored_words(written) == said.split()
    assert word_errors(written, said) == WordErrors(len(said.split()))


def test_what_is_shown_keeps_its_digits() -> None:
    assert plain_words("At 7:45, don't!") == ["at", "7", "45", "don't"]


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("the cat sat down", "the cat sat down", WordErrors(4, 0, 0, 0)),
        ("the cat sat down", "the bat sat", WordErrors(4, 1, 1, 0)),
        ("the cat", "oh the big cat", WordErrors(2, 0, 0, 2)),
        ("the cat", "", WordErrors(2, 0, 2, 0)),
        ("", "who said that", WordErrors(0, 0, 0, 3)),
        ("", "", WordErrors(0, 0, 0, 0)),
    ],
)
def test_errors_counted_by_hand(reference: str, heard: str, errors: WordErrors) -> None:
    assert word_errors(reference, heard) == errors


def test_the_rate_of_a_sum() -> None:
    total = WordErrors(4, 1, 1, 0) + WordErrors(2, 0, 0, 2) + WordErrors(0, 0, 0, 3)
    assert total == WordErrors(6, 1, 1, 5)
    assert total.rate == pytest.approx(7 / 6)
    assert WordErrors(insertions=3).rate is None


def test_which_word_is_which() -> None:
    assert same_words(["the", "cat", "sat"], ["the", "a", "cat", "sad"]) == [(0, 0), (1, 2)]
    assert same_words([], ["a"]) == same_words(["a"], []) == []


def test_a_partial_shows_the_earlier_of_two_equal_words() -> None:
    final = ["the", "cat", "and", "the", "dog"]
    assert places_shown(final, ["the"]) == [0]
    assert places_shown(final, ["the", "hat", "and"]) == [0, 2]
    assert places_shown(final, final) == [0, 1, 2, 3, 4]


@given(WORDS, WORDS)
def test_edits_account_for_every_word(reference: list[str], heard: list[str]) -> None:
    errors = word_errors(" ".join(reference), " ".join(heard))
    assert len(heard) == len(reference) - errors.deletions + errors.insertions
    pairs = same_words(reference, heard)
    assert all(reference[i] == heard[j] for i, j in pairs)
    assert pairs == sorted(set(pairs))
    if reference:
        assert len(pairs) == len(reference) - errors.substitutions - errors.deletions
