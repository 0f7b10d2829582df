"""What words tell of a turn: whether it sounds finished, whether a pause may be its end. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]

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


def may_be_end(text: str, silence_ms: int, needed_ms: int | None = None) -> bool:
    """Whether a silence after these words is long enough to be the end of the turn; without words none is.

    Args:
        text: What was heard of it.
        silence_ms: The silence so far.
        needed_ms: Silence that ends the turn, if that depends on how it was said: where it is over before it would be
            likely by the words alone, any silence is enough.
    """
    if not text.strip():
        return False
    if needed_ms is not None and needed_ms < FINISHED_MS:
        return silence_ms > 0
    return silence_ms >= (HESITANT_MS if goes_on(text) else FINISHED_MS)


def same_words(one: str, other: str) -> bool:
    """Whether two texts say the same, whatever their case and punctuation."""
    return _LETTERS.findall(one.casefold()) == _LETTERS.findall(other.casefold())


@dataclass(frozen=True, slots=True)
class Patience:
    """Silence that ends a turn with `semantic_vad`, by how much the turn sounds finished.

    Attributes:
        certain_ms: The language model takes the turn to end with these words, and how they were said tells so too.
        sure_ms: The language model does, or both together do.
        open_ms: Both together leave it open.
        likely_ms: The language model, which nothing else helps to tell, thinks that it may.
        doubtful_ms: It hardly does.
        unfinished_ms: It hardly does, and the last word asks for another; or both together tell that it does not.
        unjudged_ms: No language model can say, and the words sound finished.
        hesitant_ms: No language model can say, and the last word asks for another: the API's own longest.
    """

    certain_ms: int
    sure_ms: int
    open_ms: int
    likely_ms: int
    doubtful_ms: int
    unfinished_ms: int
    unjudged_ms: int
    hesitant_ms: int


_MEDIUM = Patience(160, 240, 600, 700, 800, 1200, 600, 4000)
PATIENCE: dict[Eagerness, Patience] = {
    "low": Patience(320, 500, 900, 1000, 1500, 2500, 1000, 8000),
    "medium": _MEDIUM,
    "high": Patience(160, 200, 320, 350, 500, 800, 350, 2000),
    "auto": _MEDIUM,
}
SURE, SURE_OF_GARBLED, DOUBTFUL = 0.6, 0.3, 0.03
"""Of a language model's probability that the turn ends. Words that are misheard more often, by a recogniser that
guesses while they are spoken, make every end less likely."""
WORDS_WEIGHT, MAX_WORDS_NATS = 0.3, 5.0
"""What a language model's log-odds count beside evidence of how the words were said, and how large they may be: it is
surer than the words that were heard are right, and they are often not all heard yet. Found by logistic regression."""
CERTAIN_NATS, SURE_NATS, OPEN_NATS, DOUBTFUL_NATS = 2.5, 1.5, -1.0, -2.0
"""What both together must tell for each of the lengths, `training/LOG.md` says how these were found: the evidence is
of two kinds of silence that are as frequent as each other (`relay_models.draft_config.Trust`)."""


def silence_ms(
    text: str,
    end_probability: float | None,
    eagerness: Eagerness,
    *,
    is_believed: bool = True,
    evidence: float | None = None,
) -> int:
    """Silence after these words that ends the turn: the likelier the end, the shorter.

    Evidence beside the words counts together with the language model's log-odds. Where nobody can judge the words, it
    changes nothing.

    Args:
        text: What was heard of it.
        end_probability: That it ends with these words, by a language model; None if none can say.
        eagerness: Of `semantic_vad`.
        is_believed: Whether the recogniser's words can be relied on while they are spoken.
        evidence: That the turn has ended, by how it was said: log-odds in nats; None if nothing can be told.
    """
    patience = PATIENCE[eagerness]
    if end_probability is None:
        return patience.hesitant_ms if goes_on(text) else patience.unjudged_ms
    if evidence is not None:
        return _weighed_ms(_log_odds(end_probability), evidence, patience, is_believed=is_believed)
    if end_probability >= (SURE if is_believed else SURE_OF_GARBLED):
        return patience.sure_ms
    if end_probability >= DOUBTFUL:
        return patience.likely_ms
    return patience.unfinished_ms if goes_on(text) else patience.doubtful_ms


def _weighed_ms(words_nats: float, evidence: float, patience: Patience, *, is_believed: bool) -> int:
    """The same, by the language model's log-odds and the evidence together."""
    nats = WORDS_WEIGHT * min(max(words_nats, -MAX_WORDS_NATS), MAX_WORDS_NATS) + evidence
    if nats >= CERTAIN_NATS and is_believed:
        return patience.certain_ms
    if nats >= SURE_NATS:
        return patience.sure_ms
    if nats >= OPEN_NATS:
        return patience.open_ms
    return patience.doubtful_ms if nats >= DOUBTFUL_NATS else patience.unfinished_ms


def _log_odds(probability: float) -> float:
    if probability <= 0 or probability >= 1:
        return math.inf if probability >= 1 else -math.inf
    return math.log(probability / (1 - probability))
