"""How well a draft model's signals tell turn ends from pauses, and interruptions from backchannels.

A silence of the user is watched frame by frame, from the frame in which it began: that one ends when the user has been
silent for up to 160 ms, and is the newest there is at 160 ms of silence; the next one is at 320 ms, and so on. It is
watched for as long as nobody speaks, so the history is what a server's would be, which has not begun to speak, and
nothing of a reply's echo is heard. When the other begins to speak after a turn is drawn by chance (`conversations`):
silences that are cut short by it are no others than those that go on, and are counted as the field counts lives that
it lost sight of (Kaplan and Meier 1958).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from relay_models.draft_config import DRAFT_FRAME_MS, END_FRAMES, STOP_FRAMES, Special, Trust
from relay_models.training.conversations import ASSISTANT, USER, Kind
from relay_models.training.draft_data import Turn
from relay_models.training.judging import bounded_threshold, fit_platt, roc

LEAST_EXAMPLES = 50
LEAST_AREA = 0.6
"""Nothing is trusted that was measured on fewer of either kind, or tells them apart less well."""
TAKEOVERS = (0.01, 0.02, 0.05, 0.1, 0.2)

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Watched:
    """A signal in one silence, or in speech under a reply.

    Attributes:
        is_true: The turn has ended, or the speech is an interruption.
        probabilities: Of the special token, frame by frame.
    """

    is_true: bool
    probabilities: Sequence[float]


@dataclass(slots=True)
class TurnSignals:
    """All that was watched.

    Attributes:
        silences: `BOS` while the user is silent, after a turn or in it.
        overlaps: `STP` while the user speaks under a turn of the model's.
    """

    silences: list[Watched] = field(default_factory=list)
    overlaps: list[Watched] = field(default_factory=list)

    def add(self, turns: Iterable[Turn], pauses: Iterable[tuple[int, int]], specials: Probabilities) -> None:
        """Takes a dialogue.

        Args:
            turns, pauses: See `draft_data.Spoken`.
            specials: [frames, 5], the probability of each `Special`, with the true tokens as history.
        """
        begins, stops = specials[:, Special.BOS], specials[:, Special.STP]
        every = sorted(turns, key=lambda turn: turn.first)
        replies = [turn for turn in every if turn.speaker == ASSISTANT and turn.kind != Kind.BACKCHANNEL.value]
        for first, last in pauses:  # in the last one the user may have begun to speak again
            self.silences.append(Watched(False, begins[first:last].tolist()))
        for turn in every:
            if turn.speaker != USER:
                continue
            if turn.kind == Kind.BACKCHANNEL.value:
                if any(reply.first < turn.first <= reply.last for reply in replies):
                    self.overlaps.append(Watched(False, stops[turn.first : turn.last + 1][:STOP_FRAMES].tolist()))
                continue
            if turn.kind == Kind.BARGE_IN.value:
                self.overlaps.append(Watched(True, stops[turn.first :][:STOP_FRAMES].tolist()))
            answered = next((reply.first for reply in replies if reply.first >= turn.last), None)
            if answered is not None:
                self.silences.append(Watched(True, begins[turn.last : answered].tolist()))

    def report(self) -> dict[str, object]:
        """Counts and areas under the ROC by length, the trade-off, and what `DraftConfig` may say of them."""
        return {
            "turn_ends": {
                **_areas(self.silences, END_FRAMES),
                "trade_off": [trade_off(self.silences, share) for share in TAKEOVERS],
            },
            "stops": _areas(self.overlaps, STOP_FRAMES),
            "trust": {
                name: {"weight": round(trust.weight, 4), "bias": round(trust.bias, 4)}
                for name, trust in (
                    ("turn_ends", fit(self.silences, END_FRAMES)),
                    ("stops", fit(self.overlaps, STOP_FRAMES)),
                )
            },
        }

    def scores(self) -> dict[str, float]:
        """The areas under the ROC by length, for a line of a log: `end_auc_160`, ..., `stop_auc_160`, ..."""
        kinds = (("end", self.silences, END_FRAMES), ("stop", self.overlaps, STOP_FRAMES))
        return {
            f"{name}_auc_{(frame + 1) * DRAFT_FRAME_MS}": area_at(watched, frame)
            for name, watched, frames in kinds
            for frame in range(frames)
        }


def area_at(watched: Sequence[Watched], frame: int) -> float:
    """Area under the ROC at a frame, of those that last so long; nan where there are none of a kind."""
    scores, is_true = _at(watched, frame)
    return roc(scores, is_true).area if is_true.any() and not is_true.all() else math.nan


def trade_off(watched: Sequence[Watched], takeovers: float) -> dict[str, float | list[float | None] | None]:
    """What beginning at a probability of `BOS` alone would give, if it may take so large a share of the pauses.

    Returns:
        `takeovers`, the share of pauses taken, whatever their length; `threshold`, the probability above which a turn
        is begun; `noticed`, the share of turn ends after 160, 320, ... 960 ms of silence. None where nothing lasts so
        long.
    """
    peaks = [max(each.probabilities, default=0.0) for each in watched if not each.is_true]
    threshold = bounded_threshold(peaks, takeovers)
    left = 1.0
    noticed: list[float | None] = []
    waiting = [each.probabilities for each in watched if each.is_true]
    for frame in range(END_FRAMES):
        waiting = [each for each in waiting if len(each) > frame]
        still = [each for each in waiting if each[frame] <= threshold]
        if left:
            left *= len(still) / len(waiting) if waiting else math.nan
        noticed.append(_rounded(1 - left))
        waiting = still
    taken = sum(peak > threshold for peak in peaks) / len(peaks) if peaks else math.nan
    return {"takeovers": _rounded(taken), "threshold": threshold, "noticed": noticed}


def fit(watched: Sequence[Watched], frames: int) -> Trust:
    """How much evidence the signal is (Platt 1999), were true and untrue ones as frequent as each other at each frame.

    No trust where examples are too few, or hardly told apart.
    """
    log_odds: list[float] = []
    truth: list[bool] = []
    for frame in range(frames):
        scores, is_true = _at(watched, frame)
        count = min(int(is_true.sum()), int((~is_true).sum()))
        for kind in (True, False):
            some = np.sort(scores[is_true == kind])
            picked = some[np.linspace(0, len(some) - 1, count).round().astype(int)] if count else some[:0]
            bounded = np.clip(picked, 1e-6, 1 - 1e-6)
            log_odds += np.log(bounded / (1 - bounded)).tolist()
            truth += [kind] * count
    found, flags = np.array(log_odds), np.array(truth, dtype=np.bool_)
    if len(found) < 2 * LEAST_EXAMPLES or roc(found, flags).area < LEAST_AREA:
        return Trust()
    weight, bias = fit_platt(found, flags)
    return Trust(weight, bias) if weight > 0 else Trust()


def _at(watched: Sequence[Watched], frame: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities at a frame of those that last so long, and which are true."""
    there = [each for each in watched if len(each.probabilities) > frame]
    scores = np.array([each.probabilities[frame] for each in there], dtype=np.float64)
    return scores, np.array([each.is_true for each in there], dtype=np.bool_)


def _areas(watched: Sequence[Watched], frames: int) -> dict[str, object]:
    rows = []
    for frame in range(frames):
        _, is_true = _at(watched, frame)
        counts = {"true": int(is_true.sum()), "untrue": int((~is_true).sum())}
        rows.append({"ms": (frame + 1) * DRAFT_FRAME_MS, **counts, "auc": _rounded(area_at(watched, frame))})
    return {"by_length": rows}


def _rounded(number: float) -> float | None:
    return None if math.isnan(number) else round(number, 4)
