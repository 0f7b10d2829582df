"""When the steps of a session are due, as its stages tell the engines, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from relay.brains.embedded import TOKEN_S, EmbeddedDialogue, _load_vocabulary
from relay.engine.brain import BrainInput, BrainOutput, Sampling
from relay.engine.draft import Draft, DraftInput, DraftOutput, Judgement
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.verifier import EngineVerifier, Judged
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.events import Message
from relay.services import Fast
from relay.stages.hear import FINAL_S, HEARD_S
from relay.stages.speak import SOUND_S
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.fakes import FakeBrain, FakeEars, FakeVoice, WordwiseVoice
from tests.test_session import Stand, room_noise, voiced
from tests.virtual_time import run


def now_s() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class TimedEars(FakeEars):
    """Notes of each step whether it was the last, how much it heard, when it came and when it was due."""

    steps: list[tuple[bool, int, float, float]] = field(default_factory=list)

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> EarsOutput:
        self.steps.append((x.final, len(x.pcm), now_s(), deadline_s))
        return await super().step(slot, x)


@dataclass
class TimedVoice(WordwiseVoice):
    """Notes when each step came and was due."""

    steps: list[tuple[float, float]] = field(default_factory=list)

    async def step(self, slot: int, x: VoiceInput, *, deadline_s: float = 0.0) -> VoiceOutput:
        self.steps.append((now_s(), deadline_s))
        return await super().step(slot, x)


def test_what_is_heard_is_due_soon_after_it_was_spoken() -> None:
    async def main() -> None:
        stand = Stand(TimedEars(["hello"]), FakeBrain([["Yes."]]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.done()
        assert isinstance(stand.ears, TimedEars)
        *partials, final = stand.ears.steps
        assert len(partials) > 10
        assert all(due - at == pytest.approx(HEARD_S, abs=0.021) for _, _, at, due in partials[5:])
        assert final[0]
        assert final[3] - final[2] == pytest.approx(FINAL_S, abs=0.021)

    run(main())


def test_a_recogniser_that_lags_is_told_when_the_oldest_audio_was_due() -> None:
    async def main() -> None:
        stand = Stand(TimedEars(["hello"], delay_s=0.1), FakeBrain([["Yes."]]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.done()
        assert isinstance(stand.ears, TimedEars)
        merged = [(heard, at, due) for final, heard, at, due in stand.ears.steps[5:] if not final]
        for heard, at, due in merged:  # the first 20 ms of what waited came so much earlier
            assert due == pytest.approx(at - heard / 16_000 + 0.02 + HEARD_S, abs=0.041)

    run(main())


def test_audio_sent_ahead_of_real_time_is_in_no_hurry() -> None:
    async def main() -> None:
        stand = Stand(TimedEars(["hello"]), FakeBrain([["Yes."]]))
        async with stand.call() as caller:
            caller.append(room_noise(0.4) + voiced(3.0) + room_noise(0.7))
            await caller.done()
        assert isinstance(stand.ears, TimedEars)
        assert {(at, due) for final, _, at, due in stand.ears.steps if not final} == {(0.0, 4.1 + HEARD_S)}

    run(main())


def test_the_voice_is_due_at_once_and_then_when_the_sound_runs_out() -> None:
    async def main() -> None:
        words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen."
        stand = Stand(FakeEars(["hello"]), FakeBrain([[words]]), TimedVoice(), speculate=False)
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.done()
        assert isinstance(stand.voice, TimedVoice)
        first, *others = stand.voice.steps
        assert first[1] - first[0] == pytest.approx(SOUND_S)
        begin_s = first[0]
        for number, (at, due) in enumerate(others, 1):  # a word is 250 ms
            assert due == pytest.approx(max(begin_s + 0.25 * number, at + SOUND_S))
        assert others[-1][1] - others[-1][0] > 1.0  # by then the sound is far ahead

    run(main())


def test_a_token_is_due_soon_if_it_is_the_first_and_else_when_it_can_be_said() -> None:
    dues: list[float] = []

    class Steps:
        def slot(self) -> None: ...

        async def step(self, slot: int, x: BrainInput, *, deadline_s: float = 0.0) -> BrainOutput:
            dues.append(deadline_s)
            await asyncio.sleep(0.01)
            return BrainOutput(100 + len(dues))

    async def main() -> None:
        await asyncio.sleep(5)
        dialogue = EmbeddedDialogue(Steps(), 0, _load_vocabulary(None), Sampling())  # type: ignore[arg-type]
        async for _ in dialogue.reply([Message("user", "hello")], max_tokens=9):
            pass
        assert dues == pytest.approx([5 + TOKEN_S * number for number in range(1, 10)])

    run(main())


def test_the_fast_path_is_due_at_once_where_somebody_waits() -> None:
    listened: list[float] = []
    drafted: list[float] = []

    class Drafter(ScriptedDrafter):
        async def step(self, slot: int, x: DraftInput, *, deadline_s: float = 0.0) -> DraftOutput:
            (drafted if x.draft_words else listened).append(deadline_s - now_s())
            return await super().step(slot, x)

    async def main() -> None:
        fast = Fast(Drafter(), ScriptedVerifier())
        stand = Stand(FakeEars(["hello"]), FakeBrain([[3.0, "Yes."]] * 3), FakeVoice(), fast=fast)
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.done()

    run(main())
    assert set(np.round(listened, 9)) == {0.16}
    assert drafted
    assert max(drafted) < 0.1


def test_a_judgement_is_due_at_once() -> None:
    class Judge:
        def slot(self) -> contextlib.nullcontext[int]:
            return contextlib.nullcontext(0)

        async def step(self, slot: int, x: Judged, *, deadline_s: float = 0.0) -> Judgement:
            return Judgement(deadline_s - now_s(), 1)

    async def main() -> None:
        judged = await EngineVerifier(Judge()).judge(Draft(("a",)), 0.5)  # type: ignore[arg-type]
        assert 0 < judged.probability < 0.1

    run(main())
