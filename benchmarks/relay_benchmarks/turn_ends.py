"""What the draft model adds to the words when a turn's end is decided: written dialogues, said, and decided offline.

Every reply comes late here, so that the silence after a turn is as long as it takes, and every turn that is long enough
has a pause. At each silence, the end of a turn or a pause in it, the language model says how likely the turn ends with
its true words; the draft model, frame by frame, how likely it would begin. `relay.phrase` and `relay.evidence` decide,
as with `semantic_vad`: once without the draft model, and once with it, as far as its config.json trusts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relay.audio import EARS_RATE_HZ, samples_in
from relay.brains import Brain
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Signals
from relay.events import Message
from relay.evidence import end_evidence
from relay.phrase import silence_ms
from relay_models.draft_config import DRAFT_FRAME_MS, Special, Trust
from relay_models.training.conversations import ASSISTANT, USER, Habits, Kind
from relay_models.training.draft_batches import Heard
from relay_models.training.draft_turns import Probabilities
from relay_models.training.ears_data import words

HABITS = Habits(paused_share=1.0, late_share=1.0, late_s=(0.8, 1.2), barge_in_share=0.0)
JUDGED_MS = 100
"""Silence after which a session has the language model's judgement: 60 ms, and the time it takes."""
COMPUTED_MS = 20
"""Time that a frame of the draft model takes."""
STEP_MS = 20
PHASES_MS = (40, 80, 120, 160)
"""Where in the silence the frame in which it began may end: a session's frames lie anywhere."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence of the user.

    Attributes:
        messages: What was said until then; the last one is the user's.
        is_end: The turn is over.
        lasts_ms: How long it lasts, to within a frame; of an end, how long nobody speaks.
        begins: Probability of `BOS` frame by frame, from the frame in which it began.
    """

    messages: Sequence[Message]
    is_end: bool
    lasts_ms: int
    begins: Sequence[float]


def silences(heard: Heard, specials: Probabilities) -> list[Silence]:
    """The silences of a dialogue in which the user was not interrupted, in order.

    Args:
        heard: The dialogue.
        specials: [frames, 5], see `draft_eval.specials_of`.
    """
    found: list[Silence] = []
    said: list[Message] = []
    begins = specials[:, Special.BOS]
    turns = [turn for turn in sorted(heard.turns, key=lambda turn: turn.first) if turn.kind != Kind.BACKCHANNEL.value]
    for place, turn in enumerate(turns):
        if turn.speaker == ASSISTANT:
            said.append(Message("assistant", turn.text))
            continue
        for first, last in heard.pauses:
            if turn.first <= first < last <= turn.last and turn.before_pause:
                before = [*said, Message("user", words(turn.before_pause))]
                lasts_ms = (last - first) * DRAFT_FRAME_MS
                found.append(Silence(before, False, lasts_ms, begins[first:last].tolist()))
        answered = next((later.first for later in turns[place + 1 :] if later.speaker != USER), None)
        if answered is not None and answered > turn.last:
            before = [*said, Message("user", words(turn.text))]
            lasts_ms = (answered - turn.last) * DRAFT_FRAME_MS
            found.append(Silence(before, True, lasts_ms, begins[turn.last : answered].tolist()))
        said.append(Message("user", turn.text))
    return found


async def completeness(brain: Brain, found: Iterable[Silence]) -> list[float | None]:
    """How likely each of these turns ends with its words, by the language model."""
    async with brain, brain.dialogue() as dialogue:
        return [await dialogue.end_probability(silence.messages) for silence in found]


def taken_after_ms(silence: Silence, complete: float | None, trust: Trust, phase_ms: int) -> int | None:
    """Silence after which the turn is taken; None where a pause is over before.

    Args:
        silence: The silence.
        complete: How likely the turn ends with its words.
        trust: Of the draft model's signal.
        phase_ms: Where in the silence its first frame ends.
    """
    text = silence.messages[-1].text
    for now_ms in range(STEP_MS, 10_000, STEP_MS):
        if not silence.is_end and now_ms >= silence.lasts_ms:
            return None
        newest = (now_ms - COMPUTED_MS - phase_ms) // DRAFT_FRAME_MS
        evidence = None
        if 0 <= newest < len(silence.begins):
            begin = silence.begins[newest]
            until = samples_in(phase_ms, EARS_RATE_HZ) + newest * DRAFT_FRAME_SAMPLES
            signals = Signals(until, begin, 0.0, 0.0, trust.evidence(begin))
            evidence = end_evidence(signals, samples_in(now_ms, EARS_RATE_HZ), now_ms)
        judged = complete if now_ms >= JUDGED_MS else None
        if now_ms >= silence_ms(text, judged, "auto", evidence=evidence):
            return now_ms
    return None


def summarise(found: Sequence[Silence], judged: Sequence[float | None], trust: Trust) -> dict[str, Any]:
    """Pauses taken for the end, and how soon ends are, by words alone and with the draft model, for the report."""
    rules = {"words": Trust(), "words_and_draft": trust}
    report: dict[str, Any] = {
        "ends": sum(silence.is_end for silence in found),
        "pauses": sum(not silence.is_end for silence in found),
        "trust": {"weight": trust.weight, "bias": trust.bias},
    }
    for name, rule in rules.items():
        taken: dict[bool, list[int | None]] = {True: [], False: []}
        for silence, complete in zip(found, judged, strict=True):
            taken[silence.is_end] += [taken_after_ms(silence, complete, rule, phase) for phase in PHASES_MS]
        after_ms = [each for each in taken[True] if each is not None]
        pauses = taken[False]
        report[name] = {
            "pauses_taken": round(sum(each is not None for each in pauses) / len(pauses), 4) if pauses else None,
            "end_ms": {
                "mean": round(float(np.mean(after_ms)), 1) if after_ms else None,
                **{f"p{s}": round(float(np.percentile(after_ms, s)), 1) if after_ms else None for s in (50, 95)},
            },
        }
    return report
