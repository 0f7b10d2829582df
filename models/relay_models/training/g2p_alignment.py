"""Which phonemes of a word belong to which of its letters, learned from pairs of spelling and pronunciation.

Expectation maximisation over all alignments in which every letter takes none, one or two phonemes, in order. It is the
one-to-many case of Jiampojamarn, Kondrak & Sherif 2007, "Applying many-to-many alignments and hidden Markov models to
letter-to-phoneme conversion", section 2. Words of one shape (letters, phonemes) are done together, as arrays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

Alignment = tuple[tuple[str, ...], ...]
"""One chunk of phonemes for each letter."""

_PAIR_PRIOR = 0.01
"""Share of two-phoneme chunks before anything is learned: a letter that takes two sounds is rare."""


def align(words: Mapping[str, Sequence[str]], *, rounds: int = 8) -> dict[str, Alignment]:
    """The likeliest alignment of each word (letters a to z only). Words that have none are left out.

    Stress marks take no part in the alignment, but are kept in the chunks.
    """
    bare = {word: [p.rstrip("012") for p in phonemes] for word, phonemes in words.items()}
    inventory = sorted({p for phonemes in bare.values() for p in phonemes})
    numbers = {p: i for i, p in enumerate(inventory)}
    shapes: dict[tuple[int, int], list[str]] = defaultdict(list)
    for word, phonemes in bare.items():
        if word and 0 < len(phonemes) <= 2 * len(word):
            shapes[len(word), len(phonemes)].append(word)
    groups = [
        _Group(
            names,
            np.array([[ord(c) - 97 for c in name] for name in names]),
            np.array([[numbers[p] for p in bare[name]] for name in names]),
            len(inventory),
        )
        for names in shapes.values()
    ]
    n = len(inventory)
    chances = np.full((26, 1 + n + n * n), _PAIR_PRIOR / (n * n))
    chances[:, : 1 + n] = (1 - _PAIR_PRIOR) / (1 + n)
    for _ in range(rounds):
        counts = np.full_like(chances, 1e-9)
        for group in groups:
            group.count(chances, counts)
        chances = counts / counts.sum(axis=1, keepdims=True)
    found: dict[str, Alignment] = {}
    for group in groups:
        for word, lengths in group.best(chances):
            said, chunks, place = words[word], [], 0
            for length in lengths:
                chunks.append(tuple(said[place : place + length]))
                place += length
            found[word] = tuple(chunks)
    return found


class _Group:
    """Words with as many letters and as many phonemes as each other: `letters` [words, L], `sounds` [words, P]."""

    def __init__(self, names: list[str], letters: Int, sounds: Int, inventory: int) -> None:
        self._names = names
        self._letters = letters
        self._single = 1 + sounds
        self._pair = 1 + inventory + sounds[:, :-1] * inventory + sounds[:, 1:]

    def _emissions(self, chances: Float) -> tuple[Float, Float, Float]:
        """Probability of each letter taking nothing, phoneme p, or phonemes p and p + 1: [words, L(, P or P - 1)]."""
        letters = self._letters[:, :, None]
        return (
            chances[self._letters, 0],
            chances[letters, self._single[:, None, :]],
            chances[letters, self._pair[:, None, :]],
        )

    def count(self, chances: Float, counts: Float) -> None:
        """Adds the expected number of times that each letter takes each chunk."""
        none, single, pair = self._emissions(chances)
        words, letters = self._letters.shape
        sounds = self._single.shape[1]
        ahead = np.zeros((letters + 1, words, sounds + 1))
        ahead[0, :, 0] = 1.0
        for i in range(letters):
            ahead[i + 1] = ahead[i] * none[:, i, None]
            ahead[i + 1, :, 1:] += ahead[i, :, :-1] * single[:, i]
            ahead[i + 1, :, 2:] += ahead[i, :, :-2] * pair[:, i]
        total = ahead[letters, :, sounds]
        behind = np.zeros((words, sounds + 1))
        behind[:, sounds] = 1.0 / np.maximum(total, 1e-300)
        for i in reversed(range(letters)):
            at = self._letters[:, i]
            np.add.at(counts, (at, np.zeros_like(at)), (ahead[i] * none[:, i, None] * behind).sum(axis=1))
            np.add.at(counts, (at[:, None], self._single), ahead[i, :, :-1] * single[:, i] * behind[:, 1:])
            np.add.at(counts, (at[:, None], self._pair), ahead[i, :, :-2] * pair[:, i] * behind[:, 2:])
            before = behind * none[:, i, None]
            before[:, :-1] += single[:, i] * behind[:, 1:]
            before[:, :-2] += pair[:, i] * behind[:, 2:]
            behind = before

    def best(self, chances: Float) -> list[tuple[str, list[int]]]:
        """Each word with the number of phonemes that each of its letters takes in the likeliest alignment."""
        none, single, pair = (np.log(np.maximum(e, 1e-300)) for e in self._emissions(chances))
        words, letters = self._letters.shape
        sounds = self._single.shape[1]
        score = np.full((words, sounds + 1), -np.inf)
        score[:, 0] = 0.0
        taken = np.zeros((letters, words, sounds + 1), dtype=np.int64)
        for i in range(letters):
            options = np.full((3, words, sounds + 1), -np.inf)
            options[0] = score + none[:, i, None]
            options[1, :, 1:] = score[:, :-1] + single[:, i]
            options[2, :, 2:] = score[:, :-2] + pair[:, i]
            taken[i] = options.argmax(axis=0)
            score = options.max(axis=0)
        lengths = np.zeros((words, letters), dtype=np.int64)
        place = np.full(words, sounds)
        for i in reversed(range(letters)):
            lengths[:, i] = taken[i, np.arange(words), place]
            place = place - lengths[:, i]
        ok = np.isfinite(score[:, sounds]) & (place == 0)
        return [(name, row) for name, row, fine in zip(self._names, lengths.tolist(), ok, strict=True) if fine]
