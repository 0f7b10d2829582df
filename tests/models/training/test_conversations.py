"""A conversation on one clock: who speaks when, what is heard, and what the assistant's side should say when."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_models.training.conversations import (
    ASSISTANT,
    RATE_HZ,
    USER,
    Habits,
    Kind,
    Label,
    Pcm,
    Phrase,
    Score,
    Surroundings,
    Utterance,
    arrange,
    frame_labels,
    heard_part,
    microphone,
    split_at_pause,
    tracks,
)

FRAME_SAMPLES = 2560
WORDS = st.sampled_from(["yes", "tomorrow", "a", "restaurant,", "please", "seven", "hotel", "no"])
TEXTS = st.lists(WORDS, min_size=1, max_size=14).map(" ".join)
HABITS = Habits(paused_share=0.6, backchannel_share=0.5, barge_in_share=0.4)


def say(text: str, speaker: int) -> Pcm:
    """A tone as long as the text, 60 ms a letter, higher for the assistant."""
    time = np.arange(len(text) * RATE_HZ * 6 // 100) / RATE_HZ
    return (9000 * np.sin(2 * np.pi * (200 + 150 * speaker) * time)).astype(np.int16)


def encode(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def conversation(texts: list[str], seed: int) -> Score:
    turns = [(number % 2, text) for number, text in enumerate(texts)]
    return arrange(turns, say, HABITS, np.random.default_rng(seed))


@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 999))
def test_turns_keep_their_order_and_their_distance(texts: list[str], seed: int) -> None:
    score = conversation(texts, seed)
    turns = [u for u in score.utterances if u.kind is not Kind.BACKCHANNEL]
    assert [u.whole_text for u in turns] == texts
    for one, other in pairwise(turns):
        gap_s = (other.first - one.last) / RATE_HZ
        if other.kind is Kind.BARGE_IN:
            assert (one.speaker, other.speaker) == (ASSISTANT, USER)
            share = (other.first - one.first) / (len(say(one.whole_text, ASSISTANT)))
            assert HABITS.broken_off[0] - 1e-3 <= share <= HABITS.broken_off[1] + 1e-3
            assert -HABITS.yield_s[1] - 1e-3 <= gap_s < 0
        else:
            late = one.speaker == USER and gap_s > HABITS.longest_gap_s
            assert 0 <= gap_s <= (HABITS.late_s[1] + 1e-3 if late else HABITS.longest_gap_s)
            assert one.text == one.whole_text
    for utterance in turns:
        for before, after in pairwise(utterance.phrases):
            assert HABITS.pause_s[0] - 1e-3 <= (after.first - before.last) / RATE_HZ <= HABITS.pause_s[1] + 1e-3
    assert score.samples == max(u.last for u in score.utterances) + round(0.6 * RATE_HZ)


def test_some_replies_come_late_and_no_question_does() -> None:
    habits = Habits(paused_share=0.0, backchannel_share=0.0, barge_in_share=0.0, late_share=1.0, late_s=(0.7, 0.9))
    turns = [(number % 2, "yes please") for number in range(20)]
    score = arrange(turns, say, habits, np.random.default_rng(0))
    gaps = [(one, (other.first - one.last) / RATE_HZ) for one, other in pairwise(score.utterances)]
    assert all(0.7 - 1e-3 <= gap <= 0.9 + 1e-3 for one, gap in gaps if one.speaker == USER)
    assert all(gap <= habits.longest_gap_s for one, gap in gaps if one.speaker == ASSISTANT)


@given(st.lists(TEXTS, min_size=2, max_size=8), st.integers(0, 999))
def test_backchannels_lie_inside_what_the_other_says(texts: list[str], seed: int) -> None:
    score = conversation(texts, seed)
    for utterance in score.utterances:
        if utterance.kind is Kind.BACKCHANNEL:
            others = [u for u in score.utterances if u.speaker != utterance.speaker and u.kind is not Kind.BACKCHANNEL]
            assert any(u.first < utterance.first and utterance.last < u.last for u in others)


@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 999))
def test_labels_are_whole_turns_on_the_frames_of_their_speech(texts: list[str], seed: int) -> None:
    score = conversation(texts, seed)
    labels = frame_labels(score, encode, frame_samples=FRAME_SAMPLES)
    assert len(labels) == -(-score.samples // FRAME_SAMPLES)
    mine = [u for u in score.utterances if u.speaker == ASSISTANT]
    begins = [place for place, label in enumerate(labels) if label in (Label.BEGIN, Label.BACKCHANNEL)]
    assert len(begins) == len(mine)
    for number, (utterance, begin) in enumerate(zip(mine, begins, strict=True)):
        assert begin >= utterance.first // FRAME_SAMPLES
        kind = Label.BACKCHANNEL if utterance.kind is Kind.BACKCHANNEL else Label.BEGIN
        assert labels[begin] is kind
        until = begins[number + 1] if number + 1 < len(begins) else len(labels)
        body = labels[begin + 1 : until]
        tokens = [label for label in body if isinstance(label, int)]
        said = encode(utterance.whole_text)
        assert tokens == said[: len(tokens)]
        ends = [label for label in body if label in (Label.END, Label.STOP)]
        if utterance.broken_off:
            assert ends in ([Label.STOP], [Label.END, Label.STOP])
        elif ends:
            assert ends == [Label.END]
            assert tokens == said
        else:
            assert until == len(labels)  # a text longer than the rest of the conversation


def test_a_stop_comes_a_frame_after_the_user_begins() -> None:
    long, short = "one two three four five six seven eight", "stop please"
    pcm = say(long, ASSISTANT)
    begins = RATE_HZ // 2 + 5 * FRAME_SAMPLES
    heard = Phrase("one two", RATE_HZ // 2, begins + 3000, pcm[: begins + 3000 - RATE_HZ // 2])
    barge = say(short, USER)
    score = Score(
        (
            Utterance(ASSISTANT, Kind.TURN, (heard,), long, broken_off=True),
            Utterance(USER, Kind.BARGE_IN, (Phrase(short, begins, begins + len(barge), barge),), short),
        ),
        begins + len(barge) + RATE_HZ,
    )
    labels = frame_labels(score, encode, frame_samples=FRAME_SAMPLES)
    place = labels.index(Label.STOP)
    assert place == begins // FRAME_SAMPLES + 1
    first = RATE_HZ // 2 // FRAME_SAMPLES
    assert labels[first:place] == [Label.BEGIN, *encode(long)[: place - first - 1]]
    assert set(labels[place + 1 :]) == {Label.SILENCE}


@given(TEXTS, st.integers(0, 99))
def test_a_pause_keeps_every_word_and_leaves_two_on_either_side(text: str, seed: int) -> None:
    parts = split_at_pause(text, np.random.default_rng(seed))
    if parts is None:
        assert len(text.split()) < 5
        return
    assert " ".join(parts) == text
    assert all(len(part.split()) >= 2 for part in parts)


@given(TEXTS, st.floats(0, 1))
def test_what_is_heard_begins_the_text_and_grows_with_time(text: str, share: float) -> None:
    part = heard_part(text, share)
    assert text.startswith(part)
    assert len(heard_part(text, 1.0)) == len(text)
    assert len(heard_part(text, share / 2)) <= len(part)


@settings(max_examples=20)
@given(st.integers(0, 999), st.sampled_from([None, 20.0, 35.0]))
def test_the_microphone_hears_the_room_at_all_times_and_the_echo_as_low_as_asked(
    seed: int, echo_db: float | None
) -> None:
    score = conversation(["can you help me please", "yes of course I can do that", "thanks a lot"], seed)
    chance = np.random.default_rng(seed)
    noise = chance.normal(size=4 * RATE_HZ).astype(np.float32)
    dirac = np.array([1.0], np.float32)
    quiet = Surroundings(noise, 60.0, dirac, dirac, echo_db)
    heard = microphone(score, quiet).astype(np.float64)
    assert len(heard) == score.samples
    assert np.abs(heard).max() == pytest.approx(0.5 * 32767, abs=1)
    user, assistant = tracks(score)
    frames = heard[: len(heard) // 160 * 160].reshape(-1, 160)
    assert (np.abs(frames).max(axis=1) > 0).all()

    def level(x: np.ndarray, where: np.ndarray) -> float:
        return float(np.sqrt(np.square(x[where]).mean()))

    mine, theirs = np.abs(user) > 1e-3, (np.abs(assistant) > 1e-3) & (user == 0)
    difference_db = 20 * np.log10(level(heard, mine) / level(heard, theirs))
    assert difference_db == pytest.approx(min(60.0, echo_db or 60.0), abs=1.5)


def test_a_text_that_cannot_be_said_ends_the_conversation_before_it() -> None:
    turns = [(USER, "hello there"), (ASSISTANT, "#"), (USER, "hello")]
    score = arrange(turns, lambda t, s: None if t == "#" else say(t, s), Habits(), np.random.default_rng(0))
    assert [u.whole_text for u in score.utterances if u.kind is not Kind.BACKCHANNEL] == ["hello there"]


def test_a_turn_that_cannot_be_said_breaks_nobody_off() -> None:
    habits = Habits(barge_in_share=1.0, paused_share=0.0, backchannel_share=0.0)

    def say_all_but(text: str, speaker: int) -> Pcm | None:
        return None if "$" in text else say(text, speaker)

    turns = [(USER, "what is it"), (ASSISTANT, "a restaurant, please"), (USER, "$$$"), (ASSISTANT, "no")]
    score = arrange(turns, say_all_but, habits, np.random.default_rng(0))
    assert [utterance.whole_text for utterance in score.utterances] == ["what is it"]
    assert set(frame_labels(score, encode, frame_samples=FRAME_SAMPLES)) == {Label.SILENCE}
