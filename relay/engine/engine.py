"""The engine contract: every model, of whatever kind, is stepped as `await engine.step(slot, x)`.

A `Runner` is the synchronous side: it owns slots of state and steps a batch of them; it lives on one thread of its own
(a device is owned by one thread). An `Engine` is the asynchronous side that sessions see: it queues steps in a
`Batcher` (pure, no thread, no torch) and carries the results back to the event loop. Trained models, pocketsphinx,
eSpeak and the embedded language model all stand behind the same two classes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

from relay.engine.batcher import Batcher, Job, StepTimes
from relay.engine.load import Load
from relay.errors import EngineBusy, RelayError

X = TypeVar("X")
Y = TypeVar("Y")
X_contra = TypeVar("X_contra", contravariant=True)
Y_co = TypeVar("Y_co", covariant=True)

log = logging.getLogger(__name__)


class Runner(Protocol[X_contra, Y_co]):
    """Steps batches of slots on the engine's own thread. All methods are called on that one thread only.

    Attributes:
        max_slots: How many slots can be open at once.
        max_batch: How many slots one `step` call may hold.
    """

    max_slots: int
    max_batch: int

    def load(self) -> None:
        """Loads weights and libraries; called once, before anything else. Raises EngineUnavailable or WeightsError."""

    def open(self, slot: int) -> None:
        """Gives a slot fresh state."""

    def step(self, slots: Sequence[int], xs: Sequence[X_contra]) -> Sequence[Y_co | BaseException]:
        """Steps each slot by its input; the i-th result belongs to the i-th slot.

        A slot that fails gives its exception as its result, so that a neighbour in the batch is unharmed.
        """

    def close(self, slot: int) -> None:
        """Drops a slot's state. The slot may be opened again."""

    def unload(self) -> None:
        """Frees everything; called once, last."""


class Steps(Protocol[X_contra, Y_co]):
    """What a session needs of an engine: an `Engine` of this process, or a `RemoteEngine`."""

    def slot(self) -> AbstractAsyncContextManager[int]:
        """A slot with fresh state for as long as the block runs. Raises EngineBusy when none is free."""
        ...

    async def step(self, slot: int, x: X_contra, *, deadline_s: float = 0.0) -> Y_co:
        """Steps one slot. Raises whatever the runner gave for it."""
        ...


class Engine(Generic[X, Y]):
    """Asynchronous front of one runner: slots, batching by deadline, one thread.

    Use it as `async with Engine(runner, name="ears") as engine`.

    Args:
        runner: What it steps.
        name: What messages call it.
        urgent: Whether a step goes before others: given its input, and whether it is the slot's first.
        buckets: Sizes of batches that the runner has static shapes for; none when a batch costs what is in it.

    Attributes:
        load: What its steps took.
    """

    def __init__(
        self,
        runner: Runner[X, Y],
        *,
        name: str,
        urgent: Callable[[X, bool], bool] | None = None,
        buckets: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.load = Load(runner.max_batch)
        self._runner = runner
        self._urgent = urgent
        sizes = buckets or [2**power for power in range((runner.max_batch - 1).bit_length())]
        self._times = StepTimes([*sizes, runner.max_batch])
        self._batcher: Batcher[X] = Batcher(max_batch=runner.max_batch, times=self._times if buckets else None)
        self._unstepped: set[int] = set()
        self._free = list(range(runner.max_slots - 1, -1, -1))
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._futures: dict[int, asyncio.Future[Y]] = {}
        self._releases: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Engine[X, Y]:
        """Starts the thread and loads the runner; raises what `Runner.load` raises."""
        self._loop = asyncio.get_running_loop()
        loaded: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loaded,), name=f"engine-{self.name}", daemon=True)
        self._thread.start()
        try:
            await loaded
        except BaseException:  # also when cancelled while it loads: `__aexit__` is not called then
            self._stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Finishes the step in flight, fails what still waits, and joins the thread."""
        self._stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        for slot in list(self._futures):
            self._deliver(slot, RelayError(f"the {self.name} engine was closed"))

    def _stop(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()

    @property
    def slots_in_use(self) -> int:
        """How many slots are open now."""
        return self._runner.max_slots - len(self._free)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """A slot with fresh state for as long as the block runs. Raises EngineBusy when none is free."""
        if not self._free:
            raise EngineBusy(f"all {self._runner.max_slots} slots of the {self.name} engine are taken; try again later")
        slot = self._free.pop()
        self._unstepped.add(slot)
        try:
            await self._submit(slot, "open", None, 0.0)
        except Exception:  # there is nothing to close
            self._free.append(slot)
            raise
        except asyncio.CancelledError:  # it may still be opened
            await self._let_go(slot)
            raise
        try:
            yield slot
        finally:
            await self._let_go(slot)

    async def step(self, slot: int, x: X, *, deadline_s: float = 0.0) -> Y:
        """Steps one slot. At most one step of a slot may be under way.

        Args:
            slot: An open slot.
            x: Input of this step, of the runner's type.
            deadline_s: When the result is due, on the event loop's clock, which is one clock for all processes of a
                machine; among waiting steps the smallest goes first. 0: at once, and nobody counts if it is late.

        Raises:
            Whatever the runner gave for this slot.
        """
        urgent = self._urgent is not None and self._urgent(x, slot in self._unstepped)
        self._unstepped.discard(slot)
        return await self._submit(slot, "step", x, deadline_s, urgent=urgent)

    async def _let_go(self, slot: int) -> None:
        """Returns a slot to the free list, even when the caller is being cancelled: then it goes on by itself."""
        release = asyncio.create_task(self._release(slot))
        self._releases.add(release)  # the loop holds its tasks weakly
        release.add_done_callback(self._releases.discard)
        await asyncio.shield(release)

    async def _release(self, slot: int) -> None:
        pending = self._futures.get(slot)
        if pending is not None:  # a cancelled step still runs: its state may not be touched before it ends
            await asyncio.wait([pending])
        try:
            if not self._closing:
                await self._submit(slot, "close", None, 0.0)
        except Exception:
            if not self._closing:
                log.exception("closing slot %d of the %s engine failed", slot, self.name)
        finally:
            self._free.append(slot)

    async def _submit(self, slot: int, verb: str, x: X | None, deadline_s: float, *, urgent: bool = False) -> Y:
        if self._closing:
            raise RelayError(f"the {self.name} engine was closed")
        if slot in self._futures:
            raise RuntimeError(f"slot {slot} of the {self.name} engine is being stepped already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Y] = loop.create_future()
        self._futures[slot] = future
        allowed_s = deadline_s - loop.time() if deadline_s else None
        job = Job(slot, verb, x, deadline_s, urgent=urgent, since_s=time.monotonic(), allowed_s=allowed_s)
        with self._wake:
            self._batcher.add(job)
            self._wake.notify()
        # Shielded: cancelling the caller must not lose track of a step that the thread is running.
        return await asyncio.shield(future)

    def _deliver_all(self, batch: Sequence[Job[X]], results: Sequence[Y | BaseException | None]) -> None:
        for job, result in zip(batch, results, strict=True):
            self._deliver(job.slot, result)

    def _deliver(self, slot: int, result: Y | BaseException | None) -> None:
        future = self._futures.pop(slot, None)
        if future is None or future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
            future.exception()  # marks it as seen: the caller may be gone
        else:
            future.set_result(result)  # type: ignore[arg-type]  # `open` and `close` give None to callers that drop it

    def _run(self, loaded: asyncio.Future[None]) -> None:
        assert self._loop is not None
        call = self._loop.call_soon_threadsafe
        try:
            self._runner.load()
        except BaseException as error:
            with contextlib.suppress(RuntimeError):
                call(_settle, loaded, error)
            return
        with contextlib.suppress(RuntimeError):
            call(_settle, loaded, None)
        while True:
            with self._wake:
                while not self._closing and not len(self._batcher):
                    self._wake.wait()
                if self._closing:
                    break
                batch = self._batcher.take()
            results = self._execute(batch)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                call(self._deliver_all, batch, results)
        try:
            self._runner.unload()
        except Exception:
            log.exception("unloading the %s engine failed", self.name)

    def _execute(self, batch: list[Job[X]]) -> Sequence[Y | BaseException | None]:
        try:
            if batch[0].verb == "step":
                begin_s = time.monotonic()
                results = self._runner.step([job.slot for job in batch], [job.x for job in batch])  # type: ignore[misc]
                self._observe(batch, begin_s, time.monotonic())
                if len(results) != len(batch):
                    raise RuntimeError(f"the {self.name} runner gave {len(results)} results for {len(batch)} slots")
                return results
            verb = self._runner.open if batch[0].verb == "open" else self._runner.close
            verb(batch[0].slot)
        except BaseException as error:
            return [error] * len(batch)
        return [None]

    def _observe(self, batch: Sequence[Job[X]], begin_s: float, end_s: float) -> None:
        self._times.observe(len(batch), end_s - begin_s)
        self.load.stepped(end_s, len(batch), end_s - begin_s)
        for job in batch:
            if job.allowed_s is not None:
                late = job.allowed_s <= 0
                self.load.answered(end_s, float("inf") if late else (end_s - job.since_s) / job.allowed_s)


def _settle(loaded: asyncio.Future[None], error: BaseException | None) -> None:
    """Tells who waits for the runner to load; they may have gone."""
    if loaded.done():
        return
    if error is None:
        loaded.set_result(None)
    else:
        loaded.set_exception(error)
