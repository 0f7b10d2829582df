"""Endpointing, sans-IO: one speech flag a frame in, the starts and ends of utterances out, on the sample clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

FRAME_MS = 20
FRAME_SAMPLES = 320  # at 16 kHz


@dataclass(frozen=True, slots=True)
class Endpointing:
    """How utterances are found.

    Attributes:
        start_ms: Speech within the last 1.5 x this much audio that begins an utterance.
        silence_ms: Silence that ends it (the hangover).
        padding_ms: Audio before the first speech frame that belongs to it.
        max_utterance_ms: An utterance is ended when it gets this long.
    """

    start_ms: int = 100
    silence_ms: int = 500
    padding_ms: int = 300
    max_utterance_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Started:
    """An utterance has begun.

    Attributes:
        speech_sample: First sample of its first speech frame.
        audio_sample: Where its audio begins, padding included; never before the end of the utterance before it.
    """

    speech_sample: int
    audio_sample: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An utterance is over.

    Attributes:
        speech_sample: One past the last sample of its last speech frame.
        decided_sample: How much audio had been seen when that was decided.
    """

    speech_sample: int
    decided_sample: int


class Endpointer:
    """Frames of 20 ms at 16 kHz, numbered from the first the session received."""

    def __init__(self, settings: Endpointing) -> None:
        self.settings = settings
        self.frames = 0
        self.in_utterance = False
        self._recent: list[bool] = []
        self._first_speech = 0
        self._last_speech = 0
        self._floor = 0

    @property
    def silence_ms(self) -> int:
        """How long the speaker has been silent within an utterance; 0 outside one."""
        return (self.frames - self._last_speech) * FRAME_MS if self.in_utterance else 0

    def step(self, speech: bool) -> Started | Ended | None:
        """Takes the next frame's flag; says if an utterance began or ended with it."""
        self.frames += 1
        if self.in_utterance:
            if speech:
                self._last_speech = self.frames
            silent = (self.frames - self._last_speech) * FRAME_MS >= self.settings.silence_ms
            too_long = (self.frames - self._first_speech) * FRAME_MS >= self.settings.max_utterance_ms
            return self.end() if silent or too_long else None
        need = max(1, self.settings.start_ms // FRAME_MS)
        self._recent = [*self._recent[-(need + need // 2 - 1) :], speech] if need > 1 else [speech]
        if sum(self._recent) < need:
            return None
        self.in_utterance = True
        self._first_speech = self.frames - len(self._recent) + self._recent.index(True)
        self._last_speech = self.frames
        self._recent = []
        padded = self._first_speech - self.settings.padding_ms // FRAME_MS
        return Started(self._first_speech * FRAME_SAMPLES, max(padded, self._floor) * FRAME_SAMPLES)

    def wait(self, silence_ms: int) -> None:
        """Changes the silence that ends an utterance, from the next frame on: what was said tells how long to wait."""
        self.settings = replace(self.settings, silence_ms=silence_ms)

    def end(self) -> Ended:
        """Ends the utterance now (a client's commit, or the limit). Raises RuntimeError outside one."""
        if not self.in_utterance:
            raise RuntimeError("no utterance to end")
        self.reset()
        return Ended(self._last_speech * FRAME_SAMPLES, self.frames * FRAME_SAMPLES)

    def reset(self) -> None:
        """Forgets an utterance under way; audio seen so far never belongs to a later one."""
        self.in_utterance = False
        self._recent = []
        self._floor = self.frames
