"""Replies of the brain in place of the written ones: in their context, where they come to an end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from relay_models.decoder import Decoder
from relay_models.training import draft_answers
from relay_models.training.conversations import ASSISTANT, USER
from relay_models.training.draft_answers import answer, batches_of
from relay_models.training.draft_data import dialogue_lines, load_dialogues, write_dialogues
from relay_models.training.rating import likeliest
from tests.models.draft.tiny_draft import TOKENIZER, decoder_config

DIALOGUES = [
    [(USER, "hello there"), (ASSISTANT, "how are you"), (USER, "no one knows"), (ASSISTANT, "the time is noon")],
    [(USER, "what time is it"), (ASSISTANT, "you are there")],
    [(ASSISTANT, "hello"), (USER, "how are you"), (ASSISTANT, "hello there"), (USER, "what")],
]


def brain() -> Decoder:
    generator = torch.Generator().manual_seed(3)
    model = Decoder(decoder_config(TOKENIZER.size)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return model


BRAIN = brain()


def test_replies_are_the_brains_own_in_their_context(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"": "first", "what time is it": "second one", "hello there": "there you are"}

    def say(_: Decoder, contexts: list[list[int]], length: int, stop: int) -> list[list[int]]:
        assert stop == TOKENIZER.end
        asked = [TOKENIZER.decode(context) for context in contexts]
        seen.append(asked)
        return [TOKENIZER.encode(said[each]) if each in said else [7] * length for each in asked]

    seen: list[list[str]] = []
    monkeypatch.setattr(draft_answers, "likeliest", say)
    answered = answer(DIALOGUES, BRAIN, TOKENIZER)
    # Those at the same place are one batch; each follows what was answered before, and not what was written.
    assert seen == [
        [""],
        ["hello there", "what time is it"],
        ["firsthow are you"],
        ["hello therethere you areno one knows"],
    ]
    assert [text for who, text in answered[1] if who == ASSISTANT] == ["second one"]
    assert answered[2][2] == DIALOGUES[2][2], "what does not come to an end is not taken"
    for before, after in zip(DIALOGUES, answered, strict=True):
        assert [turn for turn in after if turn[0] == USER] == [turn for turn in before if turn[0] == USER]
        assert [who for who, _ in after] == [who for who, _ in before]


def test_a_batch_answers_as_one_alone_does() -> None:
    together = answer(DIALOGUES, BRAIN, TOKENIZER)
    assert together == [answer([dialogue], BRAIN, TOKENIZER)[0] for dialogue in DIALOGUES]
    (own,) = likeliest(BRAIN, [[*TOKENIZER.turn("user", "what time is it"), TOKENIZER.assistant]], 48, TOKENIZER.end)
    if len(own) < 48:
        assert together[1][1][1] == TOKENIZER.decode(own).strip()


def test_every_dialogue_is_in_one_batch() -> None:
    numbers = [number for batch in batches_of(DIALOGUES * 5, 4) for number in batch]
    assert sorted(numbers) == list(range(15))
    assert max(len(batch) for batch in batches_of(DIALOGUES * 5, 4)) == 4


def test_answered_dialogues_are_taken_where_there_are_some(tmp_path: Path) -> None:
    lines = [(number == 1, dialogue) for number, dialogue in enumerate(DIALOGUES)]
    write_dialogues(lines, tmp_path / "dialogues.xz")
    assert dialogue_lines(tmp_path / "dialogues.xz") == lines
    assert load_dialogues(tmp_path, held_out=False) == [DIALOGUES[0], DIALOGUES[2]]
    assert load_dialogues(tmp_path, held_out=True) == [DIALOGUES[1]]
    write_dialogues([(True, DIALOGUES[0])], tmp_path / "answered-0-2.xz")
    write_dialogues([(True, DIALOGUES[2])], tmp_path / "answered-1-2.xz")
    assert load_dialogues(tmp_path, held_out=True) == [DIALOGUES[0], DIALOGUES[2]]
    assert load_dialogues(tmp_path, held_out=False) == []
