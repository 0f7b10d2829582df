"""The draft model's config.json: sizes, and how far its signals are to be trusted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.draft_config import DraftConfig, Trust
from relay_models.loading import WeightsError

NUMBERS = st.floats(-100, 100)
TRUST = st.builds(Trust, st.floats(0, 100), NUMBERS)


@given(TRUST, TRUST)
def test_it_is_read_as_it_was_written(turn_ends: Trust, stops: Trust) -> None:
    config = DraftConfig(turn_ends=turn_ends, stops=stops)
    assert DraftConfig.from_dict(config.to_dict()) == config


def test_a_file_that_says_nothing_of_trust_gives_none() -> None:
    values = DraftConfig().to_dict()
    del values["turn_ends"], values["stops"]
    assert DraftConfig.from_dict(values) == DraftConfig()
    assert DraftConfig().turn_ends.evidence(0.999) is None


@pytest.mark.parametrize("trust", [{"weight": -1.0}, {"weight": math.inf}, {"weight": 1, "bias": "much"}, 0.5, [1, 2]])
def test_what_is_no_trust_is_refused(trust: Any) -> None:
    with pytest.raises(WeightsError, match=r"config\.json"):
        DraftConfig.from_dict({**DraftConfig().to_dict(), "turn_ends": trust})


@given(st.floats(0.01, 10), NUMBERS, st.floats(0, 1), st.floats(0, 1))
def test_the_likelier_the_token_the_more_evidence(weight: float, bias: float, one: float, other: float) -> None:
    trust = Trust(weight, bias)
    less, more = (trust.evidence(probability) for probability in sorted((one, other)))
    assert less is not None
    assert more is not None
    assert math.isfinite(less)
    assert less <= more
    assert trust.evidence(0.5) == pytest.approx(bias)
    assert trust.evidence(math.nan) is None
