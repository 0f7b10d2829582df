"""What a voice says for a written word: markdown, emoji and links made speakable, one word at a time.

A reply streams as words, and the caller is told when each *given* word is spoken. So the clean-up never joins, splits
or drops words: it maps every whitespace-separated word to what is spoken for it, which may be nothing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Break = Literal["", "clause", "sentence"]

_LINK_TARGET = re.compile(r"\]\([^)]*\)?")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_URL = re.compile(r"(?:https?://|www\.)(?:www\.)?([^\s/?#:]+)(?:[/?#:]\S*?)?(?=[.,;:!?)\]\"'*]*$)", re.IGNORECASE)
_TIMES = re.compile(r"(?<=\d)\*(?=\d)")
_MARKS = re.compile(r"[*`|\\\[\]{}]|~~|^!(?=\[)")
_HEADING = re.compile(r"^#+(?=\D|$)")
_ARROWS = re.compile("[\u2190-\u21ff\u27f0-\u27ff\u2900-\u297f]")
_KEPT_SYMBOLS = "°"
_SPOKEN_SYMBOLS = "$€£¥%&+=@°"
_DROPPED_CATEGORIES = frozenset({"So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn", "Me"})
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)

_CLOSERS = "\"'”’»)]}*_`"
_NOT_A_SENTENCE = re.compile(
    r"^[\"'“‘(\[*_]*(?:(?:[Mm]rs?|[Mm]s|[Dd]r|[Pp]rof|[Ss]t|[Vv]s|[Aa]pprox|e\.g|i\.e|[A-Z])\.)$"
)


def speakable(word: str) -> str:
    """What is spoken for one written word (no whitespace in it); empty for what has no sound, such as an emoji.

    The result may hold spaces (`snake_case` is two spoken words) and keeps the punctuation that shapes the melody.
    """
    text = unicodedata.normalize("NFC", word)
    text = _TAG.sub(" ", text)
    text = _LINK_TARGET.sub("", text)
    text = _URL.sub(r"\1", text)
    text = _TIMES.sub(" times ", text)
    text = _MARKS.sub("", text)
    text = _HEADING.sub("", text)
    text = re.sub(r"^#(?=\d)", "number ", text)
    text = re.sub(r"^~(?=\d)", "about ", text).replace("~", "")
    text = text.lstrip(">").replace("_", " ")
    text = _ARROWS.sub(" ", text)
    text = "".join(c for c in text if _has_sound(c))
    text = " ".join(text.split())
    return text if any(c.isalnum() or c in _SPOKEN_SYMBOLS for c in text) else ""


def break_after(word: str) -> Break:
    """Which pause a written word calls for after it: none, a clause's or a sentence's."""
    if _NOT_A_SENTENCE.match(word):
        return ""
    core = word.rstrip(_CLOSERS)
    last = core[-1:]
    if last and last in ".!?…。！？":
        return "sentence"
    if (last and last in ",;:—–，；：") or (core and not core.strip("-")):
        return "clause"
    return ""


def _has_sound(character: str) -> bool:
    if character in _KEPT_SYMBOLS:
        return True
    if ord(character) in _VARIATION_SELECTORS:
        return False
    return unicodedata.category(character) not in _DROPPED_CATEGORIES
