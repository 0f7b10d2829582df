"""A lexicon for tests: a few words, and a letters-to-sounds model with random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relay_models.frontend import Frontend, SpokenWord, TextStream
from relay_models.frontend.g2p import HISTORY, OUTSIDE, REACH, STRESS_STATES, LettersToSounds
from relay_models.frontend.lexicon import Lexicon, PackedDictionary

WORDS = {
    "cat": ("K", "AE1", "T"),
    "play": ("P", "L", "EY1"),
    "want": ("W", "AA1", "N", "T"),
    "church": ("CH", "ER1", "CH"),
    "stop": ("S", "T", "AA1", "P"),
    "bake": ("B", "EY1", "K"),
    "carry": ("K", "EH1", "R", "IY0"),
    "a": ("AH0",),
    "ad": ("AE1", "D"),
    "the": ("DH", "AH0"),
    "quick": ("K", "W", "IH1", "K"),
    **dict.fromkeys(("not", "this", "do", "nasa", "phd", "zoo"), ("N", "AA1", "T")),
}
CHUNKS = ((), ("AE1",), ("AH0",), ("K",), ("T",), ("K", "S"), ("Y", "UW1"))


def random_tensors(chunks: int = len(CHUNKS), *, seed: int = 0) -> dict[str, NDArray[Any]]:
    chance = np.random.default_rng(seed)
    hidden, inner = 12, 8
    shapes = {
        "letters": ((2 * REACH + 1) * (OUTSIDE + 1), hidden),
        "history": (HISTORY * (chunks + 1) + STRESS_STATES, hidden),
        "inner": (hidden, inner),
        "outer": (inner, chunks),
    }
    tensors: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        tensors[name] = chance.integers(-127, 128, shape).astype(np.int8)
        tensors[f"{name}.scale"] = np.full(shape[1], 0.01, dtype=np.float32)
    for name, width in (("letters", hidden), ("inner", inner), ("outer", chunks)):
        tensors[f"{name}.bias"] = chance.normal(size=width).astype(np.float32)
    return tensors


@cache
def small_frontend() -> Frontend:
    model = LettersToSounds(random_tensors(), CHUNKS)
    return Frontend(Lexicon(PackedDictionary(PackedDictionary.pack(WORDS)), model))


def spoken_words(text: str) -> list[SpokenWord]:
    stream = TextStream(small_frontend())
    return stream.push(text) + stream.finish()
