"""What the draft model's newest frame tells of the caller, if it is fresh and about this silence or speech. Pure.

The draft model says once a frame how likely it would begin a turn, or break its own off. Its own file says how much
evidence that is (`relay_models.draft_config.Trust`). Without that, without the model, and while it is late, there is
none.
"""

from __future__ import annotations

from relay.audio import EARS_RATE_HZ, ms_of
from relay.engine.draft import Signals
from relay_models.draft_config import DRAFT_FRAME_MS, END_FRAMES, STOP_FRAMES

MAX_AGE_MS = 320
"""A frame that ended longer ago tells nothing of now: by then the model should have heard another one."""
MAX_NATS = 3.0
"""Evidence beyond this, twenty to one, counts as this: no one model decides alone."""


def end_evidence(signals: Signals | None, now_sample: int, silence_ms: int) -> float | None:
    """Evidence that a turn has ended.

    Args:
        signals: Of the newest frame, if there is any.
        now_sample: The session's clock.
        silence_ms: How long the caller has been silent.

    Returns:
        Log-odds in nats, within +-MAX_NATS; None where the frame is too old, from before the silence, or from so late
        in it that nobody has measured what it tells.
    """
    if signals is None:
        return None
    into_ms = silence_ms - _age_ms(signals, now_sample)
    return _fresh(signals.end_evidence, signals, now_sample) if 0 <= into_ms <= END_FRAMES * DRAFT_FRAME_MS else None


def stop_evidence(signals: Signals | None, now_sample: int, speech_sample: int) -> float | None:
    """Evidence that speech under a reply, which goes on, wants the floor.

    Args:
        signals: Of the newest frame, if there is any.
        now_sample: The session's clock.
        speech_sample: Where the speech began.

    Returns:
        As `end_evidence`, None likewise.
    """
    if signals is None:
        return None
    into_ms = ms_of(signals.until_sample - speech_sample, EARS_RATE_HZ)
    return _fresh(signals.stop_evidence, signals, now_sample) if 0 < into_ms <= STOP_FRAMES * DRAFT_FRAME_MS else None


def _fresh(evidence: float | None, signals: Signals, now_sample: int) -> float | None:
    if evidence is None or not 0 <= _age_ms(signals, now_sample) <= MAX_AGE_MS:
        return None
    return min(max(evidence, -MAX_NATS), MAX_NATS)


def _age_ms(signals: Signals, now_sample: int) -> int:
    return ms_of(now_sample - signals.until_sample, EARS_RATE_HZ)
