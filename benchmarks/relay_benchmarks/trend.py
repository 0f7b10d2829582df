"""Whether something grows: the slope of a line through measurements, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_T_95 = 1.96


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line, and half the width of its 95 % confidence interval.

    Infinite for fewer than three points. Student's quantile is taken as 1.96 + 2.4 / n + 4 / n^2, n degrees of freedom
    (within 2 % of it from n = 4 on).
    """
    n = len(xs) - 2
    if n < 1:
        return 0.0, math.inf
    x, y = np.asarray(xs) - np.mean(xs), np.asarray(ys) - np.mean(ys)
    spread = float((x * x).sum())
    rise = float((x * y).sum()) / spread
    rest = y - rise * x
    error = math.sqrt(float((rest * rest).sum()) / n / spread)
    return rise, (_T_95 + 2.4 / n + 4 / n**2) * error


def trend(minutes: Sequence[float], values: Sequence[float], unit: str) -> dict[str, Any]:
    """How a quantity changes over an hour, and whether that can be told from not at all.

    There is no confidence interval (None) for fewer than three values.
    """
    rise, width = slope(minutes, values)
    return {
        f"{unit}_per_hour": round(60 * rise, 4),
        "confidence_95": [round(60 * (rise - width), 4), round(60 * (rise + width), 4)] if width < math.inf else None,
        "of_the_mean": round(60 * rise / float(np.mean(values)), 4),
        "distinguishable_from_0": abs(rise) > width,
    }
