"""Step = forward, whatever the neighbours do: join, leave, wait, fork, roll back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.encoder import Encoder
from relay_models.state import StreamState
from relay_models.streaming import EncoderStream
from tests.models.ears.tiny import MELS, PATTERNS, encoder_config, loud

ROWS = 3
LENGTHS = (57, 130, 9, 128)


@dataclass
class Place:
    """Where a row stands: in which recording, after how many chunks."""

    recording: int
    chunks: int


class Streams:
    """Rows of recordings, and what they must give."""

    def __init__(self, right: int, **pattern: Any) -> None:
        encoder = Encoder(encoder_config(**pattern)).eval()
        loud(encoder)
        self.right = right
        self.stream = EncoderStream(encoder, right)
        generator = torch.Generator().manual_seed(1)
        features = torch.randn(len(LENGTHS), max(LENGTHS), MELS, generator=generator)
        features[3, :64] = features[1, :64]  # two recordings with the same beginning
        self.lengths = torch.tensor(LENGTHS)
        with torch.no_grad():
            self.want, self.counts, _ = encoder(features, self.lengths, right)
        before = torch.randn(len(LENGTHS), 7, MELS, generator=generator)
        after = torch.randn(len(LENGTHS), 8 * (right + 4 + self.stream.delay_frames), MELS, generator=generator)
        self.features = torch.cat((before, features, after), dim=1)
        self.fresh()

    def fresh(self) -> None:
        self.state = StreamState(self.stream.fresh_tensors(ROWS))
        self.places = [Place(0, 0) for _ in range(ROWS)]

    def chunk(self, place: Place) -> Tensor:
        start = place.chunks * self.stream.chunk_mels
        return self.features[place.recording, start : start + self.stream.chunk_mels]

    def over(self, place: Place) -> bool:
        """All frames of the recording have come out."""
        came = place.chunks * self.stream.chunk_frames - self.stream.delay_frames
        return came >= int(self.counts[place.recording])

    def step(self, moves: list[bool]) -> float:
        """Steps the rows that move and are not over; the largest error of their frames."""
        active = [move and not self.over(place) for move, place in zip(moves, self.places, strict=True)]
        idle = torch.full((self.stream.chunk_mels, MELS), 9.0)
        features = torch.stack([self.chunk(p) if a else idle for a, p in zip(active, self.places, strict=True)])
        lengths = torch.stack([self.lengths[place.recording] for place in self.places])
        frames, valid, _ = self.stream.step(features, self.state, torch.tensor(active), lengths)
        worst = 0.0
        for row, place in enumerate(self.places):
            if not active[row]:
                assert not valid[row].any()
                continue
            first = place.chunks * self.stream.chunk_frames - self.stream.delay_frames
            numbers = [
                n for n in range(first, first + self.stream.chunk_frames) if 0 <= n < self.counts[place.recording]
            ]
            assert int(valid[row].sum()) == len(numbers)
            if numbers:
                error = frames[row][valid[row]] - self.want[place.recording, numbers]
                worst = max(worst, error.abs().max().item())
            place.chunks += 1
        return worst

    def join(self, row: int, recording: int) -> None:
        mask = torch.zeros(ROWS, dtype=torch.bool)
        mask[row] = True
        self.state.reset(mask)
        self.places[row] = Place(recording, 0)

    def turn_off(self, row: int) -> None:
        """Goes over into the recording with the same beginning, where that is still possible."""
        place = self.places[row]
        if place.recording in (1, 3) and place.chunks * self.stream.chunk_mels <= 64:
            place.recording = 4 - place.recording


OPERATIONS = st.one_of(
    st.tuples(st.just("step"), st.lists(st.booleans(), min_size=ROWS, max_size=ROWS)),
    st.tuples(st.just("step"), st.just([True] * ROWS)),
    st.tuples(st.just("join"), st.integers(0, ROWS - 1), st.integers(0, len(LENGTHS) - 1)),
    st.tuples(st.just("fork"), st.integers(0, ROWS - 1), st.integers(0, ROWS - 1)),
    st.tuples(st.just("snapshot"), st.integers(0, ROWS - 1)),
    st.tuples(st.just("restore"), st.integers(0, ROWS - 1)),
    st.tuples(st.just("turn off"), st.integers(0, ROWS - 1)),
)
CASES = {
    f"{name}, right {right}": (right, pattern) for name, pattern in PATTERNS.items() for right in (0, 1, 6)
}  # right 13 has one chunk of left context, as right 6 has two
CASES["chunks, right 13"] = (13, {})
ALL: dict[str, Streams] = {}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=6)
@given(operations=st.lists(OPERATIONS, min_size=5, max_size=25))
def test_streams_give_the_frames_of_the_whole(case: str, operations: list[tuple[Any, ...]]) -> None:
    """fp32 to 1e-5: three layers of norms keep rounding at some 1e-7 times the largest activation."""
    right, pattern = CASES[case]
    streams = ALL.setdefault(case, Streams(right, **pattern))
    streams.fresh()
    kept: dict[str, Any] = {}
    for recording in range(ROWS):
        streams.join(recording, recording)
    for name, *values in operations:
        if name == "step":
            assert streams.step(*values) <= 1e-5
        elif name == "join":
            streams.join(*values)
        elif name == "fork":
            source, target = values
            streams.state.fork(source, target)
            streams.places[target] = Place(streams.places[source].recording, streams.places[source].chunks)
        elif name == "snapshot":
            place = streams.places[values[0]]
            kept = {"state": streams.state.snapshot(values[0]), "place": (place.recording, place.chunks)}
        elif name == "restore" and kept:
            streams.state.restore(values[0], kept["state"])
            streams.places[values[0]] = Place(*kept["place"])
        elif name == "turn off":
            streams.turn_off(*values)
    while not all(map(streams.over, streams.places)):
        assert streams.step([True] * ROWS) <= 1e-5


def test_twelve_layers_over_thirty_rings() -> None:
    """Depth and time add no error: as many layers as the shipped model has, and a state that does not grow."""
    encoder = Encoder(encoder_config(layers=12, left=8)).eval()
    loud(encoder, seed=3)
    mels = 8 * 300 + 1
    features = torch.randn(1, mels, MELS, generator=torch.Generator().manual_seed(0))
    stream = EncoderStream(encoder, 1)
    state = StreamState(stream.fresh_tensors(1))
    with torch.no_grad():
        want = encoder(features, torch.tensor([mels]), 1).frames
    padded = torch.nn.functional.pad(features, (0, 0, 7, 0))
    sizes = {name: tensor.shape for name, tensor in state.tensors.items()}
    got = [
        stream.step(chunk, state, torch.ones(1, dtype=torch.bool))[0]
        for chunk in padded.split(stream.chunk_mels, dim=1)
        if chunk.shape[1] == stream.chunk_mels
    ]
    frames = torch.cat(got, dim=1)
    assert {name: tensor.shape for name, tensor in state.tensors.items()} == sizes
    assert frames.shape[1] == 300
    torch.testing.assert_close(frames, want[:, :300], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bfloat16_streams_are_near_the_frames_of_the_whole(pattern: str) -> None:
    """Eight bits of mantissa, three layers: to a few hundredths of activations near 1."""
    encoder = Encoder(encoder_config(**PATTERNS[pattern])).eval()
    loud(encoder)
    encoder.to(torch.bfloat16)
    features, lengths = torch.randn(1, 121, MELS, generator=torch.Generator().manual_seed(0)), torch.tensor([121])
    stream = EncoderStream(encoder, 1)
    state = StreamState(stream.fresh_tensors(1))
    with torch.no_grad():
        want = encoder(features, lengths, 1).frames[0]
    padded = torch.nn.functional.pad(features, (0, 0, 7, 16 * stream.delay_frames))
    got = []
    for chunk in padded.split(16, dim=1):
        frames, valid, _ = stream.step(chunk, state, torch.ones(1, dtype=torch.bool), lengths)
        got.append(frames[valid])
    torch.testing.assert_close(torch.cat(got).float(), want[:16].float(), atol=0.1, rtol=0)


def test_idle_rows_keep_every_bit_of_their_state() -> None:
    streams = Streams(1, **PATTERNS["windows with positions"])
    for _ in range(3):
        streams.step([True] * ROWS)
    before = streams.state.snapshot(1)
    streams.step([True, False, True])
    after = streams.state.snapshot(1)
    assert all(torch.equal(before[name], after[name]) for name in before)
