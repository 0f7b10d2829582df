import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relay.engine.brain import BrainInput, Rows, Sampling, _nucleus, common_prefix, draw

logits_of_nine = hnp.arrays(np.float32, 9, elements=st.floats(-20, 20, width=32))
samplings = st.builds(
    Sampling, temperature=st.sampled_from([0.0, 0.3, 1.0]), top_p=st.floats(0.05, 1.0), seed=st.integers(0, 2**32)
)


@given(logits_of_nine, samplings, st.sets(st.integers(0, 8), max_size=8))
def test_a_draw_obeys_bans_and_nucleus_and_repeats(logits: np.ndarray, sampling: Sampling, banned: set[int]) -> None:
    x = BrainInput([1, 2], sampling, sorted(banned))
    given_logits = logits.copy()
    output = draw(logits, x)
    assert draw(logits, x) == output
    np.testing.assert_array_equal(logits, given_logits)
    assert output.token not in banned
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    assert output.logprob == pytest.approx(np.log(probabilities[output.token]), abs=1e-3)
    assert 0 <= output.entropy <= np.log(9) + 1e-4
    watched = draw(logits, BrainInput([1, 2], sampling, watched=sorted(banned))).watched
    assert watched == pytest.approx(probabilities[sorted(banned)].sum(), abs=1e-5)
    assert output.margin == pytest.approx(-np.diff(np.sort(probabilities)[-2:][::-1])[0], abs=1e-4)
    if sampling.temperature == 0:
        open_logits = np.where(np.isin(np.arange(9), sorted(banned)), -np.inf, logits)
        assert logits[output.token] == pytest.approx(open_logits.max(), abs=1e-5)


def test_the_nucleus_leaves_out_the_tail() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    drawn = {draw(logits, BrainInput([1] * n, Sampling(1.0, 0.75, seed=5))).token for n in range(1, 200)}
    assert drawn == {0, 1}


@given(
    hnp.arrays(np.float32, st.integers(129, 400), elements=st.sampled_from([-3.0, 0.0, 0.5, 1.0, 5.0, 9.0])),
    st.floats(0.01, 1.0),
)
def test_a_nucleus_of_a_few_is_that_of_all_sorted(logits: np.ndarray, top_p: float) -> None:
    scaled = logits - logits.max()
    weights = np.exp(scaled.astype(np.float64))
    order = np.argsort(-weights, kind="stable")
    cumulated = np.cumsum(weights[order] / weights.sum())
    count = int(np.searchsorted(cumulated, top_p)) + 1
    found, nucleus = _nucleus(scaled, top_p)
    np.testing.assert_array_equal(nucleus, cumulated[:count])
    np.testing.assert_array_equal(found[: len(nucleus)], order[:count])


def test_frequencies_follow_the_distribution() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32))
    drawn = [draw(logits, BrainInput([1], Sampling(1.0, 1.0, seed=seed))).token for seed in range(2000)]
    np.testing.assert_allclose(np.bincount(np.array(drawn)) / 2000, [0.6, 0.3, 0.1], atol=0.04)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix(one: list[int], other: list[int]) -> None:
    length = common_prefix(one, other)
    assert one[:length] == other[:length]
    assert length in (len(one), len(other)) or one[length] != other[length]


@given(st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 1), min_size=1, max_size=6), st.booleans())))
def test_rows_hold_what_they_claim(history: list[tuple[int, list[int], bool]]) -> None:
    """A model of the runner: what was written into a row is what the plan later calls valid."""
    rows = Rows(3)
    memory: list[list[int]] = [[], [], []]
    owners: dict[int, int] = {}
    for slot, tokens, close in history:
        if close:
            rows.drop(slot)
            owners = {row: owner for row, owner in owners.items() if owner != slot}
            continue
        plan = rows.plan(slot, BrainInput(tokens), chunk=2)
        if owners.get(plan.row) != slot:
            memory[plan.row] = []
            owners[plan.row] = slot
        assert memory[plan.row][: plan.start] == tokens[: plan.start]
        memory[plan.row] = memory[plan.row][: plan.start] + plan.tokens
        assert 1 <= len(plan.tokens) <= 2
        assert plan.complete == (memory[plan.row] == tokens)


def test_the_longest_unused_row_goes_first() -> None:
    rows = Rows(2)
    first = rows.plan(0, BrainInput([1, 2]), chunk=9).row
    second = rows.plan(1, BrainInput([1, 2]), chunk=9).row
    assert rows.plan(0, BrainInput([1, 2, 3]), chunk=9).start == 2
    assert rows.plan(2, BrainInput([5]), chunk=9).row == second
    assert rows.plan(0, BrainInput([1, 2, 3, 4]), chunk=9).row == first
    assert rows.plan(1, BrainInput([1, 2]), chunk=9).start == 0


def test_an_empty_context_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        Rows(1).plan(0, BrainInput([]), chunk=4)
