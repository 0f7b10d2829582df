"""Tokens with times -> words with times, of which finished ones never change. No torch: every runner uses it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WORD_START = "\u2581"
"""What SentencePiece puts before a piece that begins a word."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it was decoded.

    Attributes:
        number: Its index in the vocabulary.
        frame: Encoder frame at which it was said, counted from the beginning of the stream.
        log_probability: Its natural log-probability there.
    """

    number: int
    frame: int
    log_probability: float


@dataclass(frozen=True, slots=True)
class Word:
    """One word.

    Attributes:
        text: As the tokens spell it, with the punctuation that clings to it.
        start_ms: Beginning of its first token's frame, from the beginning of the stream.
        end_ms: End of its last token's frame.
        confidence: Geometric mean of its tokens' probabilities, in (0, 1].
    """

    text: str
    start_ms: int
    end_ms: int
    confidence: float


class Words:
    """Collects one stream's tokens into words.

    Pushed tokens are never taken back, so a word is final when the next one begins or the utterance ends; until then
    the last word may still grow. `copy` serves forks and roll-backs.

    Args:
        pieces: Text of each token of the vocabulary, `▁` before pieces that begin a word. Blank needs none.
        frame_ms: Length of an encoder frame.
    """

    def __init__(self, pieces: Sequence[str], *, frame_ms: int) -> None:
        self._pieces = pieces
        self._frame_ms = frame_ms
        self._stable: list[Word] = []
        self._growing: list[Token] = []

    @property
    def stable(self) -> tuple[Word, ...]:
        """Words that will not change any more; only ever grows at its end."""
        return tuple(self._stable)

    @property
    def partial(self) -> Word | None:
        """The word that may still grow, or None."""
        return self._word()

    @property
    def text(self) -> str:
        """Everything heard so far, the growing word included."""
        growing = self._word()
        return " ".join(word.text for word in (*self._stable, *([growing] if growing else [])))

    def push(self, tokens: Sequence[Token]) -> tuple[Word, ...]:
        """Takes tokens in the order they were decoded; gives the words that they completed."""
        before = len(self._stable)
        for token in tokens:
            if self._pieces[token.number].startswith(WORD_START):
                self._close()
            self._growing.append(token)
        return tuple(self._stable[before:])

    def preview(self, tokens: Sequence[Token]) -> tuple[Word, ...]:
        """What would follow the stable words if these tokens came next, the growing word included. Changes nothing."""
        twin = Words(self._pieces, frame_ms=self._frame_ms)
        twin._growing = self._growing.copy()
        twin.push(tokens)
        twin.finish()
        return twin.stable

    def finish(self) -> tuple[Word, ...]:
        """The utterance has ended: completes the last word, and gives it."""
        before = len(self._stable)
        self._close()
        return tuple(self._stable[before:])

    def copy(self) -> Words:
        """An independent copy."""
        twin = Words(self._pieces, frame_ms=self._frame_ms)
        twin._stable, twin._growing = self._stable.copy(), self._growing.copy()
        return twin

    def _word(self) -> Word | None:
        """What the growing tokens spell; None when that is nothing."""
        text = "".join(self._pieces[token.number] for token in self._growing).replace(WORD_START, "")
        if not text:
            return None
        mean = math.fsum(token.log_probability for token in self._growing) / len(self._growing)
        return Word(
            text=text,
            start_ms=self._growing[0].frame * self._frame_ms,
            end_ms=(self._growing[-1].frame + 1) * self._frame_ms,
            confidence=math.exp(mean),
        )

    def _close(self) -> None:
        if word := self._word():
            self._stable.append(word)
        self._growing.clear()
