"""Noise suppression in front of the recogniser: per turn, when asked for, with a slot of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from relay.audio import Int16Array
from relay.channel import Channel
from relay.engine.ears import EarsInput, EarsOutput
from relay.stages.hear import BLOCK_SAMPLES, FINAL_S, HEARD_S, TurnAudio, hear
from relay_models.framing import LEAD_IN_SAMPLES, chunk_samples


@dataclass
class Ears:
    """Gives back how much it heard and how loud; raises on samples of `fails_on`."""

    fails_on: int | None = None
    slots: int = 0
    steps: list[tuple[int, float]] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        self.slots += 1
        yield self.slots

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> EarsOutput:
        self.heard.extend(x.pcm.tolist())
        self.steps.append((len(x.pcm), deadline_s))
        if not x.final:
            return EarsOutput("", "")
        text, self.heard = " ".join(map(str, self.heard)), []
        return EarsOutput(text, "", final=True)


@dataclass
class Denoiser(Ears):
    """Halves every sample and holds the last back until the utterance is over."""

    held: list[int] = field(default_factory=list)

    async def step(  # type: ignore[override]
        self, slot: int, x: EarsInput, *, deadline_s: float = 0.0
    ) -> Int16Array:
        if self.fails_on is not None and self.fails_on in x.pcm:
            raise RuntimeError("out of breath")
        self.held += (x.pcm // 2).tolist()
        ready = len(self.held) if x.final else max(0, len(self.held) - 1)
        out, self.held = self.held[:ready], self.held[ready:]
        return np.array(out, dtype=np.int16)


def turn(turn_id: int, *samples: int, last: bool = False) -> TurnAudio:
    return TurnAudio(turn_id, np.array(samples, dtype=np.int16), 0.0, last=last)


def run(
    items: Sequence[TurnAudio], ears: Ears, denoiser: Denoiser | None, answers: Sequence[bool] = ()
) -> tuple[dict[int, str], dict[int, str], int]:
    """Hears all turns; gives texts, failures, and how often it was asked whether to suppress noise."""
    texts: dict[int, str] = {}
    failures: dict[int, str] = {}
    asked = iter(answers)
    count = 0

    def denoises() -> bool:
        nonlocal count
        count += 1
        return next(asked)

    def on_output(turn_id: int, output: EarsOutput) -> None:
        if output.final:
            texts[turn_id] = output.stable

    async def main() -> None:
        inbox: Channel[TurnAudio] = Channel(100, weight=lambda item: max(1, len(item.pcm)))
        any_ears: Any = ears
        any_denoiser: Any = denoiser
        extra = {"denoiser": any_denoiser, "denoises": denoises} if answers else {}
        task = asyncio.create_task(
            hear(inbox, any_ears, on_output, lambda turn_id, error: failures.update({turn_id: str(error)}), **extra)
        )
        async with asyncio.timeout(5):
            for item in items:
                await inbox.put(item)
                await asyncio.sleep(0)
            inbox.close()
            await task

    asyncio.run(main())
    return texts, failures, count


TURNS = (turn(1, 10, 20), turn(1, 30), turn(1, last=True), turn(2, 40), turn(2, 50, last=True))


def test_without_a_denoiser_audio_goes_straight_to_the_ears() -> None:
    assert run(TURNS, Ears(), None) == ({1: "10 20 30", 2: "40 50"}, {}, 0)


@pytest.mark.parametrize(
    ("answers", "texts"),
    [
        ((True, True), {1: "5 10 15", 2: "20 25"}),
        ((False, True), {1: "10 20 30", 2: "20 25"}),
        ((True, False), {1: "5 10 15", 2: "40 50"}),
    ],
)
def test_each_turn_is_denoised_whole_or_not_at_all(answers: tuple[bool, bool], texts: dict[int, str]) -> None:
    denoiser = Denoiser()
    assert run(TURNS, Ears(), denoiser, answers) == (texts, {}, 2)
    assert denoiser.slots == 1


def test_asking_for_it_without_a_model_changes_nothing() -> None:
    texts, failures, _ = run(TURNS, Ears(), None, (True, True))
    assert (texts, failures) == ({1: "10 20 30", 2: "40 50"}, {})


def test_a_denoiser_that_fails_loses_the_turn_and_begins_anew() -> None:
    ears, denoiser = Ears(), Denoiser(fails_on=10)
    texts, failures, _ = run(TURNS, ears, denoiser, (True, True))
    assert texts == {2: "20 25"}
    assert "out of breath" in failures[1]
    assert (ears.slots, denoiser.slots) == (2, 2)


def test_audio_is_handed_on_when_it_completes_a_frame_of_the_recogniser() -> None:
    """The end of a turn waits for nothing, and what was held is due no sooner for it."""
    frame = BLOCK_SAMPLES // 4
    first = -(-(BLOCK_SAMPLES - LEAD_IN_SAMPLES % BLOCK_SAMPLES) // frame)
    counts = [frame] * (first + 5) + [2 * frame, 5 * frame, frame, 0]
    items = [
        TurnAudio(turn_id, np.full(count, turn_id, np.int16), float(number), last=number == len(counts) - 1)
        for turn_id in (1, 2)
        for number, count in enumerate(counts)
    ]
    ears = Ears()
    texts, failures, _ = run(items, ears, None)
    assert not failures
    assert {turn_id: len(text.split()) for turn_id, text in texts.items()} == {1: sum(counts), 2: sum(counts)}
    whole = [
        (first * frame, first - 1 + HEARD_S),
        (4 * frame, first + 3 + HEARD_S),
        (8 * frame, first + 6 + HEARD_S),
    ]
    assert ears.steps == [*whole, (frame, len(counts) - 1 + FINAL_S)] * 2


def test_no_chunk_of_a_learned_recogniser_comes_later_for_it() -> None:
    """Wherever its chunks end: what completes one is handed on with it."""
    frame = BLOCK_SAMPLES // 4
    items = [TurnAudio(1, np.ones(frame, np.int16), float(number)) for number in range(40)]
    ears = Ears()
    run(items, ears, None)
    handed_on = np.cumsum([count for count, _ in ears.steps])
    for chunks in range(1, 9):
        needed = chunks * chunk_samples(0) - LEAD_IN_SAMPLES
        assert -(-needed // frame) * frame in handed_on
