"""Hold: what is heard when the slow path is late to join words that were spoken already. A breath, for a while."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in

HOLD_MS = 2400
"""Longest hold; what has not come by then is given up."""
_CHUNK_SAMPLES = samples_in(80, VOICE_RATE_HZ)
_FADE_SAMPLES = samples_in(10, VOICE_RATE_HZ)
_LEAST_LEAD_S = 0.12
_LEVEL = 260  # of 32768, root mean square of a breath: about 42 dB below full scale


class Hold:
    """Fills the time until words come, in small pieces, and no longer than `HOLD_MS`.

    Args:
        is_wanted: Whether words of a reply that has begun are late now, if nothing more is to be heard.
        lead_s: How much of the audio sent is still to be played; None before the first of it.
        on_over: Told when the hold has been used up.

    Attributes:
        flushed: Whether the voice was asked for all that it was keeping back, which comes before any breath.
    """

    def __init__(
        self, is_wanted: Callable[[], bool], lead_s: Callable[[], float | None], on_over: Callable[[], None]
    ) -> None:
        self._is_wanted = is_wanted
        self._lead_s = lead_s
        self._on_over = on_over
        self._given = 0
        self.flushed = False

    @property
    def held_samples(self) -> int:
        """How much has been given, at 24 kHz."""
        return self._given

    def due_s(self) -> float | None:
        """When it is to be held, from now; None when there is no need to, or nothing to hold with.

        Before the first sound it is due at once until the voice was `flushed`, and never after: a reply does not begin
        with a breath.
        """
        lead_s = self._lead_s()
        if not self._is_wanted() or self._given >= len(breathing()):
            return None
        if lead_s is None:
            return None if self.flushed else 0.0
        return max(0.0, lead_s - _LEAST_LEAD_S)

    def more(self) -> Int16Array:
        """The next piece: [samples] int16."""
        pcm = breathing()[self._given : self._given + _CHUNK_SAMPLES]
        self._given += len(pcm)
        if self._given >= len(breathing()):
            self._on_over()
        return pcm

    def tail(self) -> Int16Array:
        """What ends the hold without a click: 10 ms, fading; nothing where there was no hold."""
        if not self._given or self._given >= len(breathing()):
            return breathing()[:0]
        pcm = breathing()[self._given : self._given + _FADE_SAMPLES].astype(np.float32)
        self._given += len(pcm)
        return np.rint(pcm * np.linspace(1, 0, len(pcm), dtype=np.float32)).astype(np.int16)


@cache
def breathing() -> Int16Array:
    """The whole hold: [samples] int16, 24 kHz. Silence, a breath in, silence, a longer one, silence.

    A breath is noise between about 0.4 and 3 kHz that swells and ebbs.
    """
    chance = np.random.default_rng(0)
    total = samples_in(HOLD_MS, VOICE_RATE_HZ)
    noise = chance.standard_normal(total)
    spectrum = np.fft.rfft(noise)
    frequency_hz = np.fft.rfftfreq(total, 1 / VOICE_RATE_HZ)
    spectrum *= 1 / (1 + (400 / np.maximum(frequency_hz, 1)) ** 4) / (1 + (frequency_hz / 3000) ** 4)
    noise = np.fft.irfft(spectrum, total)
    envelope = np.zeros(total)
    for first_ms, length_ms in ((220, 520), (1300, 700)):
        first, length = samples_in(first_ms, VOICE_RATE_HZ), samples_in(length_ms, VOICE_RATE_HZ)
        envelope[first : first + length] = np.sin(np.linspace(0, np.pi, length)) ** 2
    pcm: Int16Array = np.rint(noise / noise.std() * _LEVEL * envelope).astype(np.int16)
    return pcm
