"""One stretch of text without blanks -> written words: inline markup, emoji and punctuation taken off, pauses kept."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final

from relay_models.frontend.tables import VULGAR_FRACTIONS
from relay_models.phonemes import COMMA, DASH, EXCLAMATION, PERIOD, QUESTION, Pause


@dataclass(frozen=True, slots=True)
class Written:
    """A written word, ready to be read.

    Attributes:
        core: The word without markup and punctuation around it; empty where there is only a pause.
        start: Its first character in the original text. Words of one stretch without blanks share it.
        end: Position after its last character there.
        pause: The pause that its punctuation calls for.
        full_stop: A full stop follows, which may belong to an abbreviation.
        line_end: It is the last of its line.
    """

    core: str
    start: int
    end: int
    pause: Pause = ""
    full_stop: bool = False
    line_end: bool = False


_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]*(?:\s[^<>]*)?/?>|<!--.*?-->")
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_LINK_TARGET = re.compile(r"\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)?|\]\[[^\]\s]*\]")
_FOOTNOTE = re.compile(r"(?<=[^\s\[(])\[\^?[1-9]\d{0,2}\]|^\[\^\d{1,3}\]:?")
_EMOTICON = re.compile(r"^(?:[:;=8xX][-'^]?[)(DPpOo/\\|*\]\[]+|<3+|[xX]D+|\^_*\^|o_O|T_T)[.,!?]*$")
_MATHEMATICS = re.compile(
    r"^\${1,2}(?=[^\d\s.-])|(?<=[A-Za-z)}\]])\$+$|^\${2}|\${2}$|(?<![\w:.\\])\\(?=[A-Za-z]+(?![\\A-Za-z]))"
)
_INLINE_MATHEMATICS = re.compile(r"^\${1,2}([^$\s]*[^$\s\d.,-][^$\s]*)\${1,2}([.,;:!?)]*)$")
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻]+")
_RAISED_SIGNS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_CHECKBOX = re.compile(r"^\[[ xX]?\]$|^\[$")
_EMPTY_CALL = re.compile(r"(?<=\w)\(\)")
_TIMES = re.compile(r"(?<=[\d)])\*{1,2}(?=[\d(])")
_MARKS = re.compile(r"[*`]+|~~|(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])|\\(?=[^A-Za-z0-9\s\\])")
_HEADING = re.compile(r"^#{1,6}$")
_BULLET = re.compile(r"^(?:[-*+•◦▪‣·–—]|>+)$")
_RULE = re.compile(r"^(?:-{3,}|\*{3,}|_{3,}|={3,}|[|:+-]*-{2,}[|:+-]*)$")
_SEAMS = re.compile(r"(?<=[A-Za-z0-9])(\.{3,}|-{2,}|[—―]+|[!?]+|[;|])(?=[^\s.!?;|)\]}\"'/&=#-])")
_COMMA_SEAM = re.compile(r"(?<=[A-Za-z]),(?=[A-Za-z])|(?<=[a-z]):(?=[A-Z][a-z])")
_OPENING = re.compile(r"^(?:[\"'(\[{|:;,!?]|<(?!\d)|\.(?![A-Za-z0-9])|-(?![\d.$€£>-]|[A-Za-z]\b)(?!-[A-Za-z]))+")
_CLOSING = re.compile(r"(?:[\"')\]}>|:;,!?.]|-(?=[\"')\]}:;,!?.-]*$))+$")
_SYMBOL_WORDS = frozenset({"<", ">", "<=", ">=", "->", "=>", "!=", "||", "-->", "==>"})
_AREA_CODE = re.compile(r"\(\d{3}\)")
_PLAIN = re.compile(r"([A-Za-z]+(?:'[A-Za-z]+)?)([,.!?:;]?)")
_DROPPED_CATEGORIES: Final = frozenset({"So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn", "Me", "Mn"})
_KEPT_CHARACTERS: Final = frozenset("^°\ue002\ue003")
_VARIATIONS: Final = frozenset([chr(c) for c in range(0xFE00, 0xFE10)] + ["\u20e3"])
_QUOTES: Final = str.maketrans(
    {
        "’": "'", "‘": "'", "‛": "'", "ʼ": "'", "′": "'", "`": "`", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
        "″": '"', "‹": '"', "›": '"', "–": "–", "‐": "-", "‑": "-", "‒": "–", "⁃": "-", "…": "...", "⋯": "...",
        "。": ".", "、": ",", "，": ",", "！": "!", "？": "?", "：": ":", "；": ";", "؟": "?", "،": ",", "؛": ";",
        "।": ".", "·": " ", "•": " ", "⁄": "/", "∕": "/", "−": "-", "™": "", "®": "", "¿": "", "¡": "", "µ": "μ",
        "♯": "#", "×": "×", "｜": "|", "—": "—", "（": "(", "）": ")", "「": '"', "」": '"', "『": '"', "』": '"',
        "℃": "°C", "℉": "°F", "【": "(", "】": ")", "《": '"', "》": '"', "\u00ad": "", "\u2060": "", "\ufeff": "",
    }
)  # fmt: skip
_SUPERSCRIPTS: Final = str.maketrans("²³", "\ue002\ue003")  # private characters, which no text keeps
_BACK_AGAIN: Final = str.maketrans("\ue002\ue003", "²³")


def written_words(text: str, start: int, *, line_start: bool, line_end: bool) -> list[Written]:
    """The written words in one stretch of text without blanks, which begins at character `start`.

    Args:
        text: The stretch.
        start: Its place in the whole text.
        line_start: It is the first of its line, so `-` is a bullet and `##` a heading.
        line_end: It is the last of its line; a line ends as a sentence does.
    """
    end = start + len(text)
    plain = _PLAIN.fullmatch(text)
    if plain:
        mark = plain[2]
        pause = _MARK_PAUSES[mark] or (PERIOD if line_end else "")
        return [Written(plain[1], start, end, pause, mark == ".", line_end)]
    pieces = _clean(text, line_start=line_start).split()
    words: list[Written] = []
    for piece in pieces:
        word = _word(piece, start, end)
        if word.core:
            words.append(word)
        elif word.pause and words:
            words[-1] = replace(words[-1], pause=words[-1].pause or word.pause)
        elif word.pause:
            words = [word]
    if words and line_end:
        last = words[-1]
        weak = not last.core or (last.pause == COMMA and "," not in text)  # a bracket closes, a table's row ends
        words[-1] = replace(last, pause=PERIOD if weak or not last.pause else last.pause, line_end=True)
    return words


def _clean(text: str, *, line_start: bool) -> str:
    """The text without markup and what has no sound; blanks where it falls into several words."""
    if line_start and (_HEADING.match(text) or _BULLET.match(text) or _RULE.match(text)):
        return ""
    if _RULE.match(text) and "|" in text:
        return ""
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = _characters(text)
    text = _TAG.sub(" ", _AUTOLINK.sub(r"\1", text))
    text = _EMPTY_CALL.sub("", text)
    text = _CHECKBOX.sub("", _FOOTNOTE.sub("", _LINK_TARGET.sub(" ", text)))
    if _EMOTICON.match(text):
        return ""
    text = _INLINE_MATHEMATICS.sub(r"\1\2", text)
    text = _MATHEMATICS.sub("", _MARKS.sub("", _TIMES.sub("×", text)))
    if "://" in text or text.lower().startswith(("www.", "mailto:")):
        return text
    if "/" in text or "=" in text:
        return text
    text = _SEAMS.sub(r"\1 ", text)
    return _COMMA_SEAM.sub(lambda m: m[0] + " ", text)


def _characters(text: str) -> str:
    """Typographic signs as ASCII, compatibility forms as plain letters, emoji and what cannot be seen left out."""
    text = _RAISED.sub(lambda run: run[0] if run[0] in "²³" else "^" + run[0].translate(_RAISED_SIGNS), text)
    text = text.translate(_QUOTES).translate(_SUPERSCRIPTS)
    for sign, (over, under) in VULGAR_FRACTIONS.items():
        text = text.replace(sign, f" {over}/{under}")
    kept = []
    for c in unicodedata.normalize("NFC", text):
        category = unicodedata.category(c)
        plain = unicodedata.normalize("NFKC", c)
        if c in _KEPT_CHARACTERS or c.isascii():
            kept.append(c)
        elif c.isdecimal():
            kept.append(str(unicodedata.decimal(c)))
        elif category == "Mn" and c not in _VARIATIONS:
            kept.append(c)
        elif category not in _DROPPED_CATEGORIES or (category == "So" and plain.isalnum()):
            kept.append(plain)
        elif category == "So":
            kept.append(" ")
    return "".join(kept).translate(_BACK_AGAIN)


_MARK_PAUSES: Final[dict[str, Pause]] = {
    "": "", ",": COMMA, ".": PERIOD, "!": EXCLAMATION, "?": QUESTION, ":": DASH, ";": DASH,
}  # fmt: skip


def _pause_of(marks: str) -> Pause:
    """The pause that a run of punctuation calls for: its strongest mark."""
    for sign in "?!.":
        if sign in marks:
            return _MARK_PAUSES[sign]
    if ":" in marks or ";" in marks or "-" in marks or "—" in marks or "–" in marks:
        return DASH
    return COMMA if any(sign in marks for sign in ",)|") else ""


def _word(piece: str, start: int, end: int) -> Written:
    """One written word of a cleaned piece."""
    if piece in _SYMBOL_WORDS or _AREA_CODE.fullmatch(piece):
        return Written(piece, start, end)
    dashed = piece.rstrip("—―–")
    closing = "" if dashed == piece else "—"
    dashed = dashed.lstrip("—―")
    if dashed.startswith("–") and not dashed[1:2].isdigit():
        dashed = dashed.lstrip("–")
    opened = _OPENING.sub("", dashed)
    found = _CLOSING.search(opened)
    marks = (found[0] if found else "") + closing
    core = opened[: found.start()] if found else opened
    if core.endswith("/") and core.lower() != "w/" and not core.startswith(("/", "~", ".")) and "://" not in core:
        core = core.rstrip("/")
    if not core:
        return Written("", start, end, _pause_of(piece))
    full_stop = marks.startswith(".") and not marks.startswith("..")
    if full_stop and any(sign in marks for sign in ",;:"):
        return Written(core, start, end, _pause_of(marks.replace(".", "")), full_stop)
    return Written(core, start, end, _pause_of(marks), full_stop)
