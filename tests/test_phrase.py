"""Words that sound finished, and words that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.phrase import (
    CERTAIN_NATS,
    DOUBTFUL,
    DOUBTFUL_NATS,
    FINISHED_MS,
    HESITANT_MS,
    MAX_WORDS_NATS,
    OPEN_NATS,
    PATIENCE,
    SURE,
    SURE_NATS,
    WORDS_WEIGHT,
    Eagerness,
    goes_on,
    may_be_end,
    same_words,
    silence_ms,
)


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


def test_a_turn_that_would_be_over_sooner_may_be_over_in_any_silence() -> None:
    assert may_be_end("turn the light on", 20, FINISHED_MS - 40)
    assert not may_be_end("turn the light on", 0, FINISHED_MS - 40)
    assert not may_be_end(" ", 400, FINISHED_MS - 40)
    assert not may_be_end("turn the light on", FINISHED_MS - 20, FINISHED_MS)


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


NATS = st.floats(-3, 3)


@given(TEXTS, st.floats(0, 1), NATS, NATS, EAGERNESS, st.booleans())
def test_the_more_evidence_of_an_end_the_shorter_the_wait_within_bounds(
    text: str, probability: float, one: float, other: float, eagerness: Eagerness, believed: bool
) -> None:
    less, more = (
        silence_ms(text, probability, eagerness, is_believed=believed, evidence=nats) for nats in sorted((one, other))
    )
    assert 160 <= more <= less <= max(PATIENCE[eagerness].doubtful_ms, PATIENCE[eagerness].unfinished_ms)


@given(TEXTS, st.floats(0, 1), st.floats(0, 1), NATS, EAGERNESS, st.booleans())
def test_the_likelier_an_end_the_shorter_the_wait_whatever_else_is_known(
    text: str, one: float, other: float, nats: float, eagerness: Eagerness, believed: bool
) -> None:
    less, more = (silence_ms(text, p, eagerness, is_believed=believed, evidence=nats) for p in sorted((one, other)))
    assert more <= less


@given(TEXTS, NATS, EAGERNESS, st.booleans())
def test_evidence_alone_changes_nothing(text: str, nats: float, eagerness: Eagerness, believed: bool) -> None:
    alone = silence_ms(text, None, eagerness, is_believed=believed)
    assert silence_ms(text, None, eagerness, is_believed=believed, evidence=nats) == alone


@given(TEXTS, st.floats(0, 1), NATS, st.booleans())
def test_the_more_eager_the_shorter_the_wait_whatever_is_known(
    text: str, probability: float, nats: float, believed: bool
) -> None:
    waits: list[Eagerness] = ["high", "auto", "low"]
    found = [silence_ms(text, probability, each, is_believed=believed, evidence=nats) for each in waits]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("probability", "nats", "believed", "needed_ms"),
    [
        (0.5, CERTAIN_NATS, True, 160),
        (0.5, CERTAIN_NATS, False, 240),
        (0.5, CERTAIN_NATS - 0.1, True, 240),
        (0.5, SURE_NATS, True, 240),
        (0.5, SURE_NATS - 0.1, True, 600),
        (0.5, OPEN_NATS, True, 600),
        (0.5, OPEN_NATS - 0.1, True, 800),
        (0.5, DOUBTFUL_NATS, True, 800),
        (0.5, DOUBTFUL_NATS - 0.1, True, 1200),
        (0.9, CERTAIN_NATS - WORDS_WEIGHT * 2, True, 160),  # 2.2 nats
        (0.1, CERTAIN_NATS + WORDS_WEIGHT * 2, True, 240),
        (1.0, CERTAIN_NATS - WORDS_WEIGHT * MAX_WORDS_NATS, True, 160),
        (1.0, -3.0, True, 800),
        (0.0, 3.0, True, 240),
        (0.0, -3.0, True, 1200),
    ],
)
def test_words_and_evidence_together(probability: float, nats: float, believed: bool, needed_ms: int) -> None:
    assert silence_ms("turn the light on", probability, "auto", is_believed=believed, evidence=nats) == needed_ms


@pytest.mark.parametrize(("probability", "needed_ms"), [(SURE, 240), (SURE - 0.01, 700), (DOUBTFUL - 0.001, 800)])
def test_without_evidence_the_language_model_decides(probability: float, needed_ms: int) -> None:
    assert silence_ms("turn the light on", probability, "auto") == needed_ms
    assert silence_ms("turn on the", 0.0, "auto") == 1200
