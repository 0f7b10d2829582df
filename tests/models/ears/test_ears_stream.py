"""Samples in, tokens out: pieces of any length, rows that join, end, fork and roll back = the whole recording."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.ears_stream import EarsStream
from relay_models.state import StreamState, valid_positions
from tests.models.ears.test_decoding import decoder
from tests.models.ears.tiny import PATTERNS, bursts, ears

ROWS, PUSH = 3, 3000
LENGTHS = (4000, 14_321, 30, 9_600)
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "transducer, right 0": ("transducer", 0, {}),
    "transducer, right 6": ("transducer", 6, {}),
    "ctc, right 1": ("ctc", 1, {}),
    "transducer, windows": ("transducer", 1, PATTERNS["windows"]),
}


@dataclass
class Row:
    """Where a row stands in its recording, and what it said and heard."""

    recording: int
    taken: int = 0
    ended: bool = False
    said: list[tuple[int, int]] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)


class Calls:
    """Rows that are sent recordings."""

    def __init__(self, head: str, right: int, pattern: dict[str, Any]) -> None:
        model = ears(**pattern)
        self.pcm = (bursts(len(LENGTHS), max(LENGTHS)) * 32767).to(torch.int16)
        self.pcm[3, :6000] = self.pcm[1, :6000]
        lengths = torch.tensor(LENGTHS)
        with torch.no_grad():
            features, mels = model.features(self.pcm / 32768, lengths)
            encoded = model(features, mels, right)
            greedy = decoder(model, head)
            emissions, _ = greedy.step(
                encoded.frames,
                valid_positions(encoded.lengths, encoded.frames.shape[1]),
                StreamState(greedy.fresh_tensors(len(LENGTHS))),
            )
        self.said = [[(token.number, token.frame) for token in row] for row in emissions.by_row()]
        self.frames = [encoded.frames[row, :count] for row, count in enumerate(encoded.lengths.tolist())]
        self.ends = [torch.sigmoid(model.end_logits(frames)) for frames in self.frames]
        self.stream = EarsStream(model, right=right, head=head)
        self.fresh()

    def fresh(self) -> None:
        self.state = self.stream.fresh_state(ROWS, push_samples=PUSH)
        self.rows = [Row(number) for number in range(ROWS)]

    def push(self, counts: list[int]) -> None:
        pcm = torch.full((ROWS, PUSH), 777, dtype=torch.int16)
        for number, row in enumerate(self.rows):
            count = min(counts[number], LENGTHS[row.recording] - row.taken)
            counts[number] = count
            pcm[number, :count] = self.pcm[row.recording, row.taken : row.taken + count]
            row.taken += count
        self.stream.push(pcm, torch.tensor(counts), self.state)
        self.drain()

    def end(self) -> None:
        """Ends the rows that were sent everything."""
        mask = [row.taken == LENGTHS[row.recording] for row in self.rows]
        for row, over in zip(self.rows, mask, strict=True):
            row.ended |= over
        self.stream.end(torch.tensor(mask), self.state)
        self.drain()

    def drain(self) -> None:
        while self.stream.ready(self.state).any():
            ready = self.stream.ready(self.state)
            heard, _ = self.stream.step(self.state)
            assert not heard.valid[~ready].any()
            assert heard.end_probabilities is not None
            for number, tokens in enumerate(heard.emissions.by_row()):
                row = self.rows[number]
                row.said += [(token.number, token.frame) for token in tokens]
                row.frames += list(heard.frames[number][heard.valid[number]])
                count = int(heard.valid[number].sum())
                ends = self.ends[row.recording][len(row.frames) - count : len(row.frames)]
                torch.testing.assert_close(heard.end_probabilities[number][heard.valid[number]], ends)

    def check(self) -> None:
        for row in self.rows:
            want = self.frames[row.recording]
            if row.ended:
                assert len(row.frames) == len(want)
                assert row.said == self.said[row.recording]
            assert row.said == [token for token in self.said[row.recording] if token[1] < len(row.frames)]
            if row.frames:
                got = torch.stack(row.frames)
                torch.testing.assert_close(got, want[: len(got)], atol=1e-5, rtol=0)


OPERATIONS = st.one_of(
    st.tuples(st.just("push"), st.lists(st.integers(0, PUSH), min_size=ROWS, max_size=ROWS)),
    st.tuples(st.just("push"), st.just([PUSH] * ROWS)),
    st.tuples(st.just("end")),
    st.tuples(st.just("join"), st.integers(0, ROWS - 1), st.integers(0, len(LENGTHS) - 1)),
    st.tuples(st.just("fork"), st.integers(0, ROWS - 1), st.integers(0, ROWS - 1)),
    st.tuples(st.just("snapshot"), st.integers(0, ROWS - 1)),
    st.tuples(st.just("restore"), st.integers(0, ROWS - 1)),
)
ALL: dict[str, Calls] = {}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8)
@given(operations=st.lists(OPERATIONS, max_size=14))
def test_calls_give_the_words_of_the_whole(case: str, operations: list[tuple[Any, ...]]) -> None:
    """Frames to 1e-5, tokens and their times exactly."""
    calls = ALL.setdefault(case, Calls(*CASES[case]))
    calls.fresh()
    kept: tuple[Any, Row] | None = None
    for name, *values in operations:
        if name == "push":
            calls.push(list(values[0]))
        elif name == "end":
            calls.end()
        elif name == "join":
            calls.state.reset(torch.arange(ROWS) == values[0])
            calls.rows[values[0]] = Row(values[1])
        elif name == "fork":
            source, target = values
            calls.state.fork(source, target)
            calls.rows[target] = deepcopy(calls.rows[source])
            row = calls.rows[target]
            if row.recording in (1, 3) and row.taken <= 6000:  # the fork hears another continuation
                row.recording = 4 - row.recording
        elif name == "snapshot":
            kept = (calls.state.snapshot(values[0]), deepcopy(calls.rows[values[0]]))
        elif kept:
            calls.state.restore(values[0], kept[0])
            calls.rows[values[0]] = deepcopy(kept[1])
        calls.check()
    while not all(row.ended for row in calls.rows):
        calls.push([PUSH] * ROWS)
        calls.end()
    calls.check()


def test_the_recordings_say_something() -> None:
    for case in ("transducer, right 6", "ctc, right 1"):
        calls = Calls(*CASES[case])
        assert [bool(said) for said in calls.said] == [True, True, False, True]
        assert len({token for token, _ in calls.said[1]}) > 2


def test_more_samples_than_the_state_was_made_for_are_refused() -> None:
    stream = EarsStream(ears())
    with pytest.raises(ValueError, match="made for fewer"):
        stream.push(torch.zeros(1, 11), torch.tensor([11]), stream.fresh_state(1, push_samples=10))


@pytest.mark.parametrize("head", ["ctc", "rnn"])
def test_a_head_that_is_not_there_is_refused(head: str) -> None:
    model = ears()
    model.ctc = None
    with pytest.raises(ValueError, match="no head"):
        EarsStream(model, head=head)
