"""Written English -> the words one would say, and the same through a bad ear. For training text only.

Both sides of a dialogue are trained in spoken form: the recogniser gives words, never digits, and the voice can say
them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from relay_models.frontend.numbers import cardinal, clock, decade, digits, ordinal, whole, year


def _money(match: re.Match[str]) -> str:
    dollars = match[1].replace(",", "")
    cents = int(match[2] or 0)
    scale = f" {match[3]}" if match[3] else ""
    said = f"{whole(dollars)}{scale} dollar{'' if dollars == '1' and not scale else 's'}"
    return said + (f" and {cardinal(cents)} cents" if cents else "")


def _number(match: re.Match[str]) -> str:
    text = match[0].replace(",", "")
    if "." in text:
        before, _, rest = text.partition(".")
        return f"{cardinal(int(before))} point {digits(rest)}"
    if len(text) > 9 or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    number = int(text)
    if len(text) == 4 and 1100 <= number < 2100 and "," not in match[0]:
        return year(number)
    return cardinal(number)


_Said = str | Callable[[re.Match[str]], str]

_RULES: tuple[tuple[re.Pattern[str], _Said], ...] = (
    (re.compile(r"\b([ap])\s?\.\s?m\b\.?", re.I), lambda m: m[1].lower() + "m"),
    (re.compile(r"(\d)\s?([ap])m\b", re.I), lambda m: f"{m[1]} {m[2].lower()}m"),
    (re.compile(r"\$\s?(\d[\d,]*)(?:\.(\d\d))?(?:\s(thousand|million|billion))?\b"), _money),
    (re.compile(r"\b(\d{1,2}):(\d\d)(?!\d)"), lambda m: clock(int(m[1]), int(m[2]))),
    (re.compile(r"\+?\(?\d{3}\)?[-\s.]\d{3}[-\s.]\d{4}\b"), lambda m: digits(m[0])),
    (re.compile(r"\b(\d{1,4})(?:st|nd|rd|th)\b", re.I), lambda m: ordinal(int(m[1]))),
    (re.compile(r"\b(?:(?:19|20)?(\d0))'?s\b"), lambda m: decade(int(m[1]))),
    (re.compile(r"(?<=\d)\s?%"), " percent"),
    (re.compile(r"#(?=\d)"), "number "),
    (re.compile(r"\d[\d,]*(?:\.\d+)?"), _number),
    (re.compile(r"\s&\s"), " and "),
    (re.compile(r"(?<=[a-z])&(?=[a-z])", re.I), " and "),
)


def spoken(text: str) -> str:
    """Times, sums of money, dates and numbers in words; everything else as it was."""
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    return " ".join(text.split())


_JUNK = re.compile(
    r"\b(?:lol|lmao|haha\w*|hehe\w*|omg|btw|imo|idk)\b[,.!]?|[:;]-?[()DPp](?=\s|$)|[*_~^<>{}\[\]|\\]", re.I
)
_FIXES: tuple[tuple[re.Pattern[str], _Said], ...] = (
    (re.compile(r"\s+([,.!?;])"), r"\1"),
    (re.compile(r"([,;!?])(?=[A-Za-z])"), r"\1 "),
    (re.compile(r"\.{2,}"), "."),
    (re.compile(r"([!?])[!?.]+"), r"\1"),
    (re.compile(r"\b(i)(?=\b(?!\.))"), "I"),
    (re.compile(r"([a-z])\.(?=[A-Z][a-z]|I\b)"), r"\1. "),
    (re.compile(r"\b(dont|doesnt|didnt|cant|wont|isnt|wasnt|arent|havent|wouldnt|couldnt|shouldnt)\b", re.I),
     lambda m: m[1][:-1] + "'" + m[1][-1]),
    (re.compile(r"\b(I)(m|ve)\b"), r"\1'\2"),
    (re.compile(r"\b([Tt]hat|[Ww]hat|[Ii]t|[Hh]e|[Ss]he)s\b"
                r"(?= (?:a|the|not|so|really|very|pretty|good|great|cool|true|right)\b)"),
     r"\1's"),
    (re.compile(r"\b[Yy]ea\b"), lambda m: m[0] + "h"),
)  # fmt: skip
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?]\s))[\"']?[a-z]")
_QUESTION = re.compile(
    r"^(?:and |so |but )?(?:who|what|when|where|why|how|which|do|does|did|is|are|was|were|can|could|would|will|have|"
    r"has|should|shall|may)\b", re.I,
)  # fmt: skip


def tidy(text: str) -> str:
    """Clean written form of a chat line: capitals at sentence starts, `I`, apostrophes, a final stop, no chat slang."""
    text = " ".join(_JUNK.sub(" ", text).split())
    for pattern, fixed in _FIXES:
        text = pattern.sub(fixed, text)
    text = _SENTENCE_START.sub(lambda m: m[0].upper(), text.strip(" ,;-"))
    if text and text[-1] not in ".!?":
        last = re.split(r"(?<=[.!?])\s", text)[-1]
        text += "?" if _QUESTION.match(last) else "."
    return text


_PUNCTUATION = re.compile(r"[^\w\s']|(?<!\w)'|'(?!\w)")
_CONFUSED = {
    "to": ("two", "too"), "two": ("to",), "too": ("to",), "for": ("four",), "four": ("for",), "their": ("there",),
    "there": ("their",), "a": ("the", "uh", "of a"), "the": ("a", "uh"), "i": ("hi", "and i"), "and": ("in", "an"),
    "in": ("and", "an"), "is": ("as", "was"), "are": ("or", "our"), "you": ("ye", "do"), "your": ("you're", "you"),
    "it": ("that", "at"), "want": ("won", "one"), "know": ("no",), "no": ("know",), "what's": ("what is", "was"),
    "can": ("can't", "and"), "hi": ("i", "high"), "hello": ("hollow", "hello a"), "table": ("cable", "able"),
    "book": ("look", "but"), "eight": ("ate",), "won": ("one",), "one": ("won",), "right": ("write",), "by": ("buy",),
    "buy": ("by",), "of": ("a", "off"), "that": ("the", "that's"), "this": ("the", "his"), "would": ("what", "wood"),
    "need": ("kneed", "me"), "have": ("of", "had"), "with": ("which", "would"), "please": ("police", "pleas"),
    "ticket": ("take it",), "tickets": ("thickets",), "weather": ("whether",), "who": ("how",), "how": ("who", "our"),
    "some": ("sum", "from"), "at": ("it", "that"), "on": ("an", "all"), "pm": ("p m", "p.m."), "am": ("a m", "a.m."),
}  # fmt: skip


def misheard(text: str, chance: random.Random) -> str:
    """The text as a recogniser might give it: lower case, no punctuation, now and then a word lost or confused."""
    words = []
    wrong = chance.choice((0.0, 0.0, 0.03, 0.06, 0.12))
    for word in _PUNCTUATION.sub(" ", text.lower()).split():
        luck = chance.random()
        if word in ("am", "pm") and luck < 0.5:
            words.append(chance.choice(_CONFUSED[word]))
        elif luck < wrong * 0.15 and word not in ("am", "pm"):
            continue
        elif luck < wrong and word in _CONFUSED:
            words.append(chance.choice(_CONFUSED[word]))
        elif luck < wrong * 1.1:
            words += [chance.choice(("uh", "um", "the", "and")), word]
        else:
            words.append(word)
    return " ".join(words) or text.lower()
