"""What listeners say lets a reply go on; whatever else is said, and goes on being said, stops it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.backchannel import CLEAR_NATS, LONGEST_KNOWN_MS, SETTLED_MS, Overlap, is_backchannel, wants_floor

LISTENING = [
    "yeah",
    "Mm-hm.",
    "uh huh",
    "okay",
    "I see",
    "yeah right okay",
    "oh really",
    "hmm",
    "that's true",
    "emm",
    "",
]
WANTING = [
    "stop",
    "no",
    "I want tomorrow",
    "okay but not now",
    "Italian",
    "what",
    "yeah I want",
    "table for two",
]
OVERLAPS = st.builds(
    Overlap,
    text=st.sampled_from(LISTENING + WANTING),
    is_believed=st.booleans(),
    speech_ms=st.integers(0, 3000),
    silence_ms=st.integers(0, 1000),
    waited_ms=st.integers(0, 3000),
)
DECIDE_MS = st.sampled_from([None, 200])


@pytest.mark.parametrize("text", LISTENING)
def test_what_listeners_say(text: str) -> None:
    assert is_backchannel(text)
    assert wants_floor(Overlap(text, True, 500, SETTLED_MS, 700), None) is False


@pytest.mark.parametrize("text", WANTING)
def test_what_they_do_not(text: str) -> None:
    assert not is_backchannel(text)
    assert wants_floor(Overlap(text, True, 500, SETTLED_MS, 700), None) is True


def test_one_letter_of_a_longer_word_may_be_misheard() -> None:
    assert all(is_backchannel(heard) for heard in ("bright", "arright", "exacly", "reight", "light"))
    assert not any(is_backchannel(heard) for heard in ("brightly", "yeast", "night train", "oka", "brigt", "rit"))


@pytest.mark.parametrize(
    ("texts", "floor"),
    [
        (["", "o", "ok", "okay"], [None, None, None, False]),
        (["", "", "ye", "yeah"], [None, None, None, False]),
        (["", "st", "stop", "stop"], [None, None, True, True]),
        (["a", "act", "acts", "acts i"], [None, None, None, True]),
    ],
)
def test_as_words_come(texts: list[str], floor: list[bool | None]) -> None:
    silences_ms = [0, 0, 40, 200]
    overlaps = [Overlap(text, True, 380, silence, 300) for text, silence in zip(texts, silences_ms, strict=True)]
    assert [wants_floor(overlap, None) for overlap in overlaps] == floor


def test_a_client_that_plays_on_is_not_kept_waiting_without_a_reason() -> None:
    waited = Overlap("", True, 300, 0, 200)
    assert wants_floor(replace(waited, waited_ms=180), 200) is None
    assert wants_floor(waited, 200) is True
    assert wants_floor(replace(waited, text="ye"), 200) is None
    assert wants_floor(replace(waited, text="tab", waited_ms=20), 200) is True


def test_a_recogniser_that_guesses_is_asked_for_clear_words_only() -> None:
    guess = Overlap("an end of", False, 700, 160, 800)
    assert wants_floor(guess, None) is False
    assert wants_floor(replace(guess, silence_ms=0), None) is None
    assert wants_floor(replace(guess, speech_ms=1000), None) is True
    assert wants_floor(replace(guess, text="no four"), None) is True


@given(OVERLAPS, DECIDE_MS)
def test_it_is_decided_in_bounded_time(overlap: Overlap, decide_ms: int | None) -> None:
    assert wants_floor(replace(overlap, silence_ms=SETTLED_MS), decide_ms) is not None
    assert wants_floor(replace(overlap, speech_ms=LONGEST_KNOWN_MS + 1), decide_ms) is True


@given(OVERLAPS, DECIDE_MS, st.integers(0, 500))
def test_who_speaks_on_gets_no_further_from_the_floor(overlap: Overlap, decide_ms: int | None, more_ms: int) -> None:
    before = replace(overlap, silence_ms=0)
    after = replace(before, speech_ms=before.speech_ms + more_ms, waited_ms=before.waited_ms + more_ms)
    assert wants_floor(before, decide_ms) in (None, True)
    assert wants_floor(after, decide_ms) is True or wants_floor(before, decide_ms) is None


@given(st.lists(st.sampled_from(LISTENING), max_size=4))
def test_listeners_words_in_a_row_are_listeners_words(texts: list[str]) -> None:
    assert is_backchannel(" ".join(texts))


@given(OVERLAPS, DECIDE_MS, st.none() | st.floats(-3, 3))
def test_evidence_may_only_bring_an_interruption_forward(
    overlap: Overlap, decide_ms: int | None, nats: float | None
) -> None:
    without, verdict = wants_floor(overlap, decide_ms), wants_floor(replace(overlap, evidence=nats), decide_ms)
    assert verdict == without or (verdict is True and without is None and nats is not None and nats >= CLEAR_NATS)


def test_speech_that_sounds_like_an_interruption_is_one_unless_its_words_are_a_listeners() -> None:
    heard = Overlap("", True, 240, 0, 140, CLEAR_NATS)
    assert wants_floor(heard, None) is True
    assert wants_floor(replace(heard, evidence=CLEAR_NATS - 0.1), None) is None
    assert wants_floor(replace(heard, text="yea"), None) is None
    assert wants_floor(replace(heard, silence_ms=20), None) is None, "it may be over"
