"""What goes into a draft engine and what comes out of it; and what judges its drafts.

The draft model is duplex: it hears a session's audio at all times, and is told what is said on our side, by whichever
path, so that its history is what really happened. Asked for a draft, it answers from a copy of its state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from relay.audio import EARS_RATE_HZ, Int16Array, samples_in
from relay.engine.engine import Steps
from relay_models.drafting import Drafted

DRAFT_FRAME_SAMPLES = samples_in(160, EARS_RATE_HZ)
"""The draft model says one token in so much audio."""


@dataclass(frozen=True, slots=True)
class DraftInput:
    """One step of a slot. What is heard comes first, then what is said, then the draft that is asked for.

    Attributes:
        pcm: [samples] int16, 16 kHz, mono: what has been heard since the last step; any length.
        until_sample: Where `pcm` ends on the session's clock.
        words: Words of a reply of ours whose sound has begun since then; a reply begins with its first words.
        ended: That reply has ended: said to its end, or broken off.
        draft_words: How many words to draft; 0 for none.
        confidence: How sure the recogniser is of what the draft answers, 0 to 1; 0 if nobody knows.
    """

    pcm: Int16Array
    words: str = ""
    ended: Literal["", "whole", "broken"] = ""
    draft_words: int = 0
    confidence: float = 0.0
    until_sample: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """The first words of a reply.

    Attributes:
        words: In order, punctuation included; joined by spaces they are the text.
        complete: The model would end its turn after them.
        evidence: What the verifier that belongs to this engine needs to judge it; nobody else looks at it.
        judgement: Of the verifier, where the engine has asked it already; None: nobody has (`stages.verify`).
    """

    words: tuple[str, ...]
    complete: bool = False
    evidence: Drafted | None = field(default=None, compare=False)
    judgement: Judgement | None = None


@dataclass(frozen=True, slots=True)
class Signals:
    """What the model would do at its newest frame, and what that tells by the model's own file (`Trust`).

    Attributes:
        until_sample: Where the frame ends on the session's clock.
        begin_probability: That it would begin a turn of its own.
        backchannel_probability: That it would give a sign of listening.
        stop_probability: That it would break its own turn off.
        end_evidence: That the user's turn has ended, if the user is silent: log-odds in nats; None: not to be trusted.
        stop_evidence: That the user wants the floor, if the user speaks under our reply; likewise.
    """

    until_sample: int
    begin_probability: float
    backchannel_probability: float
    stop_probability: float
    end_evidence: float | None = None
    stop_evidence: float | None = None


@dataclass(frozen=True, slots=True)
class DraftOutput:
    """What a step gave.

    Attributes:
        signals: Of the newest frame that the model has heard; None before its first.
        draft: The draft that was asked for.
    """

    signals: Signals | None = None
    draft: Draft | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a verifier thinks of a draft.

    Attributes:
        probability: That its words are good, 0 to 1.
        words: How many of them may be spoken; 0 is the answer of a verifier in doubt.
    """

    probability: float
    words: int


DraftEngine: TypeAlias = Steps[DraftInput, DraftOutput]
"""What a session needs of the draft model."""


class Verifier(Protocol):
    """Decides whether a draft may be spoken."""

    async def judge(self, draft: Draft, confidence: float) -> Judgement:
        """Judges a draft; `confidence` is how sure the recogniser is of what it answers, 0 to 1, 0 if nobody knows."""
        ...
