"""Backchannels: what listeners say while another speaks on, told from speech that wants the floor. Pure.

"mm-hm", "yeah", "I see": short, said without a claim to the floor (Yngve 1970; Ward and Tsukahara 2000). What tells
them is their words, as soon as a recogniser gives any, and their end: they are over where an interruption goes on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ENDED_MS = 160
"""Silence after which so short an utterance is over: longer than the closure of a stop."""
SETTLED_MS = 400
"""The same while its words are still missing, or cut: by then a streaming recogniser has given them."""
LONGEST_MS = 900
"""Speech that goes on for longer wants the floor, unless all its words are a listener's."""
LONGEST_KNOWN_MS = 1500
"""And even then."""
CLEAR_NATS = 2.0
"""Evidence, seven to one, with which speech that goes on wants the floor, unless all its words are a listener's."""

_ASSENT = "yeah yes yep yup ya okay ok kay right alright sure exactly absolutely totally indeed true fine"
_WONDER = "really wow great good nice cool lovely oh aha uhhuh huh"
_TWO_WORDS = "i_see got_it of_course i_know all_right that's_right that's_true that's_good fair_enough very_good go_on"
_LISTENING = tuple(tuple(phrase.split("_")) for phrase in " ".join((_ASSENT, _WONDER, _TWO_WORDS)).split())
_HUM = re.compile(r"[mh]*[aeou]?[mh]*")
"""Hums and open vowels, which every recogniser writes in its own way: mm, hmm, mhm, em, uh, ah, huh."""
_CLAIMS = "stop wait no hold hang hey sorry pardon excuse what but actually cancel listen quiet enough"
_DEMANDS = frozenset(_CLAIMS.split())
"""Words that begin an interruption, believed whoever heard them."""
_NEAR_LETTERS = 5
_WORD = re.compile(r"[a-z']+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """What is known of speech that began under a reply.

    Attributes:
        text: Its words, as far as heard; the last may be cut.
        is_believed: Whether the recogniser's early words can be relied on.
        speech_ms: From its first speech to its last.
        silence_ms: How long it has been silent since.
        waited_ms: How long it has been known.
        evidence: That it wants the floor, by how it sounds: log-odds in nats; None if nothing can be told.
    """

    text: str
    is_believed: bool
    speech_ms: int
    silence_ms: int
    waited_ms: int
    evidence: float | None = None


def wants_floor(overlap: Overlap, decide_ms: int | None) -> bool | None:
    """Whether it is an interruption; False for a backchannel, or a noise; None while nobody can say.

    Args:
        overlap: What is known.
        decide_ms: After so long, what has not shown itself to be a listener's words is an interruption; None: there is
            no hurry.
    """
    words = _words(overlap.text)
    is_known = overlap.is_believed and bool(words)
    may_be_listener = _may_become_listening(words)
    # Where nothing is lost by it, one word is waited for to its end: its beginning is often misheard.
    is_clear = len(words) > 1 or decide_ms is not None
    if _DEMANDS.intersection(words) or (is_known and is_clear and not may_be_listener):
        return True
    if overlap.speech_ms > (LONGEST_KNOWN_MS if is_known and may_be_listener else LONGEST_MS):
        return True
    sounds_clear = overlap.evidence is not None and overlap.evidence >= CLEAR_NATS
    if sounds_clear and not overlap.silence_ms and not (is_known and may_be_listener):
        return True
    is_listener = is_known and is_backchannel(overlap.text)
    if overlap.silence_ms >= (ENDED_MS if is_listener or not overlap.is_believed else SETTLED_MS):
        return is_known and not is_listener
    if decide_ms is not None and overlap.waited_ms >= decide_ms and not is_known:
        return True
    return None


def is_backchannel(text: str) -> bool:
    """Whether all its words are a listener's, one letter of a longer one misheard at most; or it has none."""
    rest = _read(_words(text))
    return not rest or (len(rest) == 1 and any(len(p) == 1 and _is_near(p[0], rest[0]) for p in _LISTENING))


def _is_near(word: str, heard: str) -> bool:
    """Whether a word that is not short became what was heard by one letter: too much, too little, or another."""
    if len(word) < _NEAR_LETTERS or abs(len(word) - len(heard)) > 1:
        return False
    same = next((at for at, (one, other) in enumerate(zip(word, heard, strict=False)) if one != other), len(word))
    tails = [(word[same + 1 :], heard[same + 1 :]), (word[same:], heard[same + 1 :]), (word[same + 1 :], heard[same:])]
    return any(one == other for one, other in tails)


def _may_become_listening(words: list[str]) -> bool:
    """Whether words whose last may be cut can still turn out to be a listener's."""
    rest = _read(words)
    if not rest:
        return True
    *known, cut = rest
    beginnings = [phrase[: len(rest)] for phrase in _LISTENING if len(phrase) >= len(rest)]
    return any(tuple(known) == beginning[:-1] and beginning[-1].startswith(cut) for beginning in beginnings)


def _read(words: list[str]) -> list[str]:
    """What is left of words after all leading phrases of a listener."""
    at = 0
    while at < len(words):
        if _HUM.fullmatch(words[at]):
            at += 1
            continue
        for phrase in _LISTENING:
            if tuple(words[at : at + len(phrase)]) == phrase:
                at += len(phrase)
                break
        else:
            break
    return words[at:]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
