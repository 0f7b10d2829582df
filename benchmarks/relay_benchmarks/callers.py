"""A process full of callers, for the benchmark of whole dialogues: `python -m relay_benchmarks.callers`.

It is told what to do on stdin, one JSON line (`Job`), says `ready` on stdout when all its callers are connected, begins
at the next line, and answers with one JSON line (`Held` or `Knocked`). Callers are in processes of their own so that
neither their pacing nor their sockets take time from the server's event loop, or from its interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidStatus

from relay.client.dial import realtime_url
from relay.client.realtime import Client, connect
from relay.errors import RelayError
from relay_benchmarks.caller import converse
from relay_benchmarks.latency import PlannedTurn, hold, plan
from relay_benchmarks.summary import TurnResult

BLOCK_MS = 20
POOL_TURNS = 120
"""Turns that a process synthesises; callers begin at different ones and come round again."""
SPREAD_S = 4.0
"""Callers begin within so much time, or all would speak at once."""
CONNECT_AT_ONCE = 8
CONNECT_TIMEOUT_S = 60.0


class Job(msgspec.Struct, frozen=True):
    """What a process does.

    Attributes:
        url: The server.
        callers: How many dialogues it holds; 0: it knocks.
        seconds: How long callers begin new turns, or over how long the knocks are spread.
        seed: Of what is said and of the noise.
        silence_ms: Pause that ends a turn, as the callers ask for it; None: the server's own.
        knocks: How often it asks a full server for a session.
    """

    url: str
    callers: int
    seconds: float
    seed: int
    silence_ms: int | None = None
    knocks: int = 0


class Held(msgspec.Struct, frozen=True):
    """What came of the dialogues of a process.

    Attributes:
        turns: Every turn, of all callers.
        failures: Why callers could not go on, one line each.
        late_ms: The most that each caller's own clock was late: what is measured is worth no more than that.
    """

    turns: list[TurnResult]
    failures: list[str]
    late_ms: list[float]


class Knock(msgspec.Struct, frozen=True):
    """One attempt at a full server.

    Attributes:
        at_s: When it began, on the event loop's clock.
        ms: From opening the socket to the answer.
        status: HTTP status of the answer; 101 when it was let in; 0 when there was none.
        code: Error code of the answer.
    """

    at_s: float
    ms: float
    status: int
    code: str


class Knocked(msgspec.Struct, frozen=True):
    """What came of all knocks of a process."""

    knocks: list[Knock]


async def knock(url: str) -> Knock:
    """Asks for a session once, and leaves at once if it gets one."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    status, code = 101, ""
    try:
        async with open_websocket(realtime_url(url, "relay"), compression=None, proxy=None):
            pass
    except InvalidStatus as error:
        status, code = error.response.status_code, _code(bytes(error.response.body or b""))
    except (OSError, EOFError, TimeoutError) as error:
        status, code = 0, type(error).__name__
    return Knock(round(begin_s, 4), round((loop.time() - begin_s) * 1000, 2), status, code)


def _code(body: bytes) -> str:
    with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
        return str(msgspec.json.decode(body)["error"]["code"])
    return ""


async def _knocks(job: Job) -> Knocked:
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    knocks = []
    for number in range(job.knocks):
        await asyncio.sleep(begin_s + number * job.seconds / job.knocks - loop.time())
        knocks.append(await knock(job.url))
    return Knocked(knocks)


class _Callers:
    """All callers of this process: connected first, then talking, and in their sessions until the last has finished."""

    def __init__(self, job: Job, planned: Sequence[PlannedTurn]) -> None:
        self._job = job
        self._planned = planned
        self._rng = np.random.default_rng([job.seed, 2])
        self._talking = job.callers
        self._begin = asyncio.Event()
        self._over = asyncio.Event()
        self._dialling = asyncio.Semaphore(CONNECT_AT_ONCE)
        self._unconnected = job.callers
        self.connected = asyncio.Event()
        self.turns: list[TurnResult] = []
        self.failures: list[str] = []
        self.late_ms: list[float] = []

    def begin(self) -> None:
        """Everybody is connected: talk."""
        self._begin.set()

    async def caller(self, number: int) -> None:
        """One caller's whole time."""
        delay_s = float(self._rng.uniform(0, min(SPREAD_S, self._job.seconds / 4)))
        async with contextlib.AsyncExitStack() as stack:
            try:
                client = await self._connect(stack)
                await self._begin.wait()
                await self._talk(client, number, delay_s)
            except RelayError as error:
                self.failures.append(str(error))
            finally:
                self._talking -= 1
                if not self._talking:
                    self._over.set()
            await self._over.wait()  # a seat that is given up would let a knocking caller in

    async def _connect(self, stack: contextlib.AsyncExitStack) -> Client:
        try:
            async with self._dialling:
                return await stack.enter_async_context(connect(self._job.url, open_timeout_s=CONNECT_TIMEOUT_S))
        finally:
            self._unconnected -= 1
            if not self._unconnected:
                self.connected.set()

    async def _talk(self, client: Client, number: int, delay_s: float) -> None:
        if self._job.silence_ms is not None:
            detection = {"type": "server_vad", "silence_duration_ms": self._job.silence_ms}
            await client.update({"audio": {"input": {"turn_detection": detection}}})
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._job.seconds
        await asyncio.sleep(delay_s)

        def turns() -> Iterator[PlannedTurn]:
            at = number * 7
            while loop.time() < end_s:
                yield self._planned[at % len(self._planned)]
                at += 1

        work = partial(hold, turns=turns(), add=self.turns.append)
        card = await converse(client, work, room_seed=self._job.seed + number % 4, block_ms=BLOCK_MS)
        self.late_ms.append(round(card.latest_ms, 2))


async def _hold(job: Job) -> Held:
    planned = await asyncio.to_thread(plan, min(POOL_TURNS, max(24, job.callers * 4)), job.seed)
    callers = _Callers(job, planned)
    async with asyncio.TaskGroup() as tasks:
        for number in range(job.callers):
            tasks.create_task(callers.caller(number))
        await callers.connected.wait()
        await _started()
        callers.begin()
    return Held(callers.turns, callers.failures, callers.late_ms)


async def _started() -> None:
    """Says that this process is ready, and waits for the word to begin."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _main() -> None:
    job = msgspec.json.decode(sys.stdin.readline(), type=Job)
    if job.callers:
        result: Held | Knocked = await _hold(job)
    else:
        await _started()
        result = await _knocks(job)
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
