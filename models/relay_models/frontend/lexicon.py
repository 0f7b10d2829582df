"""Spoken words -> phonemes: own exceptions, the packed dictionary, inflections by rule, letters to sounds.

The dictionary lies in memory as one run of bytes, sorted by word: letters as ASCII, then one byte from 128 on for each
phoneme, then a line feed. A short list of every sixty-fourth word leads to the stretch that a word must be in.
"""

from __future__ import annotations

import lzma
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from relay_models import loading
from relay_models.frontend.exceptions import EXCEPTIONS, LETTER_NAMES
from relay_models.frontend.g2p import LettersToSounds
from relay_models.phonemes import PHONEMES

MODEL_NAME: Final = "frontend"
TENSORS: Final = "model.safetensors"

Phonemes = tuple[str, ...]

_FIRST_SOUND: Final = 128
_STRIDE: Final = 64
_VOICELESS: Final = frozenset({"P", "T", "K", "F", "TH", "S", "SH", "CH"})
_SIBILANTS: Final = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})
_CONTRACTIONS: Final[tuple[tuple[str, Phonemes], ...]] = (
    ("'ll", ("AH0", "L")), ("'ve", ("AH0", "V")), ("'re", ("ER0",)), ("'d", ("D",)), ("n't", ("AH0", "N", "T")),
    ("'m", ("M",)),
)  # fmt: skip


class PackedDictionary:
    """Pronunciations by word, in lower case.

    Args:
        packed: The dictionary as `pack` makes it, [bytes] uint8.
    """

    def __init__(self, packed: NDArray[np.uint8]) -> None:
        self._bytes = b"\n" + lzma.decompress(packed.tobytes())
        ends = [found.start() for found in re.finditer(rb"\n", self._bytes)]
        self._starts = ends[:-1:_STRIDE]
        self._heads = [self._word_at(start + 1) for start in self._starts]
        self._starts.append(ends[-1])

    def __len__(self) -> int:
        return self._bytes.count(b"\n") - 1

    def get(self, word: str) -> Phonemes | None:
        """Phonemes of a word, None when it is not there."""
        key = word.encode("ascii", "replace")
        block = bisect_right(self._heads, key) - 1
        if block < 0 or not key:
            return None
        start, stop = self._starts[block], self._starts[block + 1] + 1
        at = self._bytes.find(b"\n" + key, start, stop)
        if at < 0:
            return None
        # Sorted, a word comes before all longer ones that begin with it: the first find is it, or it is not there.
        begin = at + 1 + len(key)
        sounds = self._bytes[begin : self._bytes.index(b"\n", begin)]
        return tuple(PHONEMES[b - _FIRST_SOUND] for b in sounds) if sounds[0] >= _FIRST_SOUND else None

    def _word_at(self, start: int) -> bytes:
        end = start
        while self._bytes[end] < _FIRST_SOUND:
            end += 1
        return self._bytes[start:end]

    @staticmethod
    def pack(words: Mapping[str, Phonemes]) -> NDArray[np.uint8]:
        """The dictionary as bytes for a safetensors file, compressed. Words hold a to z and apostrophes only."""
        numbers = {phoneme: _FIRST_SOUND + i for i, phoneme in enumerate(PHONEMES)}
        lines = [word.encode("ascii") + bytes(numbers[p] for p in words[word]) for word in sorted(words)]
        plain = b"\n".join(lines) + b"\n"
        return np.frombuffer(lzma.compress(plain, preset=6 | lzma.PRESET_EXTREME), dtype=np.uint8)


class Lexicon:
    """The phonemes of any spoken word. Several streams may share one.

    Args:
        dictionary: Known words.
        model: Letters to sounds for all others.
    """

    def __init__(self, dictionary: PackedDictionary, model: LettersToSounds) -> None:
        self._dictionary = dictionary
        self._model = model
        self.say: Callable[[str], Phonemes] = lru_cache(maxsize=8192)(self._say)
        self.find: Callable[[str], Phonemes | None] = lru_cache(maxsize=8192)(self._find)

    def knows(self, word: str) -> bool:
        """Whether a word in lower case is in the dictionary or follows from one there by rule."""
        return self.find(word) is not None

    def _say(self, word: str) -> Phonemes:
        """Phonemes of a word in lower case, or of letters to be spelled in capitals (`'s` may follow: the plural).

        What the model takes for silent is spelled, so that no word is lost; only a word without letters gives nothing.
        """
        if word[:1].isupper():
            return spelled(word)
        known = self.find(word) or (inflected(word, self.say) if "'" in word else None)
        return known or self._model(word) or spelled(word.upper())

    def _find(self, word: str) -> Phonemes | None:
        return EXCEPTIONS.get(word) or self._dictionary.get(word) or inflected(word, self.find)


def spelled(word: str) -> Phonemes:
    """Names of letters in one word; the stress is on the last: `API` -> EY2 P IY2 AY1."""
    letters = [c for c in word if c in LETTER_NAMES]
    names = [LETTER_NAMES[c] for c in letters]
    heard = [p.replace("1", "2") for name in names[:-1] for p in name] + [p for name in names[-1:] for p in name]
    return with_s(tuple(heard)) if word.endswith("s") else tuple(heard)


def with_s(base: Phonemes) -> Phonemes:
    """A plural, possessive or third person: cats, dogs, churches."""
    if base[-1] in _SIBILANTS:
        return (*base, "AH0", "Z")
    return (*base, "S" if base[-1] in _VOICELESS else "Z")


def with_ed(base: Phonemes) -> Phonemes:
    """A past tense: walked, played, wanted."""
    if base[-1] in ("T", "D"):
        return (*base, "AH0", "D")
    return (*base, "T" if base[-1] in _VOICELESS else "D")


def inflected(word: str, find: Callable[[str], Phonemes | None]) -> Phonemes | None:
    """Phonemes of a regular inflection of a word that `find` knows, else None."""
    for ending, sounds in _CONTRACTIONS:
        if word.endswith(ending) and len(word) > len(ending):
            base = find(word.removesuffix(ending))
            return (*base, *sounds) if base else None
    if word.endswith(("'s", "s'")):
        base = find(word[:-2] if word.endswith("'s") else word[:-1])
        return base if base and word.endswith("s'") else with_s(base) if base else None
    if len(word) < 4 or "'" in word:
        return None
    if word.endswith("s") and not word.endswith("ss"):
        base = _first(find, _bases(word, "s", "es", "ies"))
        return with_s(base) if base else None
    if word.endswith("ed"):
        base = _first(find, _bases(word, "ed", "d", "ied"))
        return with_ed(base) if base else None
    if word.endswith("ing"):
        stem = word[:-3]
        base = _first(find, [stem, stem + "e", *([stem[:-1]] if stem[-1:] == stem[-2:-1] else [])])
        return (*base, "IH0", "NG") if base else None
    if word.endswith("ly"):
        base = find(word[:-2])
        return (*base, "L", "IY0") if base and base[-1] != "L" else None
    return None


def _bases(word: str, *endings: str) -> list[str]:
    """What a word may be an inflection of: the ending off, a consonant undoubled, `i` back to `y`."""
    plain, after_e, after_y = endings
    if word.endswith(after_y):
        return [word.removesuffix(after_y) + "y"]
    stem = word.removesuffix(plain)
    bases = [stem] if plain == "s" or not stem.endswith("e") else []
    if plain == "s":
        if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
            bases.append(word.removesuffix(after_e))
        return bases
    bases.append(word.removesuffix(after_e))
    if stem[-1:] == stem[-2:-1]:
        bases.append(stem[:-1])
    return bases


def _first(find: Callable[[str], Phonemes | None], words: list[str]) -> Phonemes | None:
    return next((found for word in words if len(word) > 1 and (found := find(word))), None)


@cache
def load_lexicon(folder: Path | None = None) -> Lexicon:
    """The shipped lexicon, or that of a folder that `relay_models.training.g2p` made; read once a process.

    Raises:
        relay_models.loading.WeightsError: The weights are missing or damaged.
    """
    folder = loading.locate(MODEL_NAME) if folder is None else folder
    config = loading.read_config(folder)
    try:
        tensors: dict[str, NDArray[Any]] = load_file(folder / TENSORS)
        dictionary = PackedDictionary(tensors.pop("dictionary"))
        return Lexicon(dictionary, LettersToSounds(tensors, config["chunks"], beam=config["beam"]))
    except (OSError, KeyError, SafetensorError, lzma.LZMAError) as error:
        raise loading.WeightsError(
            f"{folder.name}/{TENSORS} cannot be read ({error!r}); install Relay again"
        ) from error
