"""Words that sound finished, and words that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.phrase import FINISHED_MS, HESITANT_MS, PATIENCE, Eagerness, goes_on, may_be_end, same_words, silence_ms


@pytest.mark.parametrize(
    "text",
    [
        "turn on the",
        "I would like a coffee and",
        "so um",
        "because",
        "Well, I",
        "I think,",
        "it costs a hundred -",
        "THE",
    ],
)
def test_unfinished(text: str) -> None:
    assert goes_on(text)


@pytest.mark.parametrize(
    "text", ["", "no", "turn the light on", "where are you from", "I like that", "what's it for?", "yes it is", "12"]
)
def test_finished(text: str) -> None:
    assert not goes_on(text)


def test_a_pause_may_be_an_end_once_there_are_words_and_later_after_unfinished_ones() -> None:
    assert not may_be_end("", 10_000)
    assert [may_be_end("turn the light on", ms) for ms in (FINISHED_MS - 20, FINISHED_MS)] == [False, True]
    assert [may_be_end("turn on the", ms) for ms in (FINISHED_MS, HESITANT_MS)] == [False, True]


def test_the_same_words_are_the_same_whatever_they_look_like() -> None:
    assert same_words("Where are you from?", "where are  you from")
    assert same_words("", " ... ")
    assert not same_words("where are you", "where are you from")
    assert not same_words("i scream", "iscream")


EAGERNESS = st.sampled_from(sorted(PATIENCE))
TEXTS = st.sampled_from(["", "yes", "turn on the", "turn the light on", "well"])


@given(TEXTS, st.floats(0, 1), st.floats(0, 1), EAGERNESS)
def test_the_likelier_an_end_the_shorter_the_wait(text: str, one: float, other: float, eagerness: Eagerness) -> None:
    less, more = sorted((one, other))
    assert silence_ms(text, more, eagerness) <= silence_ms(text, less, eagerness)
    assert silence_ms(text, less, eagerness) <= silence_ms("turn on the", None, eagerness), "the API's longest"
    assert silence_ms(text, more, "high") <= silence_ms(text, more, "auto") <= silence_ms(text, more, "low")
    assert silence_ms(text, more, "auto") == silence_ms(text, more, "medium")


def test_without_a_judge_the_last_word_decides() -> None:
    assert silence_ms("turn on the", None, "auto") == 4000
    assert silence_ms("turn the light on", None, "auto") == 600
    assert silence_ms("turn the light on", 0.9, "auto") < silence_ms("turn the light on", None, "auto")
