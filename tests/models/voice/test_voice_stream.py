"""Words pushed one by one, in rows that join, end, fork and roll back = the whole reply, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relay_models.voice import Spoken
from relay_models.voice_plan import DELAY_FRAMES, HOP_SAMPLES, STEP_FRAMES, VoicePlan
from relay_models.voice_stream import VoiceStream
from tests.models.voice.tiny import some_words, voice

ROWS = 3
MODEL = voice()
REPLIES = [some_words(5, 1), some_words(1, 2), some_words(3, 3), []]
SPOKEN: list[Spoken] = [MODEL(words, speaker=1) for words in REPLIES]
EXACT = 1e-9


@dataclass
class Row:
    """Where a row stands in its reply, and what it said."""

    reply: int
    plan: VoicePlan
    pushed: int = 0
    said: list[NDArray[np.floating]] = field(default_factory=list)

    def copy(self) -> Row:
        return Row(self.reply, self.plan.copy(), self.pushed, list(self.said))

    def check(self) -> None:
        """What was said so far is the beginning of the whole, and all of it when the plan is done."""
        whole = SPOKEN[self.reply]
        said = np.concatenate([np.zeros(0), *self.said])
        expected = whole.samples.numpy()
        if self.plan.done:
            assert len(said) == len(expected)
            assert self.plan.times == whole.words
        assert self.plan.times == whole.words[: len(self.plan.times)]
        np.testing.assert_allclose(said, expected[: len(said)], atol=EXACT, rtol=0)


class Calls:
    """Rows of one state, in any order of events."""

    def __init__(self) -> None:
        self.stream = VoiceStream(MODEL, speaker=1)
        self.state = self.stream.fresh_state(ROWS)
        self.rows = [Row(number, self.stream.fresh_plan()) for number in range(ROWS)]

    def push(self, number: int, count: int) -> None:
        row = self.rows[number]
        words = REPLIES[row.reply]
        for word in words[row.pushed : row.pushed + count]:
            row.plan.push(word)
        row.pushed = min(len(words), row.pushed + count)
        if row.pushed == len(words) and count > 1:
            row.plan.finish()

    def step(self, mask: int) -> None:
        plans = [row.plan if mask >> number & 1 else None for number, row in enumerate(self.rows)]
        for row, samples in zip(self.rows, self.stream.step(plans, self.state), strict=True):
            row.said.append(samples)

    def fork(self, source: int, target: int) -> None:
        self.state.fork(source, target)
        self.rows[target] = self.rows[source].copy()

    def restart(self, number: int, reply: int, *, poison: bool) -> None:
        if poison:
            for tensor in self.state.tensors.values():
                tensor[number] = float("nan") if tensor.is_floating_point() else 12_345
        self.step(sum(1 << other for other in range(ROWS) if other != number))
        self.state.reset(torch.arange(ROWS) == number)
        self.rows[number] = Row(reply, self.stream.fresh_plan())

    def end(self) -> None:
        for number, row in enumerate(self.rows):
            self.push(number, 99)
            row.plan.finish()
        while not all(row.plan.done for row in self.rows):
            self.step((1 << ROWS) - 1)
        for row in self.rows:
            row.check()


NUMBER = st.integers(0, ROWS - 1)
EVENT = st.one_of(
    st.tuples(st.just("push"), NUMBER, st.integers(1, 3)),
    st.tuples(st.just("step"), st.integers(1, (1 << ROWS) - 1)),
    st.tuples(st.just("fork"), NUMBER, NUMBER),
    st.tuples(st.just("restart"), NUMBER, st.integers(0, len(REPLIES) - 1), st.booleans()),
    st.tuples(st.just("roll back"), NUMBER, st.integers(1, 3)),
)


@settings(max_examples=25)
@given(st.lists(EVENT, max_size=25))
def test_any_split_beside_any_neighbours_gives_the_whole_reply(events: list[tuple[str, int, int]]) -> None:
    calls = Calls()
    for event in events:
        match event:
            case ("push", row, count):
                calls.push(row, count)
            case ("step", mask):
                calls.step(mask)
            case ("fork", source, target):
                calls.fork(source, target)
            case ("restart", row, reply, poison):
                calls.restart(row, reply, poison=poison)
            case ("roll back", row, steps):
                kept, snapshot = calls.rows[row].copy(), calls.state.snapshot(row)
                calls.push(row, 2)
                for _ in range(steps):
                    calls.step(1 << row)
                calls.state.restore(row, snapshot)
                calls.rows[row] = kept
        for row in calls.rows:
            row.check()
    calls.end()


def test_the_first_sound_comes_out_of_the_first_step_after_the_first_word() -> None:
    stream = VoiceStream(MODEL)
    state, plan = stream.fresh_state(1), stream.fresh_plan()
    plan.push(REPLIES[0][0])
    (samples,) = stream.step([plan], state)
    assert len(samples) == (STEP_FRAMES - DELAY_FRAMES) * HOP_SAMPLES
    assert np.abs(samples).max() > 0


@pytest.mark.parametrize("number", range(5))
def test_a_prefix_sounds_the_same_whatever_follows_two_words_later(number: int) -> None:
    words, other = some_words(8, 5), some_words(8, 6)
    changed = [*words[: number + 3], *other[number + 3 :]]
    one, two = MODEL(words), MODEL(changed)
    end = one.words[number].end_sample
    assert one.words[: number + 1] == two.words[: number + 1]
    assert torch.equal(one.samples[:end], two.samples[:end])
    assert not torch.equal(one.samples[:30_000], two.samples[:30_000])


def test_the_next_word_is_heard_ahead() -> None:
    """What the bound allows is used: the word after changes how a word sounds."""
    words, other = some_words(8, 5), some_words(8, 6)
    one, two = MODEL(words), MODEL([*words[:3], *other[3:]])
    start, end = one.words[2].start_sample, one.words[2].end_sample
    assert not torch.equal(one.samples[start:end], two.samples[start:end])


@pytest.mark.parametrize("speed", [0.25, 1.0, 1.5])
def test_speed_stretches_lengths(speed: float) -> None:
    words = REPLIES[0]
    usual = SPOKEN[0].samples.shape[0]
    changed = MODEL(words, speaker=1, speed=speed).samples.shape[0]
    assert changed == usual if speed == 1 else (changed > usual) == (speed < 1)


def test_speakers_sound_apart() -> None:
    assert not torch.equal(MODEL(REPLIES[0], speaker=0).features[:10], SPOKEN[0].features[:10])


def test_without_words_there_is_no_sound() -> None:
    stream = VoiceStream(MODEL)
    state, plan = stream.fresh_state(1), stream.fresh_plan()
    plan.finish()
    assert plan.done
    assert [len(samples) for samples in stream.step([plan], state)] == [0]
    assert len(MODEL([]).samples) == 0


def test_float32_streams_within_a_hundred_thousandth() -> None:
    model = voice().float()
    stream = VoiceStream(model)
    whole = model(REPLIES[2]).samples.numpy()
    state, plan = stream.fresh_state(2), stream.fresh_plan()
    for word in REPLIES[2]:
        plan.push(word)
    plan.finish()
    said: list[NDArray[np.floating]] = []
    while not plan.done:
        said.append(stream.step([plan, None], state)[0])
    np.testing.assert_allclose(np.concatenate(said), whole, atol=1e-5 * np.abs(whole).max() * 10)
