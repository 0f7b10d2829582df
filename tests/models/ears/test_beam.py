"""Beam search on the host against the torch networks, greedy decoding, and sums over all alignments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_models.beam import BeamDecoder, BeamOutput
from relay_models.decoding import GreedyTransducer
from relay_models.ears import Ears
from relay_models.host_transducer import HostTransducer
from relay_models.loading import WeightsError
from relay_models.state import StreamState
from relay_models.words import Token
from tests.models.ears.tiny import ears

FRAMES = 23
MODELS = {layers: ears(layers=layers) for layers in (0, 1, 2)}


def host(model: Ears) -> HostTransducer:
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return HostTransducer.from_tensors(model.config.transducer, tensors)


HOSTS = {layers: host(model) for layers, model in MODELS.items()}


class Fancies:
    """A language model that knows the last two tokens only, and likes some pairs far better than others."""

    def __init__(self, tokens: int, seed: int = 0) -> None:
        scores = 2 * np.random.default_rng(seed).standard_normal((tokens + 1, tokens))
        self._scores = (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)

    def start(self) -> int:
        return len(self._scores) - 1

    def advance(self, state: int, token: int) -> int:
        return token

    def scores(self, state: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self._scores[state]


def frames(seed: int, count: int = FRAMES) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (2 * np.random.default_rng(seed).standard_normal((count, 12))).astype(np.float32)


def decode(decoder: BeamDecoder, heard: Any, splits: Sequence[int] = ()) -> tuple[list[Token], list[BeamOutput]]:
    """Stable tokens of a whole utterance, and the output of each step."""
    state, outputs = decoder.open(), []
    for piece in np.split(heard, np.cumsum([min(count, len(heard)) for count in splits]).clip(max=len(heard))):
        outputs.append(decoder.step(state, piece))
    outputs.append(decoder.finish(state))
    return [token for output in outputs for token in output.stable], outputs


def greedy(model: Ears, heard: Any) -> list[Token]:
    decoder = GreedyTransducer(model.predictor, model.joint)
    state = StreamState(decoder.fresh_tensors(1))
    said, _ = decoder.step(torch.from_numpy(heard)[None], torch.ones(1, len(heard), dtype=torch.bool), state)
    return said.by_row()[0]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_the_networks_are_those_of_torch(layers: int, activation: str) -> None:
    model = ears(layers=layers)
    object.__setattr__(model.config.transducer, "activation", activation)
    model.joint.activation = torch.tanh if activation == "tanh" else torch.relu
    ours, heard, tokens = host(model), frames(1), [[1, 4, 4, 0], [3, 2, 7, 5]]
    with torch.no_grad():
        predicted = model.predictor(torch.tensor(tokens))
        want = model.joint(torch.from_numpy(heard)[None], predicted).log_softmax(-1)
        silent = model.joint.combine(model.joint.frame_projection(torch.zeros(12)), predicted)[..., :-1].log_softmax(-1)
    memory, output = ours.start()
    memories, outputs = [memory, memory], np.stack([output, output])
    for position in range(5):
        for number, frame in enumerate(ours.hear(heard)):
            got = ours.log_probabilities(frame, outputs)
            np.testing.assert_allclose(got, want[:, number, position], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(ours.internal(outputs), silent[:, position], atol=1e-5, rtol=1e-5)
        if position < 4:
            memories, outputs = ours.advance(memories, [row[position] for row in tokens])


def test_tensors_that_do_not_fit_are_refused() -> None:
    config = MODELS[1].config.transducer
    tensors = {name: tensor.numpy() for name, tensor in MODELS[1].state_dict().items()}
    with pytest.raises(WeightsError, match=r"predictor\.convolution\.weight should be .* and is missing"):
        HostTransducer.from_tensors(MODELS[0].config.transducer, tensors)
    tensors["joint.head.bias"] = tensors["joint.head.bias"][1:]
    with pytest.raises(WeightsError, match=r"joint\.head\.bias should be \(9,\), and is \(8,\)"):
        HostTransducer.from_tensors(config, tensors)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"beam": 0}, "above zero"),
        ({"gap": 0.0}, "above zero"),
        ({"patience_frames": 0}, "above zero"),
        ({"lm_weight": 0.1}, "no language model"),
        ({"lm": Fancies(7)}, "other pieces"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BeamDecoder(HOSTS[0], **settings)


@pytest.mark.parametrize("layers", [0, 1, 2])
@settings(max_examples=25)
@given(seed=st.integers(0, 1000), splits=st.lists(st.integers(0, 5), max_size=12))
def test_a_beam_of_one_is_greedy(layers: int, seed: int, splits: list[int]) -> None:
    heard = frames(seed)
    got, outputs = decode(BeamDecoder(HOSTS[layers]), heard, splits)
    want = greedy(MODELS[layers], heard)
    assert [(t.number, t.frame) for t in got] == [(t.number, t.frame) for t in want]
    assert [t.log_probability for t in got] == pytest.approx([t.log_probability for t in want], abs=1e-5)
    assert not any(output.unstable for output in outputs)


def decoders(**changes: Any) -> list[BeamDecoder]:
    """With and without a language model."""
    fused = {"lm": Fancies(8), "lm_weight": 0.5, "ilm_weight": 0.3, "reward": 0.4}
    return [BeamDecoder(HOSTS[layers], **extra, **changes) for layers in (0, 1) for extra in ({}, fused)]


@pytest.mark.parametrize("kind", range(4))
@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    splits=st.lists(st.integers(0, 5), max_size=12),
    beam=st.integers(1, 6),
    patience=st.integers(1, 12),
)
def test_any_split_says_the_same_and_stable_stays(
    kind: int, seed: int, splits: list[int], beam: int, patience: int
) -> None:
    heard = frames(seed)
    decoder = decoders(beam=beam, patience_frames=patience)[kind]
    whole, _ = decode(decoder, heard)
    got, outputs = decode(decoder, heard, splits)
    assert got == whole
    taken = 0
    for output, piece in zip(outputs, [*splits, FRAMES], strict=False):
        taken = min(FRAMES, taken + piece)
        assert all(token.frame >= taken - patience for token in output.unstable)
    assert not outputs[-1].unstable


@pytest.mark.parametrize("kind", range(4))
@settings(max_examples=25)
@given(
    seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=7),
    rounds=st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), max_size=8),
    beam=st.integers(1, 6),
)
def test_streams_side_by_side_say_what_each_says_alone(
    kind: int, seeds: list[int], rounds: list[list[int]], beam: int
) -> None:
    """However many frames each gets in a step."""
    decoder, alone = (decoders(beam=beam)[kind] for _ in range(2))
    states = [decoder.open() for _ in seeds]
    waiting = [frames(seed) for seed in seeds]
    said: list[list[Token]] = [[] for _ in seeds]
    for counts in [*rounds, [FRAMES] * 7]:
        pieces = [piece[:count] for piece, count in zip(waiting, counts, strict=False)]
        waiting = [piece[count:] for piece, count in zip(waiting, counts, strict=False)]
        for tokens, output in zip(said, decoder.step_all(states, pieces), strict=True):
            assert isinstance(output, BeamOutput)
            tokens += output.stable
    for seed, state, tokens in zip(seeds, states, said, strict=True):
        tokens += decoder.finish(state).stable
        want, _ = decode(alone, frames(seed))
        assert [(t.number, t.frame) for t in tokens] == [(t.number, t.frame) for t in want]
        assert [t.log_probability for t in tokens] == pytest.approx([t.log_probability for t in want], abs=1e-4)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
def test_a_stream_of_no_numbers_fails_alone(kind: int, number: float) -> None:
    decoder = decoders(beam=4)[kind]
    states, heard = [decoder.open() for _ in range(3)], [frames(seed) for seed in range(3)]
    heard[1][5] = number
    first, broken, last = decoder.step_all(states, heard)
    assert isinstance(broken, ArithmeticError)
    for seed, state, output in ((0, states[0], first), (2, states[2], last)):
        assert isinstance(output, BeamOutput)
        got = [*output.stable, *decoder.finish(state).stable]
        assert [t.number for t in got] == [t.number for t in decode(decoder, frames(seed))[0]]
    with pytest.raises(ArithmeticError, match="no number"):
        decoder.step(decoder.open(), heard[1])


@pytest.mark.parametrize("kept", [0, 3, 50])
def test_what_was_forgotten_is_computed_again(kept: int) -> None:
    want = [decode(decoders(beam=4)[1], frames(seed))[0] for seed in range(5)]
    decoder = decoders(beam=4, kept_futures=kept)[1]
    for seed in range(5):
        got = decode(decoder, frames(seed))[0]
        assert [(t.number, t.frame) for t in got] == [(t.number, t.frame) for t in want[seed]]
        assert [t.log_probability for t in got] == pytest.approx([t.log_probability for t in want[seed]], abs=1e-4)
        assert len(decoder._kept) <= kept


def test_beams_disagree_or_the_tests_above_would_show_little() -> None:
    unstable, differs = 0, 0
    for seed in range(20):
        for decoder in decoders(beam=4):
            got, outputs = decode(decoder, frames(seed), [1] * FRAMES)
            unstable += sum(len(output.unstable) for output in outputs)
            differs += [t.number for t in got] != [t.number for t in greedy(MODELS[0], frames(seed))]
    assert unstable > 400
    assert differs > 20


def test_a_copy_goes_its_own_way() -> None:
    decoder = decoders(beam=4)[1]
    heard = frames(3)
    state = decoder.open()
    first = decoder.step(state, heard[:9])
    twin = state.copy()
    decoder.step(twin, frames(4))
    decoder.finish(twin)
    rest = [decoder.step(state, heard[9:]), decoder.finish(state)]
    got = [token for output in (first, *rest) for token in output.stable]
    assert got == decode(decoder, heard)[0]


def test_decoding_goes_on_after_an_end() -> None:
    """The tokens that were said are then common to all, and their frames go on counting."""
    decoder = decoders(beam=4)[0]
    state = decoder.open()
    decoder.step(state, frames(0))
    before = decoder.finish(state)
    after = decoder.step(state, frames(1))
    rest = decoder.finish(state)
    assert before.unstable == rest.unstable == ()
    assert after.stable
    assert all(token.frame >= FRAMES for token in (*after.stable, *rest.stable))


def by_hand(transducer: HostTransducer, lm: Fancies | None, weights: dict[str, float], said: Any, heard: Any) -> float:
    """Log-probability of a row of tokens, all alignments summed (Graves 2012, section 2.4), and of what is fused in."""
    memory, output = transducer.start()
    outputs, state, fused = [output], lm.start() if lm else 0, 0.0
    for token in said:
        if lm:
            fused += weights["lm_weight"] * float(lm.scores(state)[token]) + weights["reward"]
            fused -= weights["ilm_weight"] * float(transducer.internal(output[None])[0, token])
            state = lm.advance(state, token)
        (memory,), (output,) = transducer.advance([memory], [token])
        outputs.append(output)
    reached = np.full(len(said) + 1, -np.inf)
    reached[0] = 0.0
    for frame in transducer.hear(heard):
        symbols = transducer.log_probabilities(frame, np.stack(outputs))
        for place, token in enumerate(said):
            reached[place + 1] = np.logaddexp(reached[place + 1], reached[place] + symbols[place, token])
        reached += symbols[:, -1]
    return float(reached[-1]) + fused


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layers", [0, 1])
def test_a_wide_beam_finds_the_sums_over_all_alignments(layers: int, fused: bool) -> None:
    """Of what is short enough not to meet the limit of tokens at a frame."""
    ours = host(ears(vocabulary=3, layers=layers, max_symbols=3))
    weights = {"lm_weight": 0.5, "ilm_weight": 0.3, "reward": 0.4} if fused else {}
    lm = Fancies(2) if fused else None
    decoder = BeamDecoder(ours, beam=2000, lm=lm, gap=1e9, patience_frames=1000, **weights)  # type: ignore[arg-type]
    heard = frames(5, 3)
    state = decoder.open()
    decoder.step(state, heard)
    got = {h.key: h.score for h in state.hypotheses}
    short = [said for count in range(3) for said in itertools.product(range(2), repeat=count)]
    assert len(got) == 2**10 - 1
    want = {said: by_hand(ours, lm, weights, said, heard) for said in short}
    assert {said: got[said] - got[()] for said in short} == pytest.approx(
        {said: score - want[()] for said, score in want.items()}, abs=1e-4
    )
