"""Whether something grows: the slope of a line through measurements, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_Z_95 = 1.96
_FEWEST = 4


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float]:
    """The Theil-Sen slope with its 95 % confidence interval: slope, low, high (Sen 1968, JASA 63).

    The median of the slopes between all pairs: minutes in which somebody else had the machine do not carry it away as
    they do a least-squares line. `xs` are all different. The interval is infinite for fewer than four points.
    """
    x, y = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    n = len(x)
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    middle = float(np.median(slopes)) if n > 1 else 0.0
    if n < _FEWEST:
        return middle, -math.inf, math.inf
    margin = _Z_95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(math.floor((len(slopes) - margin) / 2), 0)
    high = min(math.ceil((len(slopes) + margin) / 2), len(slopes) - 1)
    return middle, float(slopes[low]), float(slopes[high])


def trend(minutes: Sequence[float], values: Sequence[float], unit: str) -> dict[str, Any]:
    """How a quantity changes over an hour, and whether that can be told from not at all.

    There is no confidence interval (None) for fewer than four values.
    """
    rise, low, high = slope(minutes, values)
    return {
        f"{unit}_per_hour": round(60 * rise, 4),
        "confidence_95": [round(60 * low, 4), round(60 * high, 4)] if high < math.inf else None,
        "of_the_mean": round(60 * rise / float(np.mean(values)), 4),
        "distinguishable_from_0": low > 0 or high < 0,
    }
