"""A session's side of the fast path: tells the draft model all that is heard and said, and begins hand-offs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from relay.audio import Int16Array
from relay.brains import Dialogue
from relay.config import Path_
from relay.engine.draft import DraftInput, Signals
from relay.handoff import Handoff
from relay.metrics import Metrics
from relay.services import Fast
from relay.stages.draft import follow, open_inbox, tell
from relay.stages.listen import NO_AUDIO


class FastPath:
    """What a session has of the draft model; without one, it does nothing.

    The model hears on while the session does without it: it may be asked for the next reply.

    Args:
        fast: The server's fast path, if it has one.
        metrics: Counts drafts.

    Attributes:
        signals: What the draft model made of the newest frame that it has heard; stays when the model falls silent.
    """

    def __init__(self, fast: Fast | None, metrics: Metrics) -> None:
        self._fast = fast
        self._metrics = metrics
        self._inbox = open_inbox()
        self._heard_samples = 0
        self.signals: Signals | None = None

    async def run(self) -> None:
        """Follows the session; one task for as long as it lasts."""
        if self._fast is not None:
            await follow(self._inbox, self._fast.engine, self._on_signals)

    def heard(self, pcm: Int16Array) -> None:
        """Audio from the caller, speech or not: [samples] int16 at 16 kHz."""
        self._heard_samples += len(pcm)
        self._tell(DraftInput(pcm, until_sample=self._heard_samples))

    def said(self, words: Sequence[str]) -> None:
        """Words of a reply begin to sound, whichever path they came by: this becomes the draft model's own history."""
        self._tell(DraftInput(NO_AUDIO, " ".join(words), until_sample=self._heard_samples))

    def ended(self, how: Literal["whole", "broken"]) -> None:
        """The reply was said to its end, or broken off."""
        self._tell(DraftInput(NO_AUDIO, ended=how, until_sample=self._heard_samples))

    def handoff(self, dialogue: Dialogue, confidence: float, path: Path_) -> Handoff | None:
        """The brain behind a draft; None where there is no fast path, or the session does without.

        Args:
            dialogue: The session's side of the brain.
            confidence: How sure the recogniser is of what is answered; 0 if nobody knows.
            path: The session's.
        """
        if self._fast is None or path == "cascade":
            return None
        return Handoff(dialogue, replace(self._fast, path=path), self._inbox, confidence, self._count)

    def _on_signals(self, signals: Signals) -> None:
        self.signals = signals

    def _count(self, outcome: str) -> None:
        self._metrics.drafts.labels(outcome).inc()

    def _tell(self, item: DraftInput) -> None:
        if self._fast is not None:
            tell(self._inbox, item)
