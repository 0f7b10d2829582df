"""Where the time between a person's last word and the first sound of the answer went.

The server times its own stages; what it cannot see is how long sound was on its way and how long it lay in the player.
The client measures those, on its own clock, and what remains is shown as unaccounted, never shared out.

    onset = endpointing + ears [+ draft + verify] + llm_first + voice_first + transport + playout + unaccounted
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.dialogue import Reply
from relay.client.duplex import PacedCard

SERVER_STAGES = ("endpointing", "ears", "draft", "verify", "llm_first", "voice_first")
STAGES = (*SERVER_STAGES, "transport", "playout")
AUDIBLE_DBFS = -50.0
_AUDIBLE = 32768.0 * 10.0 ** (AUDIBLE_DBFS / 20.0)
SPEECH_RANGE_DB = 35.0
_FRAME_MS = 10


@dataclass(frozen=True, slots=True)
class Onset:
    """One answer's delay and its parts, in milliseconds.

    Attributes:
        onset_ms: Last sample of the user's speech to the first audible sample played.
        stages_ms: Its parts by name; a stage that did not run is absent.
    """

    onset_ms: float
    stages_ms: dict[str, float]

    @property
    def unaccounted_ms(self) -> float:
        """What the parts do not explain; negative when they overlap."""
        return self.onset_ms - sum(self.stages_ms.values())


def first_audible(pcm: Int16Array) -> int | None:
    """Index of the first sample of at least -50 dBFS, None if there is none."""
    loud = np.abs(pcm.astype(np.int32)) >= _AUDIBLE
    return int(np.argmax(loud)) if loud.any() else None


def speech_bounds(pcm: Int16Array, rate_hz: int = VOICE_RATE_HZ) -> tuple[int, int]:
    """First sample of the first and last sample of the last speech frame.

    A frame of 10 ms is speech when its level is at most 35 dB below that of the loudest frame. That keeps the weak ends
    of words (a final fricative is 20 to 30 dB down) and leaves out what a synthesiser pads with and quiet room noise.

    Raises:
        ValueError: There is no sound at all.
    """
    frame = samples_in(_FRAME_MS, rate_hz)
    frames = pcm[: len(pcm) // frame * frame].reshape(-1, frame).astype(np.float64)
    power = (frames**2).mean(axis=1)
    if not len(power) or not power.max():
        raise ValueError("no sound in which to look for speech")
    speech = np.flatnonzero(power >= power.max() * 10.0 ** (-SPEECH_RANGE_DB / 10.0))
    return int(speech[0]) * frame, (int(speech[-1]) + 1) * frame - 1


def onset_of(reply: Reply, card: PacedCard, *, speech_end: int, first_played: int) -> Onset:
    """Splits one answer's delay.

    Endpointing counts from the true end of speech, not from the server's guess of it. Transport is the time from the
    sample that decided the turn, on this client's clock, to the arrival of the server's word that the turn is over: the
    wait until the block around that sample was complete, the way up and the way down. Playout is the time from the
    arrival of the first audio to its first audible sample: the jitter buffer, the wait for the card's next block, and
    silence at the head of the audio.

    Args:
        reply: The answer.
        card: The clock that it was spoken and played on.
        speech_end: Position of the last sample of the user's speech.
        first_played: Position of the first audible sample of the answer.
    """
    per_ms = VOICE_RATE_HZ / 1000
    metrics = reply.metrics or {}
    stages = {name: float(ms) for name, ms in metrics.get("stages_ms", {}).items() if name in SERVER_STAGES}
    decided_ms = metrics.get("decided_ms")
    if decided_ms is not None:
        stages["endpointing"] = decided_ms - speech_end / per_ms
        if reply.turn_ended_s is not None:
            stages["transport"] = card.position_at(reply.turn_ended_s) / per_ms - decided_ms
    if reply.first_audio_s is not None:
        stages["playout"] = (first_played - card.position_at(reply.first_audio_s)) / per_ms
    return Onset((first_played - speech_end) / per_ms, stages)
