"""Voice activity, one flag a 20 ms frame: WebRTC's detector behind an adaptive noise gate."""

from __future__ import annotations

import math

import numpy as np
import webrtcvad

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.endpoint import FRAME_SAMPLES

_SILENCE_DBFS = -96.0


class SpeechDetector:
    """Says of each frame whether it holds speech.

    WebRTC's detector alone takes steady room noise for speech now and then; a frame must also stand out above the noise
    floor, which follows the quietest frames: down at once, up slowly.

    Args:
        threshold: 0 to 1, as in the protocol: higher asks for clearer speech.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self._vad = webrtcvad.Vad(min(3, round(threshold * 4)))
        self._above_floor_db = 4.0 + 10.0 * threshold
        self._floor_dbfs = -60.0

    def step(self, frame: Int16Array) -> bool:
        """[320] int16 at 16 kHz -> whether it is speech."""
        if len(frame) != FRAME_SAMPLES:
            raise ValueError(f"a frame has {FRAME_SAMPLES} samples, not {len(frame)}")
        level_dbfs = _level_dbfs(frame)
        if level_dbfs < self._floor_dbfs:
            self._floor_dbfs += 0.3 * (level_dbfs - self._floor_dbfs)
            return False
        voiced: bool = self._vad.is_speech(frame.tobytes(), EARS_RATE_HZ)
        # 1 dB a second where the detector hears no voice, a tenth of that where it does.
        self._floor_dbfs += 0.002 if voiced else 0.02
        return voiced and level_dbfs > self._floor_dbfs + self._above_floor_db


def _level_dbfs(frame: Int16Array) -> float:
    x = frame.astype(np.float32)
    power = float(np.dot(x, x)) / len(frame) / 32768.0**2
    return 10.0 * math.log10(power) if power > 1e-10 else _SILENCE_DBFS
