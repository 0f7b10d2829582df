"""The draft model follows what is heard and said, in order, and its failures are those of the drafts asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from relay.engine.draft import Draft, DraftInput, Judgement, Signals
from relay.errors import StageFailed
from relay.stages.draft import Inbox, draft, follow, open_inbox, tell
from relay.stages.verify import verify
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.virtual_time import run


def pcm(samples: int) -> DraftInput:
    return DraftInput(np.zeros(samples, np.int16))


@contextlib.asynccontextmanager
async def following(engine: ScriptedDrafter) -> AsyncIterator[Inbox]:
    inbox = open_inbox()
    task = asyncio.create_task(follow(inbox, engine))
    try:
        yield inbox
    finally:
        inbox.close()
        await task
        assert engine.open_slots == 0


def test_a_draft_answers_all_that_was_heard_before_it() -> None:
    async def main() -> None:
        engine = ScriptedDrafter(step_s=0.1)
        async with following(engine) as inbox:
            for _ in range(20):
                tell(inbox, pcm(320))
            tell(inbox, DraftInput(np.zeros(0, np.int16), words="Hello there"))
            tell(inbox, pcm(320))
            tell(inbox, DraftInput(np.zeros(0, np.int16), ended="whole"))
            made = await draft(inbox, 2)
            assert made.words == ("Well", "you")
            assert engine.heard_samples == 21 * 320
            assert engine.told == ["Hello there", "(whole)"]
            assert engine.steps <= 5, "audio that waits is one step"

    run(main())


def test_what_the_engine_has_judged_is_not_judged_again() -> None:
    async def main() -> None:
        engine = ScriptedDrafter(judgement=Judgement(0.8, 2))
        verifier = ScriptedVerifier()
        async with following(engine) as inbox:
            made = await draft(inbox, 7, 0.6)
            verdict = await verify(made, 0.6, verifier)
        assert (verdict.words, verdict.probability) == (("Well", "you"), 0.8)
        assert (engine.confidences, verifier.confidences) == ([0.6], [])
        with pytest.raises(StageFailed, match="no judgement"):
            await verify(Draft(("Well",), judgement=Judgement(float("nan"), 1)), 0.6, verifier)

    run(main())


def test_it_is_told_what_the_model_makes_of_the_newest_frame() -> None:
    async def main() -> None:
        inbox, told = open_inbox(), list[Signals]()
        engine = ScriptedDrafter(step_s=0.1, signals=Signals(0, 0.5, 0.0, 0.0))
        task = asyncio.create_task(follow(inbox, engine, told.append))
        for end in range(320, 3201, 320):
            tell(inbox, DraftInput(np.zeros(320, np.int16), until_sample=end))
            await asyncio.sleep(0.02)
        tell(inbox, DraftInput(np.zeros(0, np.int16), "Hello", until_sample=3200))
        await draft(inbox, 2)
        inbox.close()
        await task
        positions = [signals.until_sample for signals in told]
        assert positions == sorted(positions)
        assert positions[0] == 320
        assert positions[-1] == 3200
        assert {signals.begin_probability for signals in told} == {0.5}

    run(main())


def test_a_model_that_fails_is_begun_anew_when_it_is_asked_next() -> None:
    async def main() -> None:
        engine = ScriptedDrafter(fails_at=2)
        async with following(engine) as inbox:
            tell(inbox, pcm(320))
            await asyncio.sleep(0.1)
            tell(inbox, pcm(320))
            tell(inbox, pcm(320))
            with pytest.raises(StageFailed, match="tripped"):
                await draft(inbox, 5)
            assert (await draft(inbox, 5)).words == ("Well", "you", "see")

    run(main())


@pytest.mark.parametrize("script", [[(0.1, RuntimeError("odd")), (0.0, "Yes")], [(0.1, None), (0.0, "Yes")]])
def test_a_draft_that_fails_fails_alone(script: list[tuple[float, str | Exception | None]]) -> None:
    async def main() -> None:
        engine = ScriptedDrafter(script)
        async with following(engine) as inbox:
            with pytest.raises(StageFailed, match=r"odd|gave no draft"):
                await draft(inbox, 5)
            answers = await asyncio.gather(*(draft(inbox, 5) for _ in range(3)), return_exceptions=True)
            assert Draft(("Yes",)) in answers
            assert all(isinstance(each, Draft | StageFailed) for each in answers)

    run(main())


def test_without_a_free_slot_drafts_are_refused_until_there_is_one() -> None:
    async def main() -> None:
        engine = ScriptedDrafter(busy=True)
        async with following(engine) as inbox:
            for _ in range(2):
                tell(inbox, pcm(320))
                with pytest.raises(StageFailed, match="slots"):
                    await draft(inbox, 5)
            engine.busy = False
            with contextlib.suppress(StageFailed):
                await draft(inbox, 5)
            assert (await draft(inbox, 5)).words == ("Well", "you", "see")

    run(main())


def test_a_slow_model_hears_gaps_and_holds_nobody_up() -> None:
    async def main() -> None:
        engine = ScriptedDrafter(step_s=30.0)
        async with following(engine) as inbox:
            tell(inbox, pcm(320))
            await asyncio.sleep(0.01)
            for _ in range(1000):
                tell(inbox, pcm(320))
            tell(inbox, DraftInput(np.zeros(0, np.int16), words="Hello"))
            for _ in range(1000):
                tell(inbox, pcm(320))
            made = await draft(inbox, 3)
            assert made.words == ("Well", "you", "see")
            assert engine.told == ["Hello"], "what was said is not lost"
            assert engine.heard_samples < 8 * 16_000

    run(main())


def test_nobody_waits_for_an_answer_that_nobody_wants() -> None:
    async def main() -> None:
        engine = ScriptedDrafter([(5.0, "Late"), (0.0, "Soon")])
        async with following(engine) as inbox:
            first = asyncio.create_task(draft(inbox, 3))
            await asyncio.sleep(0.1)
            second = asyncio.create_task(draft(inbox, 3))
            await asyncio.sleep(0.1)
            first.cancel()
            second.cancel()
            assert (await draft(inbox, 3)).words == ("Soon",)
            assert engine.asked == [3, 3], "what was cancelled before its turn is not drafted"

    run(main())


def test_the_verdict_follows_the_judgement() -> None:
    async def main() -> None:
        made = Draft(("It", "is", "noon"))
        verifier = ScriptedVerifier([(0.0, Judgement(0.97, 2)), (0.0, Judgement(0.3, 0)), (0.0, Judgement(0.9, 7))])
        assert (await verify(made, 0.5, verifier)).words == ("It", "is")
        doubtful = await verify(made, 0.6, verifier)
        assert (doubtful.words, doubtful.probability) == ((), 0.3)
        assert (await verify(made, 0.7, verifier)).words == made.words
        empty = await verify(Draft(()), 0.8, verifier)
        assert (empty.words, empty.probability) == ((), None)
        assert verifier.confidences == [0.5, 0.6, 0.7], "an empty draft is not judged"

    run(main())


@pytest.mark.parametrize(
    "judged", [RuntimeError("odd"), Judgement(float("nan"), 3), Judgement(1.5, 3), Judgement(0.9, -1)]
)
def test_what_is_no_judgement_is_a_failure(judged: Judgement | Exception) -> None:
    async def main() -> None:
        with pytest.raises(StageFailed, match=r"odd|no judgement") as caught:
            await verify(Draft(("It",)), 0.5, ScriptedVerifier([(0.0, judged)]))
        assert caught.value.stage == "verify"

    run(main())
