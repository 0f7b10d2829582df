"""What goes into a recogniser engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.audio import Int16Array


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word.

    Attributes:
        text: The word.
        start_sample: First sample of the word, at 16 kHz, counted from the utterance's first sample.
        end_sample: One past its last sample.
        confidence: Probability that it is right, 0 to 1.
    """

    text: str
    start_sample: int
    end_sample: int
    confidence: float


@dataclass(frozen=True, slots=True)
class EarsInput:
    """Audio for one slot.

    Attributes:
        pcm: [samples] int16, 16 kHz, mono; any length, also zero.
        final: The utterance ends with this audio; the slot is then ready for the next one.
    """

    pcm: Int16Array
    final: bool = False


@dataclass(frozen=True, slots=True)
class EarsOutput:
    """What has been heard of the utterance so far.

    Attributes:
        stable: Text that will not change any more. Each output's begins with the one before.
        unstable: Best guess for what follows it; may change.
        words: The words of `stable` with their times; all words when final.
        final: The utterance is over; `unstable` is empty.
        end_probability: That the speaker has finished, as far as the audio heard tells; None where no one can say.
            Outputs that differ in it alone are equal: the same has been heard.
        word_delay_ms: How long after its end a word is shown, by a recogniser that seldom takes one back; None where
            words are guesses until the utterance ends. No part of what has been heard either.
    """

    stable: str
    unstable: str
    words: tuple[Word, ...] = ()
    final: bool = False
    end_probability: float | None = field(default=None, compare=False)
    word_delay_ms: int | None = field(default=None, compare=False)
