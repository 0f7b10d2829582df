"""A call of many turns: what is over is freed at once, and is not left to the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from relay.reply import Reply
from tests.drafters import ScriptedDrafter
from tests.fakes import FakeBrain
from tests.test_session import Caller, room_noise, voiced
from tests.test_session_relay import stand
from tests.virtual_time import run


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is collected but by asking, and what is stays in `gc.garbage`."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def turns_of_all_kinds(caller: Caller, first: int) -> None:
    """One heard to its end, one interrupted, and one that goes on after a pause in which a reply was prepared."""
    await caller.say_one_turn()
    await caller.done(first)
    await caller.speak(room_noise(2.0), voiced(0.8), room_noise(0.7))
    await caller.transport.wait_for("response.created", first + 1)
    await caller.speak(room_noise(1.5), voiced(0.8), room_noise(0.3), voiced(0.8), room_noise(0.7))
    await caller.done(first + 2)
    await caller.speak(room_noise(12.0))


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("speculate", [True, False])
def test_nothing_of_a_turn_waits_for_the_garbage_collector(fast: bool, speculate: bool) -> None:
    async def main() -> None:
        brain = FakeBrain([[0.3, *["word ", 0.1] * 30] for _ in range(200)])
        on = stand(
            brain, ScriptedDrafter([(0.05, "Well you see")]), speculate=speculate, texts=["tell me a story"] * 200
        )
        if not fast:
            on.fast = None
        async with on.call() as caller:
            await turns_of_all_kinds(caller, 1)
            gc.collect()
            gc.garbage.clear()
            for turns in range(1, 6):
                await turns_of_all_kinds(caller, 1 + 3 * turns)
            how = [response["response"]["status"] for response in caller.transport.events("response.done")]
            assert {"completed", "cancelled"} <= set(how)
            gc.collect()
            left = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("relay."))
            assert left == {}
            assert sum(type(each) is Reply for each in gc.get_objects()) <= 9  # those that may still be truncated

    run(main())
