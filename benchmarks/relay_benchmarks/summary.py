"""From measured turns to the numbers of the report: percentiles, mean stages, rates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from relay.client.timing import STAGES

PERCENTILES = (50, 90, 95, 99)
MISS_AFTER_MS = 10_000.0


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One turn of the user and what came of it.

    Attributes:
        kind: `plain`, `paused` (with a pause in the middle) or `interruption` (begun while a reply played).
        text: What was said.
        transcript: What the server understood, over all parts of the turn.
        reply: What it answered.
        status: How the answer ended; None when the turn was missed, or `failed` where that is why.
        failure: Why it failed, as the server said.
        onset_ms: Last speech sample to first audible sample of the answer; None when there was none within 10 s.
        stages_ms: Its parts.
        unaccounted_ms: What the parts leave over.
        pauses: Pauses inside the turn.
        takeovers: Pauses in which a reply became audible before the turn was over.
        cut_ins: Replies that became audible while the user was speaking, outside pauses.
        stop_ms: For an interruption that met a reply: its first speech sample to the last sample of that reply.
        underruns: Gaps in the answer's playback.
        draft: Fields of the answer's `relay.draft`: what the fast path drafted, and whether it was spoken.
        ended_s: When the last speech sample was said, on the event loop's clock, which a machine's processes share.
        played_ms: How much of the answer was played.
        gaps_ms: Length of every gap in its playback.
    """

    kind: Literal["plain", "paused", "interruption"]
    text: str
    transcript: str = ""
    reply: str = ""
    status: str | None = None
    failure: str | None = None
    onset_ms: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    unaccounted_ms: float = 0.0
    pauses: int = 0
    takeovers: int = 0
    cut_ins: int = 0
    stop_ms: float | None = None
    underruns: int = 0
    draft: dict[str, Any] | None = None
    ended_s: float = 0.0
    played_ms: float = 0.0
    gaps_ms: list[float] = field(default_factory=list)


def distribution(values_ms: Sequence[float]) -> dict[str, float | None]:
    """P50 to P99, the largest and the mean, linearly interpolated; all None without values."""
    names = [f"p{p}" for p in PERCENTILES] + ["max", "mean"]
    if not values_ms:
        return dict.fromkeys(names)
    cuts = [float(np.percentile(values_ms, p)) for p in PERCENTILES]
    return dict(
        zip(names, (round(v, 1) for v in (*cuts, max(values_ms), math.fsum(values_ms) / len(values_ms))), strict=True)
    )


def stages_at(turns: Sequence[TurnResult], percentile: float) -> dict[str, float]:
    """Mean stages, and what they leave over, of the answered turns around a percentile of the onset.

    Single turns are noisy and percentiles of stages do not add up; the mean over the 5 % of turns around the percentile
    (three at least) does, to nearly the percentile itself.
    """
    answered = sorted((t for t in turns if t.onset_ms is not None), key=lambda turn: turn.onset_ms or 0.0)
    if not answered:
        return {}
    half = max(1, round(len(answered) * 0.025))
    middle = round((len(answered) - 1) * percentile / 100)
    return mean_stages(answered[max(0, middle - half) : middle + half + 1])


def mean_stages(turns: Sequence[TurnResult]) -> dict[str, float]:
    """Mean of every stage over the answered turns, 0 where it did not run, and of what they leave over."""
    answered = [turn for turn in turns if turn.onset_ms is not None]
    if not answered:
        return {}
    count = len(answered)
    stages = {name: round(math.fsum(t.stages_ms.get(name, 0.0) for t in answered) / count, 2) for name in STAGES}
    return stages | {"unaccounted": round(math.fsum(t.unaccounted_ms for t in answered) / count, 2)}


def drafts(path: str, turns: Sequence[TurnResult]) -> dict[str, Any]:
    """What became of the drafts: rates, counts by outcome, and for a rate that is None, why it is.

    The commit rate is over the answered turns: one without a draft is one that none was committed in.
    """
    answered = [turn for turn in turns if turn.onset_ms is not None]
    told = Counter(
        "committed" if turn.draft["committed"] else str(turn.draft["reason"]) for turn in answered if turn.draft
    )
    why: dict[str, str] = {}
    if path == "cascade":
        why = dict.fromkeys(("commit_rate", "bad_commit_rate"), "this path drafts nothing")
    else:
        why["bad_commit_rate"] = "whether words were good is what `relay bench quality --part relay` judges"
        if not told:
            why["commit_rate"] = "the server told nothing of drafts"
    rate = None if "commit_rate" in why else round(told["committed"] / len(answered), 4)
    return {"commit_rate": rate, "bad_commit_rate": None, "drafts": dict(told), "null_because": why}


def wilson_upper(hits: int, trials: int) -> float:
    """Upper bound of a proportion (Wilson 1927), at 95 % two-sided."""
    z = 1.96
    share = hits / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (centre + spread) / (1 + z * z / trials)


def summarise(path: str, turns: Sequence[TurnResult], *, brain_delay_ms: int | None = 0) -> dict[str, Any]:
    """The `results` entry of one path and delay of the brain; None: it is not known whether it was delayed.

    A missed turn counts with 10 s in the onset; it has no stages.
    """
    answered = [turn for turn in turns if turn.onset_ms is not None]
    onsets = [MISS_AFTER_MS if turn.onset_ms is None else turn.onset_ms for turn in turns]
    stages = mean_stages(turns)
    unaccounted = stages.pop("unaccounted", None)
    sum_onset = math.fsum(turn.onset_ms or 0.0 for turn in answered)
    sum_left = math.fsum(abs(turn.unaccounted_ms) for turn in answered)  # so that turns do not cancel out
    pauses = sum(turn.pauses for turn in turns)
    stops = [turn.stop_ms for turn in turns if turn.stop_ms is not None]
    return {
        "path": path,
        "brain_delay_ms": brain_delay_ms,
        "turns": len(turns),
        "onset_ms": distribution(onsets),
        "stages_ms": stages,
        "unaccounted_ms": unaccounted,
        "unaccounted_share": round(sum_left / sum_onset, 4) if sum_onset else None,
        "stages_at_ms": {f"p{p}": stages_at(turns, p) for p in PERCENTILES},
        "takeover_rate_pauses": round(sum(turn.takeovers for turn in turns) / pauses, 4) if pauses else None,
        "pauses": pauses,
        "cut_ins": sum(turn.cut_ins for turn in turns),
        "missed_turns": len(turns) - len(answered),
        "failed_replies": sum(turn.status == "failed" for turn in turns),
        **drafts(path, turns),
        "stop_ms": distribution(stops),
        "interruptions": len(stops),
        "underruns": sum(turn.underruns for turn in turns),
        "turn_list": [asdict(turn) for turn in turns],
    }
