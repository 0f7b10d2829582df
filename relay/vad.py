"""Voice activity, one flag a 20 ms frame: WebRTC's detector behind an adaptive noise gate."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import webrtcvad

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.endpoint import FRAME_MS, FRAME_SAMPLES

_SILENCE_DBFS = -96.0
_LOWEST_FLOOR_DBFS = -62.0
_FLOOR_MEMORY_MS = 1200
_SMOOTHING_FRAMES = 3


class SpeechDetector:
    """Says of each frame whether it holds speech.

    WebRTC's detector alone takes steady noise for speech, above all the noise that a browser's automatic gain lifts by
    30 dB when nobody speaks. So a frame must also stand out above the noise floor: the lowest level of the last 1.2 s
    (minimum statistics, Martin 2001). Speech dips between its syllables; noise, even noise that swells, does not.

    Args:
        threshold: 0 to 1, as in the protocol: higher asks for clearer speech.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self._vad = webrtcvad.Vad(min(3, round(threshold * 4)))
        self._above_floor_db = 4.0 + 10.0 * threshold
        self._recent: deque[float] = deque(maxlen=_SMOOTHING_FRAMES)
        self._levels: deque[float] = deque(maxlen=_FLOOR_MEMORY_MS // FRAME_MS)

    def step(self, frame: Int16Array) -> bool:
        """[320] int16 at 16 kHz -> whether it is speech."""
        if len(frame) != FRAME_SAMPLES:
            raise ValueError(f"a frame has {FRAME_SAMPLES} samples, not {len(frame)}")
        self._recent.append(_level_dbfs(frame))
        level_dbfs = sum(self._recent) / len(self._recent)
        self._levels.append(level_dbfs)
        floor_dbfs = max(min(self._levels), _LOWEST_FLOOR_DBFS)
        # The detector adapts to the noise by itself and must hear every frame.
        is_voice: bool = self._vad.is_speech(frame.tobytes(), EARS_RATE_HZ)
        return is_voice and level_dbfs > floor_dbfs + self._above_floor_db


def _level_dbfs(frame: Int16Array) -> float:
    x = frame.astype(np.float32)
    power = float(np.dot(x, x)) / len(frame) / 32768.0**2
    return 10.0 * math.log10(power) if power > 1e-10 else _SILENCE_DBFS
