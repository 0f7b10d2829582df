"""Texts of the quality benchmark: what counts as the same word, how many words are wrong, and which word is which."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import jiwer

from relay_models.training.spoken import spoken

_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'"})
_NOT_A_WORD = re.compile(r"[^\w']+|_")
_OUTER_QUOTE = re.compile(r"(?<!\w)'+|'+(?!\w)")
_WRITTEN_OUT = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "st": "saint",
    "vs": "versus",
    "ok": "okay",
    "alright": "all right",
}


def plain_words(text: str) -> list[str]:
    """Words without case and punctuation; an apostrophe inside a word stays."""
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    return _OUTER_QUOTE.sub(" ", _NOT_A_WORD.sub(" ", folded)).split()


def scored_words(text: str) -> list[str]:
    """The words that are compared: plain, with numbers, sums of money, times and a few abbreviations written out.

    So `The 7:45 train, Mr. Hill.` and `the seven forty five train mister hill` are the same, and a recogniser that
    writes digits is as right as one that writes words.
    """
    words = plain_words(spoken(unicodedata.normalize("NFKC", text)))
    return [part for word in words for part in _WRITTEN_OUT.get(word, word).split()]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Edits that turn the reference into what was heard.

    Attributes:
        words: Words of the reference.
        substitutions: Of them, those heard as another word.
        deletions: Of them, those not heard.
        insertions: Words heard that were not said.
    """

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def rate(self) -> float | None:
        """Word error rate, which may be above 1; None without a word to be heard."""
        if not self.words:
            return None
        return (self.substitutions + self.deletions + self.insertions) / self.words


def word_errors(reference: str, heard: str) -> WordErrors:
    """The fewest edits between two texts, in words as `scored_words` gives them."""
    said, got = scored_words(reference), scored_words(heard)
    if not said:
        return WordErrors(insertions=len(got))
    found = jiwer.process_words(" ".join(said), " ".join(got))
    return WordErrors(len(said), found.substitutions, found.deletions, found.insertions)


def same_words(reference: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (place in the reference, place in what was heard) of the words that the fewest edits leave alone."""
    if not reference or not heard:
        return []
    found = jiwer.process_words(" ".join(reference), " ".join(heard))
    return [
        (chunk.ref_start_idx + i, chunk.hyp_start_idx + i)
        for chunk in found.alignments[0]
        if chunk.type == "equal"
        for i in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def places_shown(final: Sequence[str], shown: Sequence[str]) -> list[int]:
    """Places of the final words that stand in a partial, in order. Of equal words the earlier is taken."""
    blocks = SequenceMatcher(None, final, shown, autojunk=False).get_matching_blocks()
    return [block.a + i for block in blocks for i in range(block.size)]
