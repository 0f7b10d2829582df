"""Thresholds, ROC and calibration against slow and obvious definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.training.judging import (
    bounded_threshold,
    calibration_error,
    caught,
    fit_platt,
    roc,
    threshold_keeping,
)

LABELLED = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]), st.booleans()), min_size=2, max_size=30
).filter(lambda pairs: len({label for _, label in pairs}) == 2)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs]), np.array([label for _, label in pairs])


@given(LABELLED)
def test_the_area_is_the_chance_that_a_good_one_ranks_before_a_bad_one(pairs: list[tuple[float, bool]]) -> None:
    scores, good = arrays(pairs)
    wins = [(g > b) + 0.5 * (g == b) for g in scores[good] for b in scores[~good]]
    curve = roc(scores, good)
    assert curve.area == pytest.approx(np.mean(wins))
    for kept_good, kept_bad, threshold in zip(curve.kept_good, curve.kept_bad, curve.thresholds, strict=True):
        assert kept_good == pytest.approx((scores[good] >= threshold).mean())
        assert kept_bad == pytest.approx((scores[~good] >= threshold).mean())
    assert (curve.kept_good[-1], curve.kept_bad[-1]) == (1.0, 1.0)


@given(LABELLED, st.sampled_from([0.01, 0.5, 0.9, 0.96, 1.0]))
def test_the_threshold_is_the_highest_that_keeps_enough(pairs: list[tuple[float, bool]], share: float) -> None:
    scores, good = arrays(pairs)
    threshold = threshold_keeping(scores, good, share)
    assert (scores[good] >= threshold).mean() >= share - 1e-9
    higher = [score for score in scores[good] if score > threshold]
    assert all((scores[good] >= score).mean() < share for score in higher)
    assert caught(scores, good, threshold) == pytest.approx((scores[~good] < threshold).mean())


def test_good_ones_are_needed() -> None:
    one = np.array([0.5])
    with pytest.raises(ValueError, match="good examples"):
        threshold_keeping(one, np.array([False]), 0.96)
    with pytest.raises(ValueError, match="good and bad"):
        roc(one, np.array([True]))
    assert np.isnan(caught(one, np.array([True]), 0.5))


def test_calibration_error_of_known_cases() -> None:
    assert calibration_error(np.array([1.0, 1.0, 0.0]), np.array([True, True, False])) == 0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, False])) == 1
    half = np.array([True, False] * 50)
    assert calibration_error(np.full(100, 0.8), half) == pytest.approx(0.3)
    assert calibration_error(np.array([0.8] * 100 + [0.2] * 300), np.append(half, [False] * 300)) == pytest.approx(
        0.225
    )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.4, 1.5), (3.0, -2.0)])
def test_platt_finds_what_the_logits_mean(scale: float, shift: float) -> None:
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, 20_000)
    good = chance.random(20_000) < 1 / (1 + np.exp(-(scale * logits + shift)))
    found_scale, found_shift = fit_platt(logits, good)
    assert found_scale == pytest.approx(scale, rel=0.1)
    assert found_shift == pytest.approx(shift, abs=0.1)
    probabilities = 1 / (1 + np.exp(-(found_scale * logits + found_shift)))
    assert calibration_error(probabilities, good) < 0.02


def test_platt_stays_finite_where_classes_separate() -> None:
    scale, shift = fit_platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert 0 < scale < 20
    assert abs(shift) < 5


@given(st.lists(st.floats(0, 1), max_size=20), st.sampled_from([0.0, 0.05, 0.3, 0.99]))
def test_a_bounded_threshold_is_exceeded_by_few(values: list[float], share: float) -> None:
    threshold = bounded_threshold(values, share)
    assert sum(value > threshold for value in values) <= share * len(values)
    lower = [value for value in values if value < threshold]
    if lower:
        assert sum(value > max(lower) for value in values) > share * len(values)
