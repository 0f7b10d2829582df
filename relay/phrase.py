"""What words tell of a turn: whether it sounds finished, whether a pause may be its end. Pure."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z']+")
_LETTERS = re.compile(r"[^\W_]+")

FINISHED_MS = 200
"""Silence after which a speaker whose words sound finished is likely to be: longer than the closure of a stop, and
long enough for a recogniser to have read the last word."""

HESITANT_MS = 360
"""The same, after words that ask for others."""

_ARTICLES = "a an the my your our their its every"
_LINKS = "and but or nor because if unless whether although while than as which whose"
_PREPOSITIONS = "of to into onto between without during per via"
_SUBJECTS = "i we he she they i'm i'll i'd i've we're we'll we've you're they're he's she's let's there's"
_FILLERS = "um uh erm er hm hmm"
OPEN_WORDS = frozenset(" ".join((_ARTICLES, _LINKS, _PREPOSITIONS, _SUBJECTS, _FILLERS)).split())
"""English words after which a speaker who pauses is likely to go on: function words that need another, and fillers.

Those that often end a question ("where are you from?") or an answer ("no", "I like that") are left out."""


def goes_on(text: str) -> bool:
    """Whether a pause after these words is more likely a hesitation than the end of the turn.

    Syntactic completion is the strongest cue to a turn's end beside silence (Sacks, Schegloff and Jefferson 1974; Ford
    and Thompson 1996). It is read off the last word: a streaming recogniser's transcript has no punctuation to go by.
    """
    if text.rstrip().endswith((",", "-", "…", "...")):
        return True
    words = _WORD.findall(text.lower())
    return bool(words) and words[-1] in OPEN_WORDS


def may_be_end(text: str, silence_ms: int) -> bool:
    """Whether a silence after these words is long enough to be the end of the turn; without words none is."""
    return bool(text.strip()) and silence_ms >= (HESITANT_MS if goes_on(text) else FINISHED_MS)


def same_words(one: str, other: str) -> bool:
    """Whether two texts say the same, whatever their case and punctuation."""
    return _LETTERS.findall(one.casefold()) == _LETTERS.findall(other.casefold())
