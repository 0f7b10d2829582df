"""A slowed brain: the same pieces, later, and nothing left running behind a reply that is broken off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from relay.brains import catalog
from relay.brains.delayed import DelayedBrain
from relay.config import ServerConfig
from relay.errors import BrainUnavailable, ConfigError
from relay.events import Message
from tests.fakes import FakeBrain
from tests.virtual_time import run

QUESTION = [Message("user", "hello")]


def test_every_reply_begins_later_and_is_then_as_fast_as_it_was() -> None:
    brain = FakeBrain([["a", 0.1, "b"], ["c"]])

    async def main() -> list[tuple[str, float]]:
        times: list[tuple[str, float]] = []
        loop = asyncio.get_running_loop()
        async with DelayedBrain(brain, 0.5) as slowed, slowed.dialogue() as dialogue:
            for _ in range(2):
                begin_s = loop.time()
                async for piece in dialogue.reply(QUESTION):
                    times.append((str(piece), round(loop.time() - begin_s, 3)))
        return times

    assert run(main()) == [("a", 0.5), ("b", 0.6), ("c", 0.5)]


def test_a_reply_that_is_broken_off_ends_the_brains_own() -> None:
    brain = FakeBrain([["a", 60.0, "b"], [BrainUnavailable("gone")]])

    async def main() -> None:
        async with DelayedBrain(brain, 0.5).dialogue() as dialogue:
            async with aclosing(cast("Any", dialogue.reply(QUESTION))) as pieces:
                assert await anext(pieces) == "a"
                assert brain.running == 1
            assert brain.running == 0
            with pytest.raises(BrainUnavailable, match="gone"):
                await anext(dialogue.reply(QUESTION))

    run(main())


def test_only_a_delay_that_was_asked_for_slows() -> None:
    slowed = catalog.make(ServerConfig(brain_delay_ms=200))
    assert isinstance(slowed, DelayedBrain)
    assert not isinstance(catalog.make(ServerConfig()), DelayedBrain)
    with pytest.raises(ConfigError, match="--brain-delay-ms"):
        ServerConfig(brain_delay_ms=-1)


def test_how_likely_a_turn_ends_is_said_at_once() -> None:
    brain = FakeBrain([], knows_ends=True, ends={"hello": 0.25})

    async def main() -> float | None:
        slowed = DelayedBrain(brain, 0.5)
        assert slowed.knows_ends
        async with slowed.dialogue() as dialogue:
            answer = await dialogue.end_probability(QUESTION)
        assert asyncio.get_running_loop().time() == 0
        return answer

    assert run(main()) == 0.25
