"""Verify: a draft -> the words of it that may be spoken. The one place where that is decided, whoever judged it.

The verifier is asked here, unless the draft's engine has asked it already: on a GPU it comes right behind the draft,
before the host sees either (`relay_models.draft_slots`).
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.engine.draft import Draft, Verifier
from relay.errors import StageFailed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with a draft.

    Attributes:
        words: Those to speak; none when it is discarded.
        probability: The verifier's, that the draft is good; None where it was not asked.
    """

    words: tuple[str, ...]
    probability: float | None


async def verify(draft: Draft, confidence: float, verifier: Verifier) -> Verdict:
    """Decides about a draft. An empty one is not judged.

    Args:
        draft: What was drafted.
        confidence: How sure the recogniser is of what it answers; 0 if nobody knows.
        verifier: Judges it, if its engine has not.

    Raises:
        StageFailed: The verifier failed, or gave what is no judgement.
    """
    if not draft.words:
        return Verdict((), None)
    try:
        judged = draft.judgement or await verifier.judge(draft, confidence)
    except Exception as error:
        raise StageFailed("verify", f"the verifier failed: {error}") from error
    if not 0.0 <= judged.probability <= 1.0 or judged.words < 0:
        raise StageFailed("verify", f"the verifier gave {judged}, which is no judgement")
    return Verdict(draft.words[: judged.words], judged.probability)
