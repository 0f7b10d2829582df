from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relay.engine.brain import BrainInput, BrainOutput, Sampling, draw, pack_draws

torch = pytest.importorskip("torch")
from relay_models.token_draw import draw_tokens, packed_width, unpack_sets  # noqa: E402  (needs torch)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EDGE = 1e-9  # the devices add shares up in another order: nearer than this to an edge, either token may be drawn

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.05, 0.5, 1.0, 3.0]) | st.floats(0.01, 4.0),
    top_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)


@st.composite
def batches(draws: st.DrawFn) -> tuple[np.ndarray, list[BrainInput]]:
    """Logits [rows, vocabulary], many of them equal in some batches, and how each row is drawn."""
    rows, vocabulary = draws(st.integers(1, 4)), draws(st.sampled_from([2, 8, 9, 131, 400]))
    values = st.floats(-30, 30, width=32) | st.sampled_from([-3.0, 0.0, 1.0, np.float32(1.0000001), 9.0])
    logits = draws(hnp.arrays(np.float32, (rows, vocabulary), elements=values))
    tokens = st.lists(st.integers(0, vocabulary - 1), max_size=vocabulary - 1)  # one at least may be drawn
    lengths = st.integers(1, 40)
    return logits, [BrainInput([1] * draws(lengths), draws(samplings), draws(tokens), draws(tokens)) for _ in logits]


def drawn_on(device: str, logits: np.ndarray, xs: Sequence[BrainInput]) -> list[BrainOutput]:
    given_to_it = (torch.from_numpy(array).to(device) for array in (logits, *pack_draws(xs, logits.shape[1])))
    tokens, figures = draw_tokens(*given_to_it)
    return [BrainOutput(token, *told) for token, told in zip(tokens.tolist(), figures.tolist(), strict=True)]


def edge(logits: np.ndarray, x: BrainInput) -> float:
    """How near the draw is to one that gives another token, as a share of probability."""
    if x.sampling.temperature <= 0:
        return 1.0
    open_logits = logits.copy()
    open_logits[list(x.banned)] = -np.inf
    scaled = (open_logits - open_logits.max()) / x.sampling.temperature
    weights = np.sort(np.exp(scaled.astype(np.float64)))[::-1]
    cumulated = np.cumsum(weights / weights.sum())
    count = int(np.searchsorted(cumulated, x.sampling.top_p)) + 1
    point = np.random.default_rng((x.sampling.seed, len(x.tokens))).random() * cumulated[:count][-1]
    return float(min(np.abs(cumulated[:-1] - x.sampling.top_p).min(), np.abs(cumulated - point).min()))


@pytest.mark.parametrize("device", DEVICES)
@given(batches())
@settings(deadline=None)
def test_a_device_draws_what_the_host_draws(device: str, batch: tuple[np.ndarray, list[BrainInput]]) -> None:
    logits, xs = batch
    for row, x, found in zip(logits, xs, drawn_on(device, logits, xs), strict=True):
        expected = draw(row, x)
        assert found.entropy == pytest.approx(expected.entropy, abs=1e-4)
        assert found.margin == pytest.approx(expected.margin, abs=1e-5)
        assert found.watched == pytest.approx(expected.watched, abs=1e-5)
        assert found.token not in x.banned
        if edge(row, x) > EDGE:
            assert found.token == expected.token
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_a_large_vocabulary_and_large_sets(device: str) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (32, 8192)).astype(np.float32).round(1)  # many equal ones
    sets = [rng.permutation(8192)[:count].tolist() for count in (0, 3, 3000, 8191)]
    xs = [
        BrainInput([1] * (row + 1), Sampling(row % 3 / 2, 0.99, seed=row), sets[row % 4], sets[(row + 1) % 4])
        for row in range(32)
    ]
    for row, x, found in zip(logits, xs, drawn_on(device, logits, xs), strict=True):
        expected = draw(row, x)
        assert found.token == expected.token
        assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert found.watched == pytest.approx(expected.watched, abs=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_equal_tokens_come_by_number(device: str) -> None:
    logits = np.zeros((200, 16), dtype=np.float32)
    xs = [BrainInput([1], Sampling(1.0, 0.25, seed=seed), banned=[0, 2]) for seed in range(200)]
    assert {found.token for found in drawn_on(device, logits, xs)} == {1, 3, 4, 5}


@pytest.mark.parametrize("device", DEVICES)
def test_a_point_on_an_edge_takes_the_token_behind_it(device: str) -> None:
    """As the host's does: a point is from 0 to below 1, and each token's share holds its own beginning."""
    points = [0.0, 0.25, 0.5, 0.75]
    sampling = torch.tensor([[1.0, 1.0, point] for point in points], dtype=torch.float64, device=device)
    sets = torch.zeros(4, 2, 1, dtype=torch.uint8, device=device)
    assert draw_tokens(torch.zeros(4, 4, device=device), sampling, sets)[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("device", DEVICES)
def test_rows_without_numbers_give_some_token(device: str) -> None:
    """Where nothing can be drawn, a token of the vocabulary comes, and the other rows are what they are alone."""
    logits = np.array([[np.nan] * 9, [0.0] * 9, [0.0] * 8 + [3.0]], dtype=np.float32)
    unsayable: list[range] = [range(0), range(9), range(0)]
    xs = [BrainInput([1], banned=banned) for banned in unsayable]
    found = drawn_on(device, logits, xs)
    assert all(0 <= (output.token or 0) < 9 for output in found)
    assert found[2] == drawn_on(device, logits[2:], xs[2:])[0]


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_sets_are_unpacked_as_packed(case: tuple[int, set[int]]) -> None:
    vocabulary, members = case
    tokens = sorted(members)
    _, sets = pack_draws([BrainInput([1], banned=tokens), BrainInput([1], watched=tokens)], vocabulary)
    assert sets.shape == (2, 2, packed_width(vocabulary))
    expected = np.zeros((2, 2, vocabulary), dtype=bool)
    expected[[0, 1], [0, 1]] = np.isin(np.arange(vocabulary), tokens)
    np.testing.assert_array_equal(unpack_sets(torch.from_numpy(sets), vocabulary).numpy(), expected)
