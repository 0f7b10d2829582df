"""The symbols that a voice reads: American English phonemes with stress, word boundaries, pauses, and the end.

Phonemes are those of the CMU Pronouncing Dictionary: ARPAbet, 24 consonants and 15 vowels, each vowel with its stress
as a last digit (`AH0` none, `AH1` primary, `AH2` secondary). One spoken word is its phonemes, then either `BOUNDARY` or
the pause mark that follows it; a text is its words, then `END`.

Ids are positions in `SYMBOLS`. Trained weights depend on them: symbols are never reordered or taken away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

Pause = Literal["", ",", "-", ".", "?", "!"]

STRESSES: Final = ("0", "1", "2")
VOWELS: Final = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS: Final = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
PHONEMES: Final[tuple[str, ...]] = (*(v + s for v in VOWELS for s in STRESSES), *CONSONANTS)

PAD: Final = "<pad>"
BOUNDARY: Final = " "
COMMA: Final = ","
DASH: Final = "-"
PERIOD: Final = "."
QUESTION: Final = "?"
EXCLAMATION: Final = "!"
END: Final = "<end>"
# `DASH` stands for dashes, colons and semicolons: a clause's end with another melody than a comma's.
PAUSES: Final[tuple[Pause, ...]] = (COMMA, DASH, PERIOD, QUESTION, EXCLAMATION)

SYMBOLS: Final[tuple[str, ...]] = (PAD, *PHONEMES, BOUNDARY, *PAUSES, END)
_IDS: Final = {symbol: i for i, symbol in enumerate(SYMBOLS)}
PAD_ID: Final = _IDS[PAD]
BOUNDARY_ID: Final = _IDS[BOUNDARY]
END_ID: Final = _IDS[END]


def to_ids(symbols: Iterable[str]) -> list[int]:
    """Ids of symbols, in order. Raises KeyError for what is no symbol."""
    return [_IDS[symbol] for symbol in symbols]


def to_symbols(ids: Iterable[int]) -> list[str]:
    """The symbols of ids, in order. Raises IndexError for what is no id."""
    found = []
    for i in ids:
        if not 0 <= i < len(SYMBOLS):
            raise IndexError(f"{i} is no symbol's id; ids are 0 to {len(SYMBOLS) - 1}")
        found.append(SYMBOLS[i])
    return found


def is_vowel(symbol: str) -> bool:
    """Whether a symbol is a vowel, and so carries stress."""
    return symbol[:-1] in VOWELS and symbol[-1:] in STRESSES


def with_pause(phonemes: Iterable[str], pause: Pause = "") -> tuple[str, ...]:
    """One word as the voice reads it: its phonemes, then the pause after it, or the boundary where there is none."""
    return (*phonemes, pause or BOUNDARY)
