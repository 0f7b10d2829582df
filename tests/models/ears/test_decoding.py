"""Greedy decoding against loops that anyone can read; chunks = whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_models.decoding import GreedyCTC, GreedyTransducer
from relay_models.ears import Ears
from relay_models.state import StreamState
from tests.models.ears.tiny import ears

FRAMES = 23
MODELS = {layers: ears(layers=layers) for layers in (0, 1, 2)}


def frames(rows: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(rows, FRAMES, 12, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def read_by_hand(model: Ears, heard: torch.Tensor) -> list[tuple[int, int]]:
    """One recording, one node of the lattice at a time, the prediction network run over the whole history each time."""
    config, said, found = model.config.transducer, [], []
    for number, frame in enumerate(heard):
        for _ in range(config.max_symbols):
            predicted = model.predictor(torch.tensor([said], dtype=torch.int64))[0, -1]
            token = int(model.joint.combine(model.joint.frame_projection(frame), predicted).argmax())
            if token == config.blank:
                break
            said.append(token)
            found.append((token, number))
    return found


@torch.no_grad()
def merge_by_hand(model: Ears, heard: torch.Tensor) -> list[tuple[int, int]]:
    assert model.ctc is not None
    found, previous = [], -1
    for number, symbol in enumerate(model.ctc(heard).argmax(-1).tolist()):
        if symbol not in (previous, model.config.transducer.blank):
            found.append((symbol, number))
        previous = symbol
    return found


def decoder(model: Ears, head: str) -> GreedyTransducer | GreedyCTC:
    if head == "ctc":
        assert model.ctc is not None
        return GreedyCTC(model.ctc)
    return GreedyTransducer(model.predictor, model.joint)


@pytest.mark.parametrize(("head", "layers"), [("transducer", 0), ("transducer", 1), ("transducer", 2), ("ctc", 1)])
@settings(max_examples=15)
@given(
    seed=st.integers(0, 50),
    splits=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=12),
)
def test_any_split_says_what_the_loop_says(head: str, layers: int, seed: int, splits: list[list[int]]) -> None:
    """Rows advance by different numbers of frames in one call, some by none."""
    model = MODELS[layers]
    heard = frames(3, seed)
    by_hand = read_by_hand if head == "transducer" else merge_by_hand
    greedy = decoder(model, head)
    state = StreamState(greedy.fresh_tensors(3))
    taken, got = [0, 0, 0], [[], [], []]  # type: tuple[list[int], list[list[tuple[int, int]]]]
    for counts in [*splits, [FRAMES] * 3]:
        width = max(1, *counts)
        chunk, valid = torch.zeros(3, width, 12), torch.zeros(3, width, dtype=torch.bool)
        for row in range(3):
            piece = heard[row, taken[row] : taken[row] + counts[row]]
            # A run of frames may stand anywhere in the chunk.
            shift = (width - len(piece)) // 2
            chunk[row, shift : shift + len(piece)] = piece
            valid[row, shift : shift + len(piece)] = True
            taken[row] += len(piece)
        emissions, _ = greedy.step(chunk, valid, state)
        for row, tokens in enumerate(emissions.by_row()):
            got[row] += [(token.number, token.frame) for token in tokens]
            assert all(-20 < token.log_probability <= 0 for token in tokens)
    assert got == [by_hand(model, row) for row in heard]


def test_the_tiny_models_say_various_things() -> None:
    """Or the tests above would show little."""
    for model in MODELS.values():
        said = [token for seed in range(5) for token, _ in read_by_hand(model, frames(1, seed)[0])]
        assert len(set(said)) >= 4
        assert 10 < len(said) < 5 * FRAMES * model.config.transducer.max_symbols


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_prediction_network_steps_as_it_runs(layers: int) -> None:
    predictor = MODELS[layers].predictor
    tokens = torch.tensor([[1, 4, 4, 0], [3, 2, 7, 5]])
    with torch.no_grad():
        want = predictor(tokens)
        state = StreamState(predictor.fresh_tensors(2))
        predictor.start(state, torch.tensor([True, True]))
        for position in range(5):
            torch.testing.assert_close(state["predictor.output"], want[:, position], atol=1e-6, rtol=0)
            if position < 4:
                predictor.step(tokens[:, position], state, torch.tensor([True, True]))


def test_starting_twice_is_starting_once() -> None:
    predictor = MODELS[1].predictor
    state = StreamState(predictor.fresh_tensors(2))
    with torch.no_grad():
        predictor.start(state, torch.tensor([True, False]))
        predictor.step(torch.tensor([1, 1]), state, torch.tensor([True, False]))
        before = state.snapshot(0)
        predictor.start(state, torch.tensor([True, True]))
    assert all(torch.equal(before[name], tensor) for name, tensor in state.snapshot(0).items())
    assert state["predictor.started"].tolist() == [True, True]
