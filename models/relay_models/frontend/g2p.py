"""Letters -> phonemes by a small learned model, in numpy: for words that no dictionary knows.

Every letter stands for a chunk of none, one or two phonemes (Black, Lenzo & Pagel 1998, "Issues in building general
letter to sound rules", section 2). A network with two hidden layers gives the probabilities of a letter's chunk from
the letters around it and the chunks before it; a beam search finds the likely sequence for the whole word. The first
layer is a sum of table rows, one for each letter of the window and each part of the history, so that inference needs
no large product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relay_models.phonemes import is_vowel

Float = NDArray[np.float32]
Int = NDArray[np.int64]

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
OUTSIDE: Final = len(LETTERS)
"""Letter id of positions before and after the word."""
REACH: Final = 8
"""Letters to each side that the model sees."""
HISTORY: Final = 3
"""Chunks before the current one that the model sees."""
STRESS_STATES: Final = 3
"""No vowel so far; vowels, but no primary stress; primary stress."""
LONGEST: Final = 64
"""Letters of a word that are read; what is longer is no word, and is read in pieces of this length."""


def letter_ids(word: str) -> Int:
    """Ids of a word's letters a to z, in order; everything else in it is left out."""
    return np.array([ord(c) - 97 for c in word if "a" <= c <= "z"], dtype=np.int64)


def window_rows(ids: Int) -> Int:
    """Table rows of the letters around each letter: [letters] -> [letters, 2 * REACH + 1]."""
    padded = np.full(len(ids) + 2 * REACH, OUTSIDE, dtype=np.int64)
    padded[REACH : REACH + len(ids)] = ids
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)
    return around + np.arange(2 * REACH + 1) * (OUTSIDE + 1)


def stress_state(state: int, chunk: Sequence[str]) -> int:
    """What is known about the word's stress after one more chunk."""
    for phoneme in chunk:
        if is_vowel(phoneme):
            state = 2 if phoneme.endswith("1") else max(state, 1)
    return state


def history_rows(previous: Sequence[int], state: int, chunks: int) -> list[int]:
    """Table rows of the latest chunks, latest first, and of the stress so far. `chunks` is the number of kinds.

    Id `chunks` stands for positions before the word.
    """
    latest = [previous[-back] if back <= len(previous) else chunks for back in range(1, HISTORY + 1)]
    rows = [slot * (chunks + 1) + chunk for slot, chunk in enumerate(latest)]
    return [*rows, HISTORY * (chunks + 1) + state]


class LettersToSounds:
    """The model, ready to use. It has no state: one object serves all streams.

    Args:
        tensors: `letters` [(2 * REACH + 1) * 27, hidden], `history` [HISTORY * (chunks + 1) + 3, hidden],
            `inner` [hidden, hidden 2], `outer` [hidden 2, chunks], each int8 with a float32 `<name>.scale` per
            column, and float32 `letters.bias`, `inner.bias`, `outer.bias`.
        chunks: The phonemes of every chunk, by id.
        beam: Sequences kept while searching.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], chunks: Sequence[Sequence[str]], *, beam: int = 4) -> None:
        self._chunks = [tuple(chunk) for chunk in chunks]
        self._beam = beam
        self._letters = _dequantised(tensors, "letters")
        self._history = _dequantised(tensors, "history")
        self._inner = _dequantised(tensors, "inner")
        self._outer = _dequantised(tensors, "outer")
        self._letters_bias: Float = tensors["letters.bias"]
        self._inner_bias: Float = tensors["inner.bias"]
        self._outer_bias: Float = tensors["outer.bias"]
        # Stress state after each chunk, from each state: [states][chunks].
        self._next_state = [[stress_state(s, chunk) for chunk in self._chunks] for s in range(STRESS_STATES)]

    def __call__(self, word: str) -> tuple[str, ...]:
        """Phonemes of a word in lower case; letters other than a to z are silent. Empty when there is no letter."""
        ids = letter_ids(word)
        found: list[str] = []
        for start in range(0, len(ids), LONGEST):
            found += self._search(ids[start : start + LONGEST])
        return tuple(found)

    def _search(self, ids: Int) -> list[str]:
        around = self._letters[window_rows(ids)].sum(axis=1) + self._letters_bias
        kinds = len(self._chunks)
        beam: list[tuple[float, tuple[int, ...], int]] = [(0.0, (), 0)]
        for position in range(len(ids)):
            rows = [history_rows(chunks[-HISTORY:], state, kinds) for _, chunks, state in beam]
            hidden = np.maximum(around[position] + self._history[rows].sum(axis=1), 0.0)
            hidden = np.maximum(hidden @ self._inner + self._inner_bias, 0.0)
            logits = hidden @ self._outer + self._outer_bias
            logits -= logits.max(axis=1, keepdims=True)
            scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            scores += np.array([[score] for score, _, _ in beam], dtype=np.float32)
            flat = scores.ravel()
            kept = min(self._beam, len(flat))
            best = np.argpartition(flat, -kept)[-kept:]
            best = best[np.argsort(-flat[best], kind="stable")]
            grown = []
            for place in best.tolist():
                row, chunk = divmod(place, kinds)
                _, chunks, state = beam[row]
                grown.append((float(flat[place]), (*chunks, chunk), self._next_state[state][chunk]))
            beam = grown
        return [phoneme for chunk in beam[0][1] for phoneme in self._chunks[chunk]]


def _dequantised(tensors: Mapping[str, NDArray[Any]], name: str) -> Float:
    """int8 weights times the scale of their column, as float32."""
    weights: Float = tensors[name].astype(np.float32) * tensors[f"{name}.scale"]
    return weights
