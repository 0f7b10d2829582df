from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.engine.engine import Engine
from relay.errors import EngineBusy, EngineUnavailable, RelayError


class Adder:
    """Sums each slot's inputs. It checks the runner's side of the contract: one thread, open before step before close.

    An input of 13 fails, an input of 99 waits until `gate` is set.
    """

    def __init__(self, *, max_slots: int = 4, max_batch: int = 3) -> None:
        self.max_slots = max_slots
        self.max_batch = max_batch
        self.sums: dict[int, int] = {}
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.unloaded = False

    def load(self) -> None:
        self.threads.add(threading.get_ident())

    def open(self, slot: int) -> None:
        self.threads.add(threading.get_ident())
        assert slot not in self.sums
        self.sums[slot] = 0

    def step(self, slots: Sequence[int], xs: Sequence[int]) -> Sequence[int | BaseException]:
        self.threads.add(threading.get_ident())
        assert len(set(slots)) == len(slots) <= self.max_batch
        self.batches.append(list(slots))
        results: list[int | BaseException] = []
        for slot, x in zip(slots, xs, strict=True):
            if x == 99:
                self.entered.set()
                assert self.gate.wait(30)
            self.sums[slot] += x
            results.append(ValueError("unlucky") if x == 13 else self.sums[slot])
        return results

    def close(self, slot: int) -> None:
        self.threads.add(threading.get_ident())
        del self.sums[slot]

    def unload(self) -> None:
        self.unloaded = True


async def entered(runner: Adder) -> None:
    """Waits until the runner is inside a step."""
    assert await asyncio.to_thread(runner.entered.wait, 30)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 20), max_size=6), min_size=1, max_size=8), st.integers(1, 4))
def test_desynchronised_callers_get_their_own_results(scripts: list[list[int]], max_batch: int) -> None:
    async def caller(engine: Engine[int, int], script: list[int]) -> None:
        async with engine.slot() as slot:
            total = 0
            for x in script:
                total += x
                if x == 13:  # this slot's failure; it goes on, and its neighbours in the batch do not notice
                    with pytest.raises(ValueError, match="unlucky"):
                        await engine.step(slot, x)
                else:
                    assert await engine.step(slot, x, deadline_s=float(x)) == total

    async def main() -> None:
        runner = Adder(max_slots=8, max_batch=max_batch)
        async with asyncio.timeout(30), Engine(runner, name="adder") as engine:
            await asyncio.gather(*(caller(engine, script) for script in scripts))
            assert engine.slots_in_use == 0
        assert runner.sums == {}
        assert runner.unloaded
        assert len(runner.threads) == 1
        assert threading.get_ident() not in runner.threads

    asyncio.run(main())


def test_waiting_steps_are_batched_by_deadline() -> None:
    async def main() -> None:
        runner = Adder(max_slots=5, max_batch=3)
        async with Engine(runner, name="adder") as engine, asyncio.timeout(30):
            async with (
                engine.slot() as blocker,
                engine.slot() as a,
                engine.slot() as b,
                engine.slot() as c,
                engine.slot() as d,
            ):
                first = asyncio.create_task(engine.step(blocker, 99))
                await entered(runner)
                later = [
                    asyncio.create_task(engine.step(slot, 1, deadline_s=due))
                    for slot, due in ((a, 4.0), (b, 1.0), (c, 3.0), (d, 2.0))
                ]
                await asyncio.sleep(0)  # the tasks queue their steps
                runner.gate.set()
                await asyncio.gather(first, *later)
            assert runner.batches == [[blocker], [b, d, c], [a]]

    asyncio.run(main())


def test_slots_run_out_and_come_back() -> None:
    async def main() -> None:
        async with Engine(Adder(max_slots=1), name="adder") as engine:
            async with engine.slot():
                assert engine.slots_in_use == 1
                with pytest.raises(EngineBusy, match="1 slots of the adder engine"):
                    async with engine.slot():
                        pass
            async with engine.slot() as slot:
                assert await engine.step(slot, 5) == 5  # fresh state

    asyncio.run(main())


def test_a_slot_takes_one_step_at_a_time() -> None:
    async def main() -> None:
        runner = Adder()
        async with Engine(runner, name="adder") as engine, engine.slot() as slot:
            first = asyncio.create_task(engine.step(slot, 99))
            await entered(runner)
            with pytest.raises(RuntimeError, match="being stepped already"):
                await engine.step(slot, 1)
            runner.gate.set()
            assert await first == 99

    asyncio.run(main())


@pytest.mark.parametrize("running", [True, False])
def test_a_cancelled_step_frees_its_slot_after_it_ran(running: bool) -> None:
    async def main() -> None:
        runner = Adder(max_slots=2)

        async def caller(engine: Engine[int, int]) -> None:
            async with engine.slot() as slot:
                await engine.step(slot, 99 if running else 1)

        async with Engine(runner, name="adder") as engine, asyncio.timeout(30):
            if not running:  # the step waits behind another one that blocks
                blocked = asyncio.create_task(caller_of_99(engine))
                await entered(runner)
            task = asyncio.create_task(caller(engine))
            if running:
                await entered(runner)
            else:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # again, while the slot is being given back
            runner.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not running:
                assert await blocked == 99
            while engine.slots_in_use:
                await asyncio.sleep(0.001)
            async with engine.slot() as slot:
                assert await engine.step(slot, 4) == 4
        assert runner.sums == {}

    async def caller_of_99(engine: Engine[int, int]) -> int:
        async with engine.slot() as slot:
            return await engine.step(slot, 99)

    asyncio.run(main())


def test_closing_fails_the_steps_that_wait() -> None:
    async def main() -> None:
        runner = Adder()
        engine = Engine(runner, name="adder")
        await engine.__aenter__()

        async def caller(x: int) -> int:
            async with engine.slot() as slot:
                return await engine.step(slot, x)

        running = asyncio.create_task(caller(99))
        await entered(runner)
        waiting = [asyncio.create_task(caller(1)) for _ in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.__aexit__())
        await asyncio.sleep(0)
        runner.gate.set()
        async with asyncio.timeout(30):
            await closing
            assert await running == 99  # the step in flight is finished
            for task in waiting:
                with pytest.raises(RelayError, match="the adder engine was closed"):
                    await task
            with pytest.raises(RelayError, match="the adder engine was closed"):
                await caller(1)
        assert runner.unloaded
        assert engine.slots_in_use == 0

    asyncio.run(main())


def test_ten_thousand_slots_leave_nothing() -> None:
    async def main() -> None:
        runner = Adder(max_slots=50)
        async with Engine(runner, name="adder") as engine:

            async def sessions(count: int) -> None:
                for _ in range(count):
                    async with engine.slot() as slot:
                        await engine.step(slot, 1)

            await asyncio.gather(*(sessions(20) for _ in range(50)))
            runner.batches.clear()
            gc.collect()
            tasks = len(asyncio.all_tasks())
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await asyncio.gather(*(sessions(200) for _ in range(50)))
            runner.batches.clear()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert grown < 100_000
            assert len(asyncio.all_tasks()) == tasks
            assert engine.slots_in_use == 0
            assert len(engine._batcher) == len(engine._futures) == len(engine._releases) == 0

    asyncio.run(main())


class Broken(Adder):
    def __init__(self, where: str) -> None:
        super().__init__(max_slots=1)
        self.where = where

    def load(self) -> None:
        if self.where == "load":
            raise EngineUnavailable("no weights here")

    def open(self, slot: int) -> None:
        if self.where == "open":
            self.where = ""
            raise MemoryError("no room")
        super().open(slot)

    def step(self, slots: Sequence[int], xs: Sequence[int]) -> Sequence[int | BaseException]:
        if self.where == "step":
            self.where = ""
            raise ZeroDivisionError
        if self.where == "results":
            self.where = ""
            return []
        return super().step(slots, xs)

    def close(self, slot: int) -> None:
        super().close(slot)
        if self.where == "close":
            raise OSError("the device is gone")

    def unload(self) -> None:
        if self.where == "unload":
            raise OSError("the device is gone")


def test_a_runner_that_cannot_load() -> None:
    async def main() -> None:
        with pytest.raises(EngineUnavailable, match="no weights here"):
            async with Engine(Broken("load"), name="broken"):
                pass

    asyncio.run(main())


@pytest.mark.parametrize(
    ("where", "error"), [("open", MemoryError), ("step", ZeroDivisionError), ("results", RuntimeError)]
)
def test_a_runner_that_raises_serves_the_next_caller(where: str, error: type[Exception]) -> None:
    async def main() -> None:
        async with Engine(Broken(where), name="broken") as engine, asyncio.timeout(30):
            with pytest.raises(error):
                async with engine.slot() as slot:
                    await engine.step(slot, 1)
            assert engine.slots_in_use == 0
            async with engine.slot() as slot:
                assert await engine.step(slot, 2) == 2

    asyncio.run(main())


@pytest.mark.parametrize("where", ["close", "unload"])
def test_a_runner_that_fails_at_the_end_is_only_logged(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Engine(Broken(where), name="broken") as engine, asyncio.timeout(30):
            for _ in range(2):
                async with engine.slot() as slot:
                    assert await engine.step(slot, 1) == 1

    with caplog.at_level(logging.ERROR, logger="relay.engine.engine"):
        asyncio.run(main())
    assert "broken engine failed" in caplog.text


def test_cancelled_while_it_loads() -> None:
    class Slow(Adder):
        def load(self) -> None:
            self.entered.set()
            assert self.gate.wait(30)

    async def main() -> None:
        runner = Slow()
        engine = Engine(runner, name="slow")
        entering = asyncio.create_task(engine.__aenter__())
        await entered(runner)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        runner.gate.set()
        assert engine._thread is not None
        await asyncio.to_thread(engine._thread.join, 30)
        assert not engine._thread.is_alive()
        assert runner.unloaded

    asyncio.run(main())


def test_urgent_steps_overtake() -> None:
    """A first step of a slot goes before others that waited longer, one of a slot that was stepped before does not."""

    async def main() -> None:
        runner = Adder(max_slots=4, max_batch=1)
        async with Engine(runner, name="test", urgent=lambda x, first: first and x == 7) as engine:
            async with engine.slot() as a, engine.slot() as b, engine.slot() as c, engine.slot() as d:
                await engine.step(c, 1)
                blocked = asyncio.create_task(engine.step(a, 99))
                await entered(runner)
                waiting = [asyncio.create_task(engine.step(slot, x)) for slot, x in ((b, 5), (c, 7), (d, 7))]
                await asyncio.sleep(0)
                runner.gate.set()
                await asyncio.gather(blocked, *waiting)
            assert runner.batches == [[c], [a], [d], [b], [c]]

    asyncio.run(main())


def test_steps_are_measured_against_the_time_they_were_given() -> None:
    class Slow(Adder):
        def step(self, slots: Sequence[int], xs: Sequence[int]) -> Sequence[int | BaseException]:
            threading.Event().wait(0.02)
            return super().step(slots, xs)

    async def main() -> None:
        async with Engine(Slow(max_batch=1), name="test") as engine, engine.slot() as slot:
            assert engine.load.used(time.monotonic()) == 0.0
            for _ in range(20):
                await engine.step(slot, 1)  # without a deadline nobody counts
            assert engine.load.used(time.monotonic()) > 0.03
            assert engine.load.deadline_share(time.monotonic()) == 0.0
            for _ in range(40):
                await engine.step(slot, 1, deadline_s=asyncio.get_running_loop().time() + 3600)
            assert engine.load.deadline_share(time.monotonic()) == 1 / 16
            for _ in range(40):
                await engine.step(slot, 1, deadline_s=asyncio.get_running_loop().time() - 1)
            assert engine.load.deadline_share(time.monotonic()) == 2.0

    asyncio.run(main())
