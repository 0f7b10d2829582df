"""Which written word is heard when: from the words that a front end makes of a text, and their times. Pure.

The front end reads several spoken words for one written word (`2026`), or for several together (`$3.5 million`). A
written word begins with the first of those that fall to it, which is known before its first sample is, and ends with
the last that is known by then. What has no sound of its own (emoji, lone punctuation) lies, with no length, where the
next word begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.engine.voice import SpokenWord
from relay_models.frontend import SpokenWord as ReadWord
from relay_models.voice_plan import WordTime

AHEAD_WORDS = 8
"""Spoken words of one stretch whose times are asked for before they are needed."""


@dataclass(slots=True)
class _Written:
    """A word as it was given, its characters' place in all that was given, and the shares of spoken words it is."""

    text: str
    start: int
    end: int
    shares: list[tuple[int, float, float]] = field(default_factory=list)

    def first_sample(self, times: Sequence[WordTime]) -> int:
        """Where it begins, once its first share has a time."""
        number, begin, _ = self.shares[0]
        return _inside(times[number], begin)

    def last_sample(self, times: Sequence[WordTime]) -> int:
        """Where it ends, as far as there are times."""
        number, _, end = next(share for share in reversed(self.shares) if share[0] < len(times))
        return _inside(times[number], end)


class WordTrack:
    """The words of one reply, from the text to the samples in which they begin."""

    def __init__(self) -> None:
        self._written: deque[_Written] = deque()
        self._unreported: deque[_Written] = deque()
        self._given = 0
        self._places: list[tuple[int, int]] = []
        self._stretch_first = 0

    def give(self, text: str) -> None:
        """Takes text, cut between words, as the front end takes it with a blank behind."""
        at = 0
        for word in text.split():
            at = text.index(word, at)
            written = _Written(word, self._given + at, self._given + at + len(word))
            self._written.append(written)
            self._unreported.append(written)
            at += len(word)
        self._given += len(text) + 1

    def read(self, words: Sequence[ReadWord]) -> None:
        """Takes what the front end made of the text so far, in the order in which it is spoken."""
        at = 0
        while at < len(words):
            place = (words[at].start, words[at].end)
            stretch = [number for number in range(at, len(words)) if (words[number].start, words[number].end) == place]
            first = len(self._places)
            self._places += [place] * len(stretch)
            if words[at].phonemes:
                self._share_out(place, first, len(stretch))
            at += len(stretch)

    def _share_out(self, place: tuple[int, int], first: int, count: int) -> None:
        """Gives the written words of a stretch its spoken words, or where these are fewer, parts of them."""
        start, end = place
        while self._written and self._written[0].end <= start:
            self._written.popleft()
        mine = [written for written in self._written if written.start < end]
        for index, written in enumerate(mine):
            if count >= len(mine):
                own = range(-(-index * count // len(mine)), -(-(index + 1) * count // len(mine)))
                written.shares += [(first + number, 0.0, 1.0) for number in own]
            else:
                number = index * count // len(mine)
                together = [other for other in range(len(mine)) if other * count // len(mine) == number]
                part = 1 / len(together)
                at = index - together[0]
                written.shares.append((first + number, at * part, (at + 1) * part))

    def wants_more(self, times: Sequence[WordTime], sent_samples: int) -> bool:
        """Whether the next spoken word's time tells more of where a word ends that begins before `sent_samples`.

        Only where the word after it has been read too, so that the answer does not depend on how the text came.
        """
        number = len(times)
        if not 0 < number < len(self._places) - 1:
            return False
        place = self._places[number]
        if not self._places[number - 1] == place == self._places[number + 1]:
            return False
        first = number - 1
        while first and self._places[first - 1] == place and number - first < AHEAD_WORDS:
            first -= 1
        return number - first < AHEAD_WORDS and times[first].start_sample < sent_samples

    def begun(self, times: Sequence[WordTime], sent_samples: int, *, everything: bool) -> tuple[SpokenWord, ...]:
        """The words, in order, that begin before `sent_samples` and were not told of yet.

        Args:
            times: Of the spoken words, as far as they are known.
            sent_samples: Samples of the reply so far.
            everything: The reply is over: words without sound that are left lie at its end.
        """
        told: list[SpokenWord] = []
        silent: list[str] = []
        for written in self._unreported:
            if not written.shares:
                silent.append(written.text)
                continue
            if written.shares[0][0] >= len(times) or (start := written.first_sample(times)) >= sent_samples:
                break
            told += [SpokenWord(text, start, start) for text in silent]
            told.append(SpokenWord(written.text, start, max(start, written.last_sample(times))))
            silent.clear()
        for _ in told:
            self._unreported.popleft()
        if everything:
            told += [SpokenWord(written.text, sent_samples, sent_samples) for written in self._unreported]
            self._unreported.clear()
        return tuple(told)


def _inside(time: WordTime, share: float) -> int:
    return round(time.start_sample + share * (time.end_sample - time.start_sample))
