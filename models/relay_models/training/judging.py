"""How well probabilities tell good from bad: operating points, ROC, calibration. Plain functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Roc:
    """The curve, one point a distinct threshold, from the strictest to the most lenient.

    Attributes:
        kept_bad: [points] share of bad ones that pass.
        kept_good: [points] share of good ones that pass.
        thresholds: [points]; what is at least this passes.
        area: Under the curve.
    """

    kept_bad: Floats
    kept_good: Floats
    thresholds: Floats
    area: float


def roc(scores: Floats, good: Flags) -> Roc:
    """The curve of scores [n] against labels [n]. Raises ValueError unless there are good and bad ones."""
    _check(scores, good)
    order = np.argsort(-scores, kind="stable")
    ranked, labels = scores[order], good[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # equal scores are one point
    kept_good = np.append(0.0, np.cumsum(labels)[last] / labels.sum())
    kept_bad = np.append(0.0, np.cumsum(~labels)[last] / (~labels).sum())
    area = float(np.sum(np.diff(kept_bad) * (kept_good[1:] + kept_good[:-1]) / 2))
    return Roc(kept_bad, kept_good, np.append(np.inf, ranked[last]), area)


def threshold_keeping(scores: Floats, good: Flags, share: float) -> float:
    """The highest threshold at which at least `share` of the good ones pass (score >= threshold).

    Raises ValueError unless there is a good one and the share lies in (0, 1].
    """
    if not 0 < share <= 1 or not good.any():
        raise ValueError("a threshold needs good examples, and a share of them above 0 and at most 1")
    ranked = np.sort(scores[good])[::-1]
    # The small number absorbs what floating point adds to a product such as 0.96 * 50.
    return float(ranked[max(1, math.ceil(share * len(ranked) - 1e-9)) - 1])


def bounded_threshold(values: Sequence[float], share: float) -> float:
    """The smallest value that at most `share` of all values exceed; 0 where there are none."""
    ranked = sorted(values, reverse=True)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else 0.0


def caught(scores: Floats, good: Flags, threshold: float) -> float:
    """Share of the bad ones that a threshold stops; nan without any."""
    bad = scores[~good]
    return float((bad < threshold).mean()) if len(bad) else float("nan")


def calibration_error(probabilities: Floats, good: Flags, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599) over bins of equal width.

    Mean distance between a bin's mean probability and its share of good ones, weighted by how many it holds.
    """
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    total = 0.0
    for each in range(bins):
        inside = place == each
        if inside.any():
            total += inside.sum() * abs(probabilities[inside].mean() - good[inside].mean())
    return float(total / max(1, len(probabilities)))


def fit_platt(logits: Floats, good: Flags, *, steps: int = 100) -> tuple[float, float]:
    """Scale and shift that make sigmoid(scale * logit + shift) the probability of being good (Platt 1999).

    Newton's method on the log-likelihood, with Platt's softened targets, so that it converges where classes separate.
    Raises ValueError unless there are good and bad ones.
    """
    _check(logits, good)
    count_good, count_bad = int(good.sum()), int((~good).sum())
    target = np.where(good, (count_good + 1) / (count_good + 2), 1 / (count_bad + 2))
    x = np.stack((logits, np.ones_like(logits)), axis=1)
    weights = np.array([1.0, 0.0])

    def loss(w: Floats) -> float:
        z = x @ w
        return float(np.sum(np.logaddexp(0, z) - target * z))

    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))
        gradient = x.T @ (p - target)
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        move, size = np.linalg.solve(hessian, gradient), 1.0
        while loss(weights - size * move) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * move
        if np.abs(size * move).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def _check(scores: Floats, good: Flags) -> None:
    if len(scores) != len(good) or not good.any() or good.all():
        raise ValueError("good and bad examples are needed, and one score for each")
