"""The judge answers for the latest words it was shown, once for the same ones, and outlives a model that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relay.errors import BrainUnavailable
from relay.stages.judge import Judge
from tests.virtual_time import run

Told = list[tuple[int, str, float]]


def judged(answer: Callable[[str], Awaitable[float | None]], show: Callable[[Judge], Awaitable[None]]) -> Told:
    told: Told = []

    async def main() -> None:
        judge = Judge(answer, lambda *what: told.append(what))
        running = asyncio.create_task(judge.run())
        await show(judge)
        await asyncio.sleep(10.0)
        assert not running.done()
        running.cancel()

    run(main())
    return told


def test_only_the_latest_words_are_judged_while_the_model_is_busy() -> None:
    asked: list[str] = []

    async def slow(text: str) -> float:
        asked.append(text)
        await asyncio.sleep(1.0)
        return len(text) / 10

    async def show(judge: Judge) -> None:
        for text in ("a", "ab", "abc", "abc"):
            judge.show(1, text)
            await asyncio.sleep(0.3)
        await asyncio.sleep(5.0)
        judge.show(1, "abc")
        judge.show(2, "abc")

    assert judged(slow, show) == [(1, "a", 0.1), (1, "abc", 0.3), (2, "abc", 0.3)]
    assert asked == ["a", "abc", "abc"]


def test_a_model_that_cannot_say_or_fails_leaves_words_unjudged() -> None:
    async def answer(text: str) -> float | None:
        if text == "bad":
            raise BrainUnavailable("gone")
        return None if text == "odd" else 0.5

    async def show(judge: Judge) -> None:
        for text in ("bad", "odd", "good"):
            judge.show(1, text)
            await asyncio.sleep(0.1)

    assert judged(answer, show) == [(1, "good", 0.5)]
