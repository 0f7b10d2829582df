"""Language models over the recogniser's pieces, for decoding. No torch: every runner uses them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from relay_models.loading import WeightsError

STEPS = 16
"""Quantised logarithms have steps of 1 / 16."""
LEAST_BACK_OFF = -8.0
CACHED = 256
"""Contexts whose scores are kept, those used last: half a megabyte with 512 pieces, full within minutes of a call."""


class Lm(Protocol):
    """What `relay_models.beam` asks of a language model. States are numbers, and equal for equal futures."""

    def start(self) -> int:
        """State before the first piece."""
        ...

    def advance(self, state: int, token: int) -> int:
        """State after one more piece."""
        ...

    def scores(self, state: int) -> NDArray[np.float32]:
        """Natural log-probability of each next piece, [vocabulary without blank]; not to be written to."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """The n-grams of one length, sorted by their pieces, the first one first. Quantised, as on disk.

    Attributes:
        tokens: [n-grams] uint16, the last piece of each. Of single pieces there are all, the beginning of the text
            (whose number is that of blank) as the last.
        scores: [n-grams] uint8, natural log-probability of the last piece after the others, as -`STEPS` x it.
        continued: [n-grams] bool, whether there are n-grams one longer that begin with this one.
        back_offs: [continued] uint8, log-weight of the shorter context after this n-gram, as
            `STEPS` x (it - `LEAST_BACK_OFF`).
        children: [continued] uint16, number of n-grams one longer that begin with this one.
    """

    tokens: NDArray[np.uint16]
    scores: NDArray[np.uint8]
    continued: NDArray[np.bool_]
    back_offs: NDArray[np.uint8]
    children: NDArray[np.uint16]


class NGramLm:
    """An n-gram model with back-off (Katz 1987), as a trie in flat arrays (as in Heafield 2011, KenLM).

    All n-grams are numbered through: 0 is the empty one, then come single pieces, pairs and so on; those that continue
    an n-gram stand in a row. A state is the number of the longest ending of the history that is known to be continued.

    Args:
        orders: N-grams of one, two ... pieces.

    Raises:
        WeightsError: The orders do not fit each other.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        ends = np.cumsum([1, *(len(order.tokens) for order in orders)])
        children = np.zeros(ends[-1], np.int64)
        children[0] = ends[1] - 1
        back_offs = np.zeros(ends[-1], np.float32)
        for first, order in zip(ends[:-1], orders, strict=True):
            places = first + order.continued.nonzero()[0]
            children[places] = order.children
            back_offs[places] = order.back_offs / np.float32(STEPS) + np.float32(LEAST_BACK_OFF)
        begins = np.cumsum(np.concatenate(([1], children)))
        if not np.array_equal(begins[ends[:-1]], ends[1:]) or begins[-1] != ends[-1]:
            raise WeightsError("the n-grams of the language model do not fit each other")
        scores = np.concatenate([[0], *(order.scores for order in orders)])
        self._begins: NDArray[np.int64] = begins
        self._tokens = np.concatenate([[0], *(order.tokens for order in orders)]).astype(np.int32)
        self._scores: NDArray[np.float32] = (scores / -STEPS).astype(np.float32)
        self._back_offs = back_offs
        self._vocabulary = len(orders[0].tokens)
        self._shorter = self._suffixes(ends)
        self._kept = functools.lru_cache(CACHED)(self._compute)

    @classmethod
    def load(cls, path: Path) -> NGramLm:
        """Reads what `save_orders` wrote. Raises WeightsError when the file is missing or damaged."""
        try:
            tensors = load_file(path)
            count = sum(name.endswith(".tokens") for name in tensors)
            orders = []
            for number in range(1, count + 1):
                parts = {part: tensors[f"{number}.{part}"] for part in _PARTS}
                bits = np.unpackbits(parts["continued"], count=len(parts["tokens"]))
                orders.append(Order(**parts | {"continued": bits.astype(bool)}))
            return cls(orders)
        except WeightsError:
            raise
        except Exception as error:  # the library has exceptions of its own beside OSError
            raise WeightsError(f"the language model {path.name} cannot be read ({error!r})") from error

    def start(self) -> int:
        """State before the first piece."""
        return self.advance(0, self._vocabulary - 1)

    def advance(self, state: int, token: int) -> int:
        """State after one more piece."""
        while True:
            child = self._child(state, token)
            if child and self._begins[child] < self._begins[child + 1]:
                return child
            if not state:
                return 0
            state = int(self._shorter[state])

    def scores(self, state: int) -> NDArray[np.float32]:
        """Natural log-probability of each next piece, [vocabulary without blank]; not to be written to."""
        return self._kept(state)

    def _compute(self, state: int) -> NDArray[np.float32]:
        first, last = self._begins[state], self._begins[state + 1]
        if not state:
            return self._scores[first : last - 1]
        found: NDArray[np.float32] = self.scores(int(self._shorter[state])) + self._back_offs[state]
        found[self._tokens[first:last]] = self._scores[first:last]
        return found

    def _child(self, state: int, token: int) -> int:
        """Number of the n-gram that is one piece longer; 0 when it is not known."""
        first, last = self._begins[state], self._begins[state + 1]
        place = int(first + self._tokens[first:last].searchsorted(token))
        return place if place < last and self._tokens[place] == token else 0

    def _suffixes(self, ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each n-gram the longest known one that it ends with; `ends`: of all orders, that of none first."""
        parents = np.repeat(np.arange(len(self._tokens)), np.diff(self._begins))
        keys = parents * self._vocabulary + self._tokens[1:]
        shorter = np.zeros(len(self._tokens), np.int64)
        for first, last in itertools.pairwise(ends[1:]):
            nodes = np.arange(first, last)
            above = shorter[parents[nodes - 1]]
            while len(nodes):
                wanted = above * self._vocabulary + self._tokens[nodes]
                places = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
                known = keys[places] == wanted
                shorter[nodes[known]] = places[known] + 1
                nodes, above = nodes[~known & (above > 0)], shorter[above[~known & (above > 0)]]
        return shorter


_PARTS = tuple(part.name for part in fields(Order))


def _tensors(orders: Sequence[Order]) -> dict[str, NDArray[np.generic]]:
    """By name, flags packed into bits."""
    tensors = {f"{n}.{part}": getattr(order, part) for n, order in enumerate(orders, start=1) for part in _PARTS}
    return {name: np.packbits(value) if name.endswith("continued") else value for name, value in tensors.items()}


def size_bytes(orders: Sequence[Order]) -> int:
    """What `save_orders` takes, apart from names."""
    return sum(tensor.nbytes for tensor in _tensors(orders).values())


def save_orders(orders: Sequence[Order], path: Path) -> None:
    """Writes n-grams of one, two ... pieces as safetensors."""
    save_file(_tensors(orders), path)
