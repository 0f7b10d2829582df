"""The recipe at toy size: dialogues by rule, their encoding, and a run that goes on where it stopped."""

import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relay_models.decoder import DecoderConfig
from relay_models.tokenizer import ChatTokenizer, train_bpe
from relay_models.training import brain, brain_data, brain_facts
from relay_models.training.brain_data import CONTEXT, Dialogue, Generator, Prompts
from relay_models.training.brain_dialogues import expand, read_blocks, read_services
from relay_models.training.spoken import cardinal, misheard, ordinal, spoken, tidy, year

GENERATOR = Generator(Prompts(commands=["wake me up at five am", "qwerty"], remarks=["I like the old movies."]), seed=1)
TOKENIZER = ChatTokenizer(
    train_bpe((text for n in range(40) for _, text in GENERATOR.dialogue(n).turns), vocabulary=500)
)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It costs $12.50.", "It costs twelve dollars and fifty cents."),
        ("$3 million", "three million dollars"),
        ("at 5:05 p.m. or 7:00pm", "at five oh five pm or seven pm"),
        ("March 3rd, 2019", "March third, twenty nineteen"),
        ("since 1905 and 2004", "since nineteen oh five and two thousand four"),
        ("12,345 people, 7.5%", "twelve thousand three hundred forty five people, seven point five percent"),
        ("call 415-555-1212", "call four one five five five five one two one two"),
        ("the 80's and the 1990s", "the eighties and the nineties"),
        ("#1 rock & roll", "number one rock and roll"),
    ],
)
def test_spoken(written: str, said: str) -> None:
    assert spoken(written) == said


@given(st.integers(0, 10**9), st.integers(1, 99), st.integers(1100, 2099))
def test_numbers_are_words(number: int, place: int, when: int) -> None:
    for text in (cardinal(number), ordinal(place), year(when)):
        assert re.fullmatch(r"[a-z ]+", text)
        assert "  " not in text


@pytest.mark.parametrize(
    ("typed", "clean"),
    [
        ("yea i like it lol :)", "Yeah I like it."),
        ("do,you know it", "Do, you know it?"),
        ("i dont think so.i cant", "I don't think so. I can't."),
        ("what is it??? i'm here", "What is it? I'm here."),
    ],
)
def test_tidy(typed: str, clean: str) -> None:
    assert tidy(typed) == clean


@given(st.text(), st.integers())
def test_a_bad_ear_hears_no_punctuation_and_no_capitals(text: str, seed: int) -> None:
    heard = misheard(text, random.Random(seed))
    assert heard == heard.lower() or any(c.lower() != c and len(c.lower()) > 1 for c in text)


def test_every_pattern_expands() -> None:
    chance = random.Random(0)
    patterns = [line for block in read_blocks() for _, lines in block.turns for line in lines]
    for service in read_services():
        patterns += [*service.openings, *service.sums, *service.endings, *(x for pair in service.asides for x in pair)]
        patterns += [x for slot in service.slots for x in (*slot.mentions, *slot.questions, *slot.answers)]
    for pattern in patterns:
        for _ in range(4):
            assert not re.search(r"[{}\[\]|$]", expand(pattern, {}, chance)), pattern


def test_dialogues_by_rule_alternate_and_end_with_the_assistant() -> None:
    for index in range(300):
        turns = GENERATOR.dialogue(index).turns
        assert turns[-1][0] == "assistant"
        assert all(one[0] != other[0] for one, other in itertools.pairwise(turns))
        for role, text in turns:
            assert text[0].isupper() or not text[0].isalpha()
            if role == "assistant":
                assert text[-1] in ".!?"
                assert not re.search(r"\d", text)
    assert GENERATOR.dialogue(7) == GENERATOR.dialogue(7) != GENERATOR.dialogue(8)


def test_commands_are_answered_by_their_key_words() -> None:
    chance = random.Random(0)
    assert "phone" in (brain_facts.cannot("wake me up at five am", chance) or "")
    assert brain_facts.cannot("qwerty", chance) is None
    assert re.search("talk", brain_facts.listen("It was nice talking to you.", random.Random(1)))
    assert brain_facts.listen("What's a quokka?", chance) != brain_facts.listen("I hate it.", chance)
    assert brain_facts.listen("qwerty", chance)[-1] in ".?"


def test_encoding_marks_who_said_what() -> None:
    dialogue = Dialogue(
        "x", "1", (("user", "Hello."), ("assistant", "Hi there."), ("user", "Ok."), ("assistant", "My wife left."))
    )
    ((tokens, kinds),) = brain_data.encode(dialogue, TOKENIZER, random.Random(0))
    assert len(tokens) == len(kinds)
    said = {kind: TOKENIZER.decode([t for t, k in zip(tokens, kinds, strict=True) if k == kind]) for kind in set(kinds)}
    assert said[brain_data.ASSISTANT] == "Hi there."
    assert said[brain_data.UNFIT] == "My wife left."
    assert said[brain_data.USER].lower().startswith("hello")


@given(st.lists(st.integers(1, CONTEXT), min_size=1, max_size=12))
def test_packing_loses_nothing(lengths: Sequence[int]) -> None:
    pieces = [([7 + index] * length, [brain_data.USER] * length) for index, length in enumerate(lengths)]
    rows = brain_data.pack(pieces)
    for index, length in enumerate(lengths):
        where = np.argwhere(rows.tokens == 7 + index)
        assert len(where) == length
        assert len({row for row, _ in where}) == 1
        assert len(set(rows.documents[rows.tokens == 7 + index])) == 1
    assert ((rows.documents == 0) == (rows.kinds == brain_data.PADDING)).all()


CONFIG = DecoderConfig(
    vocab_size=TOKENIZER.size,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=CONTEXT,
)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [p for n in range(30) for p in brain_data.encode(GENERATOR.dialogue(n), TOKENIZER, random.Random(n))]
    rows = brain_data.pack(pieces)
    corpus = brain_data.Corpus({"relay_rules": rows}, {"relay_rules": rows})
    recipe = brain.Recipe(rows=2, warm_up=2, dropout=0.0)
    phases = [
        brain.Phase(4, {"books": 0.5, "relay_rules": 0.5}, (0.0, 1.0, 1.0, 1.0)),
        brain.Phase(2, {"relay_rules": 1.0}, (0.0, 0.1, 1.0, 0.0)),
    ]

    def run(name: str) -> dict[str, torch.Tensor]:
        folder, cpu = tmp_path / name, torch.device("cpu")
        return brain.train(CONFIG, corpus, recipe, phases, folder, device=cpu, checkpoint_steps=3).state_dict()

    straight = run("straight")
    write = brain.checkpoint

    def write_and_die(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(brain, "checkpoint", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            run("resumed")
    resumed = run("resumed")
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)


def test_the_learning_rate_warms_up_holds_and_falls_to_zero() -> None:
    recipe = brain.Recipe(warm_up=10, decay=0.5)
    rates = [brain.rate_at(step, 100, recipe) for step in range(101)]
    assert rates[0] < rates[5] < rates[10] == rates[49] == recipe.learning_rate
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[100] == pytest.approx(0)
