"""A gateway's side: engines of other processes, with the interface of `Engine`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from relay.engine.load import Measures
from relay.engine.remote_wire import (
    HEADER,
    KINDS,
    Close,
    Down,
    Failed,
    FrameError,
    Frames,
    Loads,
    Open,
    Ready,
    Result,
    Seated,
    Step,
    Up,
    Welcome,
    body_bytes,
    error_of,
    frame,
    pack,
    unpack,
)
from relay.errors import ConnectionFailed, RelayError

X = TypeVar("X")
Y = TypeVar("Y")
_FRAMES = Frames(Down)


async def read_body(reader: asyncio.StreamReader) -> bytes | None:
    """The body of the next frame; None when the other side is gone. Raises FrameError for one that is too large."""
    try:
        return await reader.readexactly(body_bytes(await reader.readexactly(HEADER.size)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class EngineLink:
    """The connection to a process with engines; made by `connect`. All its engines and all sessions share it.

    Nothing is queued without bound: a slot has one request under way.

    Args:
        name: What messages call the process.
        writer: Writes to it.
        welcome: What it said of itself.

    Attributes:
        welcome: What the process said of itself.
        taken: Sessions over all gateways, as last told.
        refusal: Why nobody else is let in, as last told; None when somebody is.
        loads: How near each engine is to its limit, as last told.
        lost: Set when the process is gone: then every request fails.
    """

    def __init__(self, name: str, writer: asyncio.StreamWriter, welcome: Welcome) -> None:
        self.welcome = welcome
        self._name = name
        self.taken = 0
        self.refusal: str | None = None
        self.loads: dict[str, Measures] = {}
        self.lost = asyncio.Event()
        self._writer = writer
        self._ids = itertools.count()
        self._futures: dict[int, asyncio.Future[msgspec.Raw]] = {}

    def engine(self, name: str) -> RemoteEngine[Any, Any]:
        """One of `welcome.engines`, or `seats`."""
        return RemoteEngine(self, name)

    def ready(self) -> None:
        """Tells that this gateway takes callers."""
        self._writer.write(frame(Ready()))

    def ask(self, request: Callable[[int], Up]) -> asyncio.Future[msgspec.Raw]:
        """Sends a request that is made with its number; the future gets its result.

        Raises:
            RelayError: The process is gone.
            FrameError: The request is too large.
        """
        if self.lost.is_set():
            raise self.loss()
        number = next(self._ids)
        self._writer.write(frame(request(number)))
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._futures[number] = future
        return future

    def loss(self) -> RelayError:
        """What there is to say when the process is gone."""
        return RelayError(_lost(self._name))

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Takes what comes, until the process is gone."""
        try:
            while (body := await read_body(reader)) is not None:
                self._take(_FRAMES.decode(body))
        finally:
            self.lost.set()
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(self.loss())
            self._futures.clear()

    def _take(self, message: Down) -> None:
        match message:
            case Result(id=number, y=y):
                future = self._futures.pop(number)
                if not future.done():
                    future.set_result(msgspec.Raw(bytes(y)))  # a copy: the frame is not kept for it
            case Failed(id=number):
                future = self._futures.pop(number)
                if not future.done():
                    future.set_exception(error_of(message))
            case Seated():
                self.taken, self.refusal = message.taken, message.refusal
            case Loads():
                self.loads = message.loads
            case Welcome():
                raise FrameError("a second welcome")


@contextlib.asynccontextmanager
async def connect(path: Path) -> AsyncIterator[EngineLink]:
    """Connects to the process with engines that listens on a Unix socket, and waits until it has said what it is.

    Raises:
        ConnectionFailed: There is none, or it is gone before it has said what it is.
        RelayError: What it said is why it cannot step its engines: an error of the class that it had there.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise ConnectionFailed(f"no {path.name} process at {path} ({error.strerror or error})") from error
    try:
        body = await read_body(reader)
        welcome = None if body is None else _FRAMES.decode(body)
        if isinstance(welcome, Failed):
            raise error_of(welcome)
        if not isinstance(welcome, Welcome):
            raise ConnectionFailed(_lost(path.name))
        link = EngineLink(path.name, writer, welcome)
        following = asyncio.create_task(link.follow(reader))
        try:
            yield link
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        writer.close()


class Links:
    """All that a gateway is connected to.

    Args:
        server: The first process, which keeps the seats.
        engines: The processes with engines.

    Attributes:
        server: The first process, which keeps the seats.
        names: Of all engines.
    """

    def __init__(self, server: EngineLink, engines: Sequence[EngineLink]) -> None:
        self.server = server
        self._engines = {name: link for link in engines for name in link.welcome.engines}
        self.names = sorted(self._engines)

    def engine(self, name: str) -> RemoteEngine[Any, Any]:
        """One of `names`."""
        return self._engines[name].engine(name)

    def used(self) -> dict[str, float]:
        """How much each engine is used, as last told."""
        return {name: load.used for link in self._engines.values() for name, load in link.loads.items()}

    async def lost(self) -> RelayError:
        """Waits until one of the processes is gone; returns what there is to say of it.

        The first process comes first: without it the others end too, and at once.
        """
        links = [self.server, *self._engines.values()]
        waiting = [asyncio.create_task(link.lost.wait()) for link in links]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return next(link.loss() for link in links if link.lost.is_set())


class RemoteLoad:
    """The load of an engine of another process, as last told.

    Args:
        link: The connection.
        name: What the process calls it.
    """

    def __init__(self, link: EngineLink, name: str) -> None:
        self._link = link
        self._name = name

    def measures(self, now_s: float) -> Measures:
        """As `Load.measures`."""
        return self._link.loads.get(self._name, Measures())


class RemoteEngine(Generic[X, Y]):
    """An engine of another process, as sessions see it: see `Engine`.

    Args:
        link: The connection.
        name: Its name there.
    """

    def __init__(self, link: EngineLink, name: str) -> None:
        self.name = name
        self._link = link
        self._output = KINDS[name][1]
        self._pending: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._releases: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """As `Engine.slot`. Raises RelayError also when its process is gone."""
        opening = self._link.ask(lambda number: Open(number, self.name))
        try:
            slot: int = unpack(await asyncio.shield(opening), int)
        except asyncio.CancelledError:  # it may still be opened
            opening.add_done_callback(self._abandon)
            raise
        try:
            yield slot
        finally:
            await asyncio.shield(self._let_go(slot))

    async def step(self, slot: int, x: X, *, deadline_s: float = 0.0) -> Y:
        """As `Engine.step`. Raises RelayError also when its process is gone."""
        if slot in self._pending:
            raise RuntimeError(f"slot {slot} of the {self.name} engine is being stepped already")
        packed = pack(x)
        future = self._link.ask(lambda number: Step(number, self.name, slot, packed, deadline_s))
        self._pending[slot] = future
        future.add_done_callback(lambda _: self._pending.pop(slot, None))
        # Shielded: cancelling the caller must not lose track of a step that is under way.
        y: Y = unpack(await asyncio.shield(future), self._output)
        return y

    def _abandon(self, opening: asyncio.Future[msgspec.Raw]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._let_go(unpack(opening.result(), int))

    def _let_go(self, slot: int) -> asyncio.Task[None]:
        """Gives a slot back, even when the caller is being cancelled: then it goes on by itself."""
        release = asyncio.create_task(self._release(slot))
        self._releases.add(release)  # the loop holds its tasks weakly
        release.add_done_callback(self._releases.discard)
        return release

    async def _release(self, slot: int) -> None:
        pending = self._pending.get(slot)
        if pending is not None:  # a cancelled step still runs: the slot may not be closed before it ends
            await asyncio.wait([pending])
        with contextlib.suppress(RelayError):  # its process is gone, and the slot with it
            await self._link.ask(lambda number: Close(number, self.name, slot))


def _seen(future: asyncio.Future[msgspec.Raw]) -> None:
    """Marks an error as seen: the caller may be gone."""
    if not future.cancelled():
        future.exception()


def _lost(name: str) -> str:
    return f"the {name} process has ended; see its log, and start the server again"
