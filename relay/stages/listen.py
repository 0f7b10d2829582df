"""Listen: bytes from the client -> utterances. Resampling, voice activity and endpointing, on the sample clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from relay.audio import (
    BYTES_PER_SAMPLE,
    EARS_RATE_HZ,
    RATE_HZ,
    Format,
    Framer,
    Int16Array,
    Resampler,
    decode_bytes,
    ms_of,
)
from relay.endpoint import FRAME_MS, FRAME_SAMPLES, Ended, Endpointer, Endpointing, Started
from relay.vad import SpeechDetector

_START_MS = 1000  # more than it takes to find the start of an utterance


@dataclass(frozen=True, slots=True)
class Speech:
    """Audio of the utterance under way: [samples] int16 at 16 kHz."""

    pcm: Int16Array


NO_AUDIO: Int16Array = np.empty(0, dtype=np.int16)
Heard: TypeAlias = Started | Speech | Ended


class Intake:
    """One client's input audio. Positions count 16 kHz samples since the session began.

    Args:
        form: Format of the client's audio.
        endpointing: How utterances are found; None: only `end` ends one, and the first audio after it begins the next.
        threshold: Of the speech detector, 0 to 1.
        on_frame: Told of every frame, speech or not: [FRAME_SAMPLES] int16 at 16 kHz.
    """

    def __init__(
        self,
        form: Format,
        endpointing: Endpointing | None,
        *,
        threshold: float = 0.5,
        on_frame: Callable[[Int16Array], None] = lambda _: None,
    ) -> None:
        self._on_frame = on_frame
        self._framer = Framer(FRAME_SAMPLES)
        self.received_samples = 0
        self._padding: deque[Int16Array] = deque()
        self._in_manual = False
        self._endpointer: Endpointer | None = None
        self._first_frame = 0
        self.configure(form, endpointing, threshold=threshold)

    def configure(self, form: Format, endpointing: Endpointing | None, *, threshold: float) -> None:
        """Changes the settings from the next audio on; an utterance under way is forgotten."""
        self._form: Format = form
        self._resampler = Resampler(RATE_HZ[form], EARS_RATE_HZ)
        self._detector = SpeechDetector(threshold)
        self._in_manual = False
        self._padding.clear()
        self._first_frame = self.received_samples // FRAME_SAMPLES
        self._endpointer = None if endpointing is None else Endpointer(endpointing)

    @property
    def is_manual(self) -> bool:
        """Whether the client itself says where turns end."""
        return self._endpointer is None

    @property
    def in_utterance(self) -> bool:
        """Whether there is audio that a commit would end."""
        return self._in_manual if self._endpointer is None else self._endpointer.in_utterance

    @property
    def silence_ms(self) -> int:
        """How long the speaker has been silent within an utterance; 0 outside one, and where the client ends turns."""
        return 0 if self._endpointer is None else self._endpointer.silence_ms

    def seconds_of(self, data: bytes) -> float:
        """How long audio in the client's format lasts."""
        return len(data) / (BYTES_PER_SAMPLE[self._form] * RATE_HZ[self._form])

    def push(self, data: bytes) -> Iterator[Heard]:
        """Takes audio in the client's format; yields what it brought, in order."""
        pcm = self._resampler.step(decode_bytes(data, self._form))
        for frame in self._framer.step(pcm):
            self.received_samples += FRAME_SAMPLES
            self._on_frame(frame)
            yield from self._manual_frame(frame) if self._endpointer is None else self._frame(frame, self._endpointer)

    def end(self) -> Ended | None:
        """Ends the utterance under way at the client's word; None if there is none."""
        if not self.in_utterance:
            return None
        if self._endpointer is not None:
            return self._ended(self._endpointer.end())
        self._in_manual = False
        return Ended(self.received_samples, self.received_samples)

    def wait(self, silence_ms: int) -> None:
        """Changes the silence that ends an utterance, from the next audio on."""
        if self._endpointer is not None:
            self._endpointer.wait(silence_ms)

    def clear(self) -> None:
        """Forgets the utterance under way and the padding."""
        self._in_manual = False
        self._padding.clear()
        if self._endpointer is not None:
            self._endpointer.reset()

    def _manual_frame(self, frame: Int16Array) -> Iterator[Heard]:
        if not self._in_manual:
            self._in_manual = True
            begin = self.received_samples - FRAME_SAMPLES
            yield Started(begin, begin)
        yield Speech(frame)

    def _frame(self, frame: Int16Array, endpointer: Endpointer) -> Iterator[Heard]:
        was_in_utterance = endpointer.in_utterance
        found = endpointer.step(self._detector.step(frame))
        if was_in_utterance:
            yield Speech(frame)
            if isinstance(found, Ended):
                self._padding.clear()
                yield self._ended(found)
            return
        self._padding.append(frame)
        if isinstance(found, Started):
            base = self._first_frame * FRAME_SAMPLES
            started = Started(found.speech_sample + base, found.audio_sample + base)
            yield started
            wanted = (self.received_samples - started.audio_sample) // FRAME_SAMPLES
            yield from (Speech(part) for part in list(self._padding)[-wanted:])
            self._padding.clear()
        elif len(self._padding) * FRAME_MS > _START_MS + endpointer.settings.padding_ms:
            self._padding.popleft()

    def _ended(self, found: Ended) -> Ended:
        base = self._first_frame * FRAME_SAMPLES
        return Ended(found.speech_sample + base, found.decided_sample + base)


def input_ms(samples: int) -> int:
    """Milliseconds of input audio."""
    return ms_of(samples, EARS_RATE_HZ)
