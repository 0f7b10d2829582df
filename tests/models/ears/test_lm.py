"""The n-gram trie against a dictionary of n-grams that anyone can read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models import lm as module
from relay_models.lm import LEAST_BACK_OFF, STEPS, NGramLm, Order, save_orders
from relay_models.loading import WeightsError

VOCABULARY = 6
START = VOCABULARY - 1
Grams = dict[tuple[int, ...], tuple[int, int]]


def some_grams(seed: int, orders: int = 4, share: float = 0.3) -> Grams:
    """Random n-grams with quantised (score, back-off); the beginnings of each are there, its ends need not be."""
    chance = random.Random(seed)
    found: Grams = {(piece,): (chance.randrange(256), 128) for piece in range(VOCABULARY)}
    level = sorted(found)
    for _ in range(orders - 1):
        level = [(*gram, piece) for gram in level for piece in range(START) if chance.random() < share] or [
            (*level[0], 0)
        ]
        found |= {gram: (chance.randrange(256), 128) for gram in level}
    contexts = {gram[:-1] for gram in found}
    return {gram: (score, chance.randrange(256) if gram in contexts else 128) for gram, (score, _) in found.items()}


def tables(grams: Grams) -> list[Order]:
    orders = []
    for length in range(1, max(map(len, grams)) + 1):
        level = sorted(gram for gram in grams if len(gram) == length)
        children = [sum(gram == other[:-1] for other in grams) for gram in level]
        orders.append(
            Order(
                np.array([gram[-1] for gram in level], np.uint16),
                np.array([grams[gram][0] for gram in level], np.uint8),
                np.array([count > 0 for count in children]),
                np.array([grams[gram][1] for gram, count in zip(level, children, strict=True) if count], np.uint8),
                np.array([count for count in children if count], np.uint16),
            )
        )
    return orders


def score(grams: Grams, history: Sequence[int], piece: int) -> float:
    """Katz's recursion."""
    weight = 0.0
    for first in range(len(history) + 1):
        context = tuple(history[first:])
        if (found := grams.get((*context, piece))) is not None:
            return weight - found[0] / STEPS
        if context in grams:
            weight += grams[context][1] / STEPS + LEAST_BACK_OFF
    raise AssertionError("every single piece is known")


@given(st.integers(0, 10_000), st.lists(st.integers(0, START - 1), max_size=12), st.sampled_from([0.15, 0.3, 0.6]))
def test_scores_are_those_of_the_recursion(seed: int, said: list[int], share: float) -> None:
    grams = some_grams(seed, share=share)
    lm, history = NGramLm(tables(grams)), [START]
    state = lm.start()
    for piece in [*said, None]:
        want = [score(grams, history, following) for following in range(START)]
        np.testing.assert_allclose(lm.scores(state), want, atol=1e-4)
        if piece is not None:
            history.append(piece)
            state = lm.advance(state, piece)


@given(st.integers(0, 1000), st.lists(st.integers(0, START - 1), min_size=4, max_size=12))
def test_histories_that_end_alike_share_a_state(seed: int, said: list[int]) -> None:
    lm = NGramLm(tables(some_grams(seed)))
    state, other = lm.start(), lm.advance(lm.start(), 0)
    for piece in said:
        state, other = lm.advance(state, piece), lm.advance(other, piece)
    assert state == other


def test_forgotten_scores_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED", 3)
    grams = some_grams(1, share=0.6)
    lm, fresh = NGramLm(tables(grams)), NGramLm(tables(grams))
    state, chance = lm.start(), random.Random(0)
    for _ in range(50):
        state = lm.advance(state, chance.randrange(START))
        np.testing.assert_array_equal(lm.scores(state), NGramLm._compute(fresh, state))
        assert lm._kept.cache_info().currsize <= 3


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    grams = some_grams(2)
    save_orders(tables(grams), tmp_path / "lm.safetensors")
    lm = NGramLm.load(tmp_path / "lm.safetensors")
    assert lm.scores(lm.start()).tolist() == pytest.approx([score(grams, [START], piece) for piece in range(START)])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.safetensors"
    with pytest.raises(WeightsError, match=r"lm\.safetensors cannot be read"):
        NGramLm.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"lm\.safetensors cannot be read"):
        NGramLm.load(path)
    orders = tables(some_grams(3))
    last = replace(orders[-1], tokens=orders[-1].tokens[1:], continued=orders[-1].continued[1:])
    save_orders([*orders[:-1], last], path)
    with pytest.raises(WeightsError, match="do not fit each other"):
        NGramLm.load(path)
