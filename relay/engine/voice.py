"""What goes into a voice engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

from relay.audio import Int16Array


@dataclass(frozen=True, slots=True)
class VoiceInput:
    """Text for one slot.

    Attributes:
        text: The next whole words of the reply; may be empty.
        final: No more text follows. Step with empty text until the output is final.
        speed: Speaking rate relative to the voice's own, 0.25 to 1.5.
        flush: More text follows, but not soon: what was given is spoken now, where the voice would otherwise wait for
            the end of a phrase. A voice that cannot do it goes on waiting.
    """

    text: str
    final: bool = False
    speed: float = 1.0
    flush: bool = False


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word's place in the audio.

    Attributes:
        text: The word as it was given, punctuation included.
        start_sample: First sample of the word, at 24 kHz, counted from the reply's first sample.
        end_sample: One past its last sample.
    """

    text: str
    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class VoiceOutput:
    """Speech that is ready.

    Attributes:
        pcm: [samples] int16, 24 kHz, mono; may be empty while the engine waits for more text.
        words: Words whose audio begins in this output; all outputs' words joined by spaces give the text.
        final: The reply is spoken whole; the slot is then ready for the next one.
    """

    pcm: Int16Array
    words: tuple[SpokenWord, ...] = ()
    final: bool = False
