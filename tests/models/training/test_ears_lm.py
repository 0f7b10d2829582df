"""Counting, smoothing and pruning against recursions over dictionaries, and the whole recipe on a few sentences."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from relay_models.lm import NGramLm
from relay_models.training.ears_data import Guard, save_texts, train_pieces
from relay_models.training.ears_lm import (
    Grams,
    collect,
    count,
    discounts,
    encode,
    estimate,
    held_out,
    look_up,
    passages,
    perplexity,
    prune,
    quantise,
    train,
)

VOCABULARY = 7
START = VOCABULARY - 1
ORDER = 3


@cache
def texts(seed: int = 0) -> list[list[int]]:
    """Random walks in which some pieces prefer each other; piece 5 is rare, piece 4 never comes."""
    chance, found = np.random.default_rng(seed), []
    for _ in range(150):
        walk = [int(chance.integers(4))]
        for _ in range(int(chance.integers(1, 9))):
            walk.append(5 if chance.random() < 0.02 else (walk[-1] + int(chance.choice([0, 1, 1, 2]))) % 4)
        found.append(walk)
    return found


def corpus() -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.array([piece for text in texts() for piece in (START, *text)], np.uint16)


@cache
def counted(length: int) -> Counter[tuple[int, ...]]:
    rows = [(START, *text) for text in texts()]
    return Counter(row[i : i + length] for row in rows for i in range(len(row) - length + 1))


def key(gram: Sequence[int]) -> int:
    return sum(piece * VOCABULARY**place for place, piece in enumerate(reversed(gram)))


@cache
def kneser_ney(gram: tuple[int, ...]) -> float:
    """Probability of the last piece after the others, as Chen and Goodman write it."""
    if not gram:
        return 1 / START
    counts = counted(len(gram))
    if len(gram) < ORDER:
        before = Counter(longer[1:] for longer in counted(len(gram) + 1))
        counts = Counter({g: before[g] or number for g, number in counts.items()})
    if len(gram) == 1:
        del counts[(START,)]
    taken = discounts(np.array(list(counts.values())))
    after = {g: number for g, number in counts.items() if g[:-1] == gram[:-1]}
    total = sum(after.values())
    if not total:
        return kneser_ney(gram[1:])
    left = sum(taken[min(number, 3)] for number in after.values()) / total
    number = counts[gram]
    return (number - taken[min(number, 3)]) / total + left * kneser_ney(gram[1:])


def model() -> list[Grams]:
    return estimate(count(corpus(), ORDER, VOCABULARY), VOCABULARY)


def totals(grams: Sequence[Grams]) -> list[float]:
    """Sum of the probabilities after each known context."""
    contexts = [gram for level in range(ORDER) for gram in (counted(level) if level else [()])]
    return [
        sum(
            math.exp(look_up(grams[: len(context) + 1], np.array([key((*context, piece))]), VOCABULARY)[0])
            for piece in range(START)
        )
        for context in contexts
    ]


def test_counts_are_those_of_a_loop() -> None:
    for length, (keys, counts) in enumerate(count(corpus(), ORDER, VOCABULARY), start=1):
        want = {key(gram): number for gram, number in counted(length).items()}
        assert {k: c for k, c in zip(keys.tolist(), counts.tolist(), strict=True) if c} == want
        assert keys.tolist() == sorted(keys.tolist())


def test_probabilities_are_those_of_kneser_and_ney() -> None:
    for length, order in enumerate(model(), start=1):
        for gram in counted(length):
            if gram != (START,):
                place = order.keys.searchsorted(key(gram))
                assert math.exp(order.scores[place]) == pytest.approx(kneser_ney(gram))


def test_probabilities_sum_to_one_however_much_is_pruned() -> None:
    grams = model()
    sizes = []
    for threshold in (0.0, 3e-4, 3e-3, 1.0):
        prune(grams, threshold, VOCABULARY)
        sizes.append(sum(len(order.keys) for order in grams))
        assert totals(grams) == pytest.approx([1.0] * len(totals(grams)))
        for shorter, longer in pairwise(grams):
            assert np.isin(longer.keys // VOCABULARY, shorter.keys).all()
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] == VOCABULARY


def test_pruning_takes_what_matters_least() -> None:
    """By the divergence of the whole model, the one n-gram that goes first is the right one."""
    whole = model()
    longest, known = whole[-1], {gram: number / corpus().size for gram, number in counted(ORDER - 1).items()}
    contexts = {key(gram): share for gram, share in known.items()}

    def divergence(without: int) -> float:
        """Kullback and Leibler's, from the whole model to the one without this n-gram, over all contexts."""
        less = deepcopy(whole)
        less[-1].keep(longest.keys != without)
        prune(less, 0.0, VOCABULARY)
        context = without // VOCABULARY
        keys = np.array([context * VOCABULARY + piece for piece in range(START)])
        p, q = (look_up(grams, keys, VOCABULARY) for grams in (whole, less))
        return contexts[context] * float((np.exp(p) * (p - q)).sum())

    losses = {k: divergence(k) for k in longest.keys.tolist()}
    threshold = sorted(losses.values())[len(losses) // 2] * (1 + 1e-6)
    prune(whole, threshold, VOCABULARY)
    assert set(whole[-1].keys.tolist()) == {k for k, loss in losses.items() if loss >= threshold}


def test_the_quantised_model_scores_nearly_the_same() -> None:
    grams = model()
    prune(grams, 1e-3, VOCABULARY)
    lm = NGramLm(quantise(grams, VOCABULARY))
    for text in texts(1)[:20]:
        state, history = lm.start(), [START]
        for piece in text:
            keys = np.array([key([*history[1 - ORDER :], following]) for following in range(START)])
            want = look_up(grams[: min(ORDER, len(history) + 1)], keys, VOCABULARY)
            np.testing.assert_allclose(lm.scores(state), want, atol=0.1)
            state = lm.advance(state, piece)
            history.append(piece)


def test_a_paragraph_with_a_held_out_sentence_is_dropped_whole() -> None:
    guard = Guard(["the cat sat on the mat and slept"])
    assert passages("He went. She came! It <b>was</b> late. We slept.", guard) == [
        ["he went", "she came"],
        ["we slept"],
    ]
    assert passages("He went. And so the cat sat on the mat and purred. We slept.", guard) == []


TEXT = "a dog saw the old man and then he ran to his house by the sea where it was warm"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    said = [" ".join(chance.choice(TEXT.split(), 6)) for _ in range(200)]
    (tmp_path / "clips").mkdir()
    for name, text in (("kathleen", "the old man ran to the sea"), ("train_kathleen", "a dog"), ("rooms", "")):
        (tmp_path / "clips" / f"{name}.json").write_text(json.dumps({"texts": [text]}), encoding="utf-8")
    save_texts([*said, "Then the old man ran to the sea."], tmp_path / "texts.xz")
    save_texts(["he saw the dog by the house"], tmp_path / "judge.xz")
    train_pieces(said, 40).save(str(tmp_path / "tokenizer.json"))
    with gzip.open(tmp_path / "books.txt.gz", "wt", encoding="utf-8") as file:
        file.write(
            f"{said[0].capitalize()}. It was warm.\n\nHe saw. He saw the dog by the house where it was.\n\nWarm."
        )
    return tmp_path


def test_nothing_judged_is_counted_and_nothing_twice(root: Path) -> None:
    judged = held_out(root)
    assert judged == {"judge": ["he saw the dog by the house"], "kathleen": ["the old man ran to the sea"]}
    got = list(collect(root, root / "books.txt.gz", Guard(text for texts in judged.values() for text in texts)))
    assert got[1] == "warm"
    assert got[0].endswith(" it was warm")
    assert len(got) == 2 + 199
    assert not any("ran to the sea" in label or "he saw the dog" in label for label in got if len(label.split()) > 6)


def test_the_recipe_writes_the_largest_model_that_fits(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"books": root / "books.txt.gz", "order": 4}
    with pytest.raises(ValueError, match=r"none of the models has 0\.0001 MB or less"):
        train(root, root / "out", thresholds=[1e-4], most_mb=1e-4, **options)
    train(root, root / "out", thresholds=[1e-2, 1e-5, 1e-4], most_mb=0.004, **options)
    lines = capsys.readouterr().out.splitlines()
    assert ["written" in line for line in lines[-3:]] == [False, True, False]
    lm = NGramLm.load(root / "out/lm.safetensors")
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    assert perplexity(lm, [TEXT], tokenizer) < 40
    pieces = encode(["a dog", "sea"], tokenizer).tolist()
    assert pieces[0] == tokenizer.get_vocab_size()
    assert pieces.count(pieces[0]) == 2
