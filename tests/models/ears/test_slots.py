"""Slots = streams: the frames of `EncoderStream`, whatever else is in the batch or was in the slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.encoder import Encoder
from relay_models.framing import ENDLESS
from relay_models.slot_graph import Buckets
from relay_models.slot_ops import Ops, TorchOps
from relay_models.slots import SlotEncoder
from relay_models.state import StreamState
from relay_models.streaming import EncoderStream
from tests.models.ears.tiny import MELS, PATTERNS, encoder_config, loud

torch.backends.cudnn.allow_tf32 = False  # float32 is to be float32 on a GPU too
SLOTS = 4
CUDA = torch.cuda.is_available()
RIGHTS = (0, 1, 6, 13)
# Sizes that a matrix unit takes: heads of 16, and widths that are no powers of two.
SHAPES: dict[str, dict[str, Any]] = {
    "odd": {},
    "biased": {"size": 32, "scale_input": True},
    "unbiased": {"size": 48, "heads": 3, "attention_bias": False, "convolution_bias": False, "kernel": 9},
}
ENCODERS: dict[str, Encoder] = {}


def encoder_of(shape: str) -> Encoder:
    if shape not in ENCODERS:
        ENCODERS[shape] = Encoder(encoder_config(**SHAPES[shape])).eval()
        loud(ENCODERS[shape])
    return ENCODERS[shape]


@dataclass
class Both:
    """Slots, and for each stream in them a stream of its own in the other implementation."""

    encoder: Encoder
    right: int
    ops: Ops | None = None
    micro_rows: int = 3
    slots: SlotEncoder = field(init=False)
    stream: EncoderStream = field(init=False)

    def __post_init__(self) -> None:
        self.slots = SlotEncoder(self.encoder, self.right, SLOTS, ops=self.ops, micro_rows=self.micro_rows)
        self.stream = EncoderStream(self.encoder, self.right)
        poison(self.slots, range(SLOTS))
        self.alone: dict[int, StreamState] = {}
        self.begun: set[int] = set()
        self.left: dict[int, int] = {}
        self.generator = torch.Generator().manual_seed(0)

    def open(self, slot: int, mels: int = ENDLESS) -> None:
        self.alone[slot] = StreamState(self.stream.fresh_tensors(1))
        self.begun.discard(slot)
        self.left[slot] = mels

    def fork(self, source: int, target: int) -> None:
        """A copy of a stream goes on in another slot."""
        if source not in self.begun or source == target:
            return
        self.slots.state.fork(source, target)
        self.alone[target] = StreamState({name: t[None] for name, t in self.alone[source].snapshot(0).items()})
        self.begun.add(target)
        self.left[target] = self.left[source]

    def step(self, moving: Sequence[int], bucket: int) -> float:
        """Steps the slots that move, in a batch filled up to `bucket` rows with NaN; the largest error."""
        moving = [slot for slot in moving if slot in self.alone][:bucket]
        rows = [*moving, *[SLOTS] * (bucket - len(moving))]
        active = torch.tensor([row != SLOTS for row in rows])
        features = torch.randn(bucket, self.slots.chunk_mels, MELS, generator=self.generator)
        features[~active] = float("nan")
        fresh = torch.tensor([slot in self.alone and slot not in self.begun for slot in rows])
        lengths = torch.tensor([self.left.get(slot, ENDLESS) for slot in rows])
        frames, valid = self.slots.step(torch.tensor(rows), features, active, fresh, lengths)
        assert not valid[~active].any()
        worst = 0.0
        for index, slot in enumerate(moving):
            self.begun.add(slot)
            one = slice(index, index + 1)
            wanted, inside, _ = self.stream.step(features[one], self.alone[slot], torch.ones(1).bool(), lengths[one])
            assert torch.equal(valid[one], inside)
            if inside.any():
                worst = max(worst, (frames[one][inside] - wanted[inside]).abs().max().item())
        return worst


def poison(encoder: SlotEncoder, slots: Sequence[int]) -> None:
    """What other streams may have left in these slots, at its worst."""
    for name, tensor in encoder.state.tensors.items():
        tensor[list(slots)] = 123 if name == "position" else float("nan")


OPERATIONS = st.one_of(
    st.tuples(st.just("step"), st.lists(st.integers(0, SLOTS - 1), unique=True, max_size=SLOTS), st.integers(1, 6)),
    st.tuples(st.just("step"), st.just(list(range(SLOTS))), st.just(5)),
    st.tuples(st.just("open"), st.integers(0, SLOTS - 1), st.sampled_from([ENDLESS, 9, 100])),
    st.tuples(st.just("fork"), st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1)),
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("right", RIGHTS)
@settings(max_examples=4, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=5, max_size=25))
def test_slots_give_the_frames_of_streams(shape: str, right: int, operations: list[tuple[Any, ...]]) -> None:
    both = Both(encoder_of(shape), right)
    both.open(0)
    for name, *values in operations:
        if name == "step":
            assert both.step(*values) <= 1e-5
        elif name == "open":
            both.open(*values)
        else:
            both.fork(*values)
    for _ in range(20 // (right + 1)):
        assert both.step([0], 2) <= 1e-5


def stepped(encoder: SlotEncoder, seeds: Sequence[int], steps: int) -> Tensor:
    """Frames of slot 1, in a batch whose other rows hear something else, or NaN (a negative seed)."""
    out = []
    for step in range(steps):
        features = torch.stack(
            [
                torch.full((encoder.chunk_mels, MELS), float("nan"))
                if seed < 0
                else torch.randn(encoder.chunk_mels, MELS, generator=torch.Generator().manual_seed(99 * seed + step))
                for seed in seeds
            ]
        )
        count = len(seeds)
        frames, _ = encoder.step(
            torch.arange(count),
            features,
            torch.ones(count, dtype=torch.bool),
            torch.full((count,), step == 0),
            torch.full((count,), ENDLESS),
        )
        out.append(frames[1])
    return torch.stack(out)


@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_change_no_bit(shape: str) -> None:
    quiet = stepped(SlotEncoder(encoder_of(shape), 1, SLOTS), [1, 2, 3, 4], 20)
    other = SlotEncoder(encoder_of(shape), 1, SLOTS)
    poison(other, range(SLOTS))
    assert torch.equal(quiet, stepped(other, [-1, 2, 77, -1], 20))
    assert quiet.isfinite().all()


def test_a_stream_rolled_back_goes_on_as_before() -> None:
    encoder = SlotEncoder(encoder_of("biased"), 1, SLOTS)
    stepped(encoder, [1, 2, 3], 5)
    kept = encoder.state.snapshot(1)
    every = torch.ones(1, dtype=torch.bool)

    def go_on() -> Tensor:
        features = torch.randn(9, 1, encoder.chunk_mels, MELS, generator=torch.Generator().manual_seed(5))
        ends = torch.tensor([ENDLESS])
        return torch.cat([encoder.step(torch.tensor([1]), part, every, ~every, ends)[0] for part in features])

    first = go_on()
    encoder.state.restore(1, kept)
    assert torch.equal(first, go_on())


def test_inactive_rows_keep_every_bit_of_their_state() -> None:
    encoder = SlotEncoder(encoder_of("odd"), 1, SLOTS)
    stepped(encoder, [1, 2, 3, 4], 3)
    before = encoder.state.snapshot(2)
    scratch = encoder.state.snapshot(SLOTS)
    features = torch.randn(3, encoder.chunk_mels, MELS)
    active = torch.tensor([True, False, False])
    encoder.step(torch.tensor([0, 2, SLOTS]), features, active, torch.zeros(3).bool(), torch.full((3,), ENDLESS))
    for row, kept in ((2, before), (SLOTS, scratch)):
        after = encoder.state.snapshot(row)
        assert all(torch.equal(kept[name], after[name]) for name in kept)


def test_parts_of_a_step_give_what_the_whole_gives() -> None:
    whole, parts = (SlotEncoder(encoder_of("biased"), 1, SLOTS, micro_rows=rows) for rows in (8, 1))
    torch.testing.assert_close(stepped(whole, [1, 2, 3, 4], 6), stepped(parts, [1, 2, 3, 4], 6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "chunks"])
def test_other_attention_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="EncoderStream"):
        SlotEncoder(Encoder(encoder_config(**PATTERNS[pattern])), 1, 1, ops=TorchOps())


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.skipif(not CUDA, reason="needs a GPU"))])
def test_buckets_fill_up_and_give_what_a_step_gives(graph: bool) -> None:
    encoder = encoder_of("biased").to("cuda" if graph else "cpu")
    slotted = SlotEncoder(encoder, 1, SLOTS)
    buckets = Buckets(slotted.step, slotted.inputs, [4, 2], graph=graph)
    alone = SlotEncoder(encoder, 1, SLOTS)
    generator = torch.Generator().manual_seed(0)
    device = "cuda" if graph else "cpu"
    for step in range(12):
        slots = torch.randperm(SLOTS, generator=generator)[: 1 + step % SLOTS].to(device)
        count = len(slots)
        features = torch.randn(count, alone.chunk_mels, MELS, generator=generator).to(device)
        fresh, lengths = torch.full((count,), step < 4, device=device), torch.full((count,), 150, device=device)
        wanted, inside = alone.step(slots, features, torch.ones_like(fresh), fresh, lengths)
        frames, valid = buckets.step(slots=slots, features=features, fresh=fresh, lengths=lengths)
        assert torch.equal(valid, inside)
        torch.testing.assert_close(frames[valid], wanted[inside], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="largest bucket"):
        buckets.step(slots=torch.zeros(5, dtype=torch.int64, device=device))
    encoder.to("cpu")
