"""The bounded queue between tasks."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.channel import Channel, ChannelFull
from tests.virtual_time import run


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 20), st.lists(st.integers(0, 3), min_size=1))
def test_order_is_kept_and_the_bound_holds(items: list[int], capacity: int, pauses: list[int]) -> None:
    async def main() -> list[int]:
        channel: Channel[int] = Channel(capacity, weight=lambda item: item)
        load = 0

        async def produce() -> None:
            nonlocal load
            for item in items:
                await channel.put(item)
                load += item
                assert load <= max(capacity, item)
            channel.close()

        got = []
        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            async for item in channel:
                load -= item
                got.append(item)
                await asyncio.sleep(pauses[len(got) % len(pauses)])
        return got

    assert run(main()) == items


def test_a_full_channel_of_policy_error_says_so_and_drop_makes_room() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(2, policy="error")
        channel.put_nowait(1)
        await channel.put(2)
        with pytest.raises(ChannelFull):
            await channel.put(3)
        assert channel.drop(lambda item: item == 1) == 1
        await channel.put(3)
        assert channel.get_waiting() == [2, 3]
        channel.close()
        assert channel.is_finished
        with pytest.raises(StopAsyncIteration):
            await channel.get()

    run(main())


def test_closing_frees_a_producer_that_waits() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(1)
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            group.create_task(channel.put(2))
            await asyncio.sleep(0)
            channel.close()

    run(main())


def test_ready_says_whether_there_is_something_to_get() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(4)
        assert not await channel.ready(0.0)
        assert not await channel.ready(1.5)
        assert asyncio.get_running_loop().time() == pytest.approx(1.5)
        asyncio.get_running_loop().call_later(1.0, channel.put_nowait, 7)
        assert await channel.ready(None)
        assert asyncio.get_running_loop().time() == pytest.approx(2.5)
        assert await channel.ready(0.0), "it takes nothing away"
        assert await channel.get() == 7
        channel.close()
        assert await channel.ready(None), "the end is news too"

    run(main())
