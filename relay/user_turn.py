"""A user's turn from its first sample until it is answered: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from relay.backchannel import Overlap
from relay.engine.draft import Signals
from relay.engine.ears import EarsOutput
from relay.errors import StageFailed
from relay.evidence import stop_evidence
from relay.metrics import StageClock
from relay.stages.listen import input_ms


@dataclass(slots=True)
class UserTurn:
    """What is known of a user's turn until it is answered.

    Attributes:
        item_id: The conversation's item that it becomes; None while the client has not been told of it.
        begin_sample: Where its audio begins on the session's clock.
        speech_sample: Where its first speech does.
        noticed_sample: When that was noticed.
        decided_sample: When its end was; None before.
        audio_s: Duration of its audio, once it has ended.
        clock: Stage times, started at its end.
        failure: Why it could not be recognised.
        partial: What was heard of it last.
        told_chars: How much of its transcript the client has been sent.
        told_words: How many of its words.
        paused_after: What had been heard of it when a likely end was told, while the silence lasts.
        judged: Words of it, and how likely it ends with them.
    """

    item_id: str | None
    begin_sample: int
    speech_sample: int
    noticed_sample: int
    decided_sample: int | None = None
    audio_s: float = 0.0
    clock: StageClock | None = None
    failure: StageFailed | None = None
    partial: EarsOutput | None = None
    told_chars: int = 0
    told_words: int = 0
    paused_after: str | None = None
    judged: tuple[str, float] | None = None

    @property
    def text(self) -> str:
        """What has been heard of it while it is spoken."""
        return "" if self.partial is None else f"{self.partial.stable} {self.partial.unstable}".strip()

    def overlap(
        self, now_sample: int, silence_ms: int, *, is_believed: bool, signals: Signals | None = None
    ) -> Overlap:
        """What is known of it as speech under a reply, after `silence_ms` of silence."""
        speech_ms = input_ms(now_sample - self.speech_sample) - silence_ms
        waited_ms = input_ms(now_sample - self.noticed_sample)
        evidence = stop_evidence(signals, now_sample, self.speech_sample)
        return Overlap(self.text, is_believed, speech_ms, silence_ms, waited_ms, evidence)


def confidence_of(output: EarsOutput) -> float:
    """Mean confidence of the words that a recogniser is sure to have heard; 0 without any."""
    return sum(word.confidence for word in output.words) / len(output.words) if output.words else 0.0
