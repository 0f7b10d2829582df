"""Spoken dialogues for the draft model: what is heard, what should be said, and the same again from the same key."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from relay_models.draft import Special
from relay_models.tokenizer import ChatTokenizer, train_bpe
from relay_models.training.brain_data import Dialogue
from relay_models.training.conversations import ASSISTANT, RATE_HZ, USER, Habits, Pcm
from relay_models.training.draft_data import (
    FRAME_SAMPLES,
    Spoken,
    Voices,
    pieces_of,
    read_shard,
    say_shards,
    spoken,
    synthesisers,
    trimmed,
    write_shard,
)

TURNS = [
    (USER, "hello I would like to know what the time is now please"),
    (ASSISTANT, "It is noon."),
    (USER, "thank you very much and what is the weather like"),
    (ASSISTANT, "I have no way to know."),
]
TOKENIZER = ChatTokenizer(train_bpe([text for _, text in TURNS] * 3, vocabulary=320))
TALKATIVE = Habits(paused_share=1.0, backchannel_share=0.5, barge_in_share=0.3)


def tone(text: str, speaker: int) -> Pcm:
    """60 ms a letter, higher for the assistant."""
    time = np.arange(len(text) * RATE_HZ * 6 // 100) / RATE_HZ
    return (9000 * np.sin(2 * np.pi * (200 + 150 * speaker) * time)).astype(np.int16)


def dialogue(seed: int, habits: Habits = TALKATIVE) -> Spoken:
    said = spoken(TURNS, tone, TOKENIZER, (seed,), habits)
    assert said is not None
    return said


def test_frames_hold_what_should_be_said() -> None:
    said = dialogue(0, Habits(paused_share=0.0, backchannel_share=0.0, barge_in_share=0.0))
    assert len(said.labels) == -(-len(said.pcm) // FRAME_SAMPLES)
    specials = [TOKENIZER.size + each for each in Special]
    sil, bos, eos, _, _ = specials
    texts, begins = [], []
    inside: list[int] | None = None
    for frame, token in enumerate(said.labels):
        if token == bos:
            inside = []
            begins.append(frame)
        elif token == eos and inside is not None:
            texts.append(TOKENIZER.decode(inside))
            inside = None
        elif inside is not None:
            inside.append(token)
        else:
            assert token == sil
    assert texts == ["It is noon.", "I have no way to know."]
    assert begins == [turn.first for turn in said.turns if turn.speaker == ASSISTANT]
    assert [turn.text for turn in said.turns] == [text for _, text in TURNS]


def test_pauses_lie_inside_the_users_turns_and_nobody_begins_there() -> None:
    said = dialogue(3)
    assert said.pauses
    for first, last in said.pauses:
        assert any(t.speaker == USER and t.first < first and last < t.last for t in said.turns)
        assert TOKENIZER.size + Special.BOS not in said.labels[first : last + 1]


def test_all_follows_from_the_key_and_there_is_never_silence() -> None:
    one, same, other = dialogue(5), dialogue(5), dialogue(6)
    assert np.array_equal(one.pcm, same.pcm)
    assert (one.labels, one.turns, one.pauses) == (same.labels, same.turns, same.pauses)
    assert len(one.pcm) != len(other.pcm) or not np.array_equal(one.pcm, other.pcm)
    for part in np.array_split(one.pcm, len(one.pcm) // 800):
        assert part.any()


def test_shards_give_back_what_was_written(tmp_path: Path) -> None:
    dialogues = [dialogue(1), dialogue(2)]
    write_shard(dialogues, tmp_path, "a")
    for before, after in zip(dialogues, read_shard(tmp_path / "a.json"), strict=True):
        assert np.array_equal(before.pcm, after.pcm)
        assert (before.labels, before.turns, before.pauses) == (after.labels, after.turns, after.pauses)
    assert say_shards([TURNS], lambda _: tone, TOKENIZER, tmp_path / "b", "w", key=(0,), seconds=60, most=3) == 3
    assert sum(len(read_shard(path)) for path in (tmp_path / "b").glob("*.json")) == 3
    nobody = say_shards([TURNS], lambda _: _mute, TOKENIZER, tmp_path / "c", "w", key=(0,), seconds=60, most=2)
    assert nobody == 0, "what cannot be said does not keep a worker for ever"


def _mute(text: str, speaker: int) -> Pcm | None:
    return None


def test_pieces_begin_with_the_user_and_leave_out_long_replies() -> None:
    roles = ["assistant", "user", "user", "assistant"] + ["user", "assistant"] * 12
    turns = [(role, "so " * 40 if number == 11 else f"text {number}") for number, role in enumerate(roles)]
    pieces = list(pieces_of(Dialogue("x", "0", tuple(turns)), random.Random(0)))
    assert len(pieces) > 2
    for piece in pieces:
        assert piece[0][0] == USER
        assert any(speaker == ASSISTANT for speaker, _ in piece)
        assert all(one[0] != other[0] for one, other in pairwise(piece))
        assert all(len(text.split()) <= 32 for speaker, text in piece if speaker == ASSISTANT)
    assert pieces[0][0][1] == "text 1 text 2"


def test_silence_is_trimmed() -> None:
    quiet = np.zeros(100, np.int16)
    assert trimmed(quiet) is None
    clip = np.concatenate((quiet, np.full(7, -20_000, np.int16), quiet))
    kept = trimmed(clip)
    assert kept is not None
    assert kept.tolist() == [-20_000] * 7


def test_voices_stay_the_same_within_a_dialogue(tmp_path: Path) -> None:
    espeakng_loader = pytest.importorskip("espeakng_loader")
    (tmp_path / "libespeak-ng.so").symlink_to(espeakng_loader.get_library_path())
    (tmp_path / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
    user, assistant = synthesisers("espeak", tmp_path)
    say = Voices(user, assistant, (1, 2))
    once, again, others = (
        say("what is the time", USER),
        say("what is the time", USER),
        say("what is the time", ASSISTANT),
    )
    assert once is not None
    assert again is not None
    assert others is not None
    assert abs(len(once) - len(again)) < RATE_HZ // 50
    assert abs(len(once) - len(others)) > RATE_HZ // 50
    assert say("12 @ ☃", USER) is None
