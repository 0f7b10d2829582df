"""A gateway's side of the engine process: engines of another process, with the interface of `Engine`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from relay.engine.remote_wire import (
    HEADER,
    KINDS,
    Close,
    Down,
    Failed,
    FrameError,
    Frames,
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
LOST = "the engine process has ended; see its log, and start the server again"


async def read_body(reader: asyncio.StreamReader) -> bytes | None:
    """The body of the next frame; None when the other side is gone. Raises FrameError for one that is too large."""
    try:
        return await reader.readexactly(body_bytes(await reader.readexactly(HEADER.size)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class EngineLink:
    """The connection to the engine process; made by `connect`. All engines and all sessions share it.

    Nothing is queued without bound: a slot has one request under way.

    Attributes:
        welcome: What the engine process said of itself.
        taken: Sessions over all gateways, as last told.
        refusal: Why nobody else is let in, as last told; None when somebody is.
        loads: How much each engine is used, as last told.
        lost: Set when the engine process is gone: then every request fails.
    """

    def __init__(self, writer: asyncio.StreamWriter, welcome: Welcome) -> None:
        self.welcome = welcome
        self.taken = 0
        self.refusal: str | None = None
        self.loads: dict[str, float] = {}
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
            RelayError: The engine process is gone.
            FrameError: The request is too large.
        """
        if self.lost.is_set():
            raise RelayError(LOST)
        number = next(self._ids)
        self._writer.write(frame(request(number)))
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._futures[number] = future
        return future

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Takes what comes, until the engine process is gone."""
        try:
            while (body := await read_body(reader)) is not None:
                self._take(_FRAMES.decode(body))
        finally:
            self.lost.set()
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(RelayError(LOST))
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
                self.taken, self.refusal, self.loads = message.taken, message.refusal, message.loads
            case Welcome():
                raise FrameError("a second welcome")


@contextlib.asynccontextmanager
async def connect(path: Path) -> AsyncIterator[EngineLink]:
    """Connects to the engine process that listens on a Unix socket.

    Raises:
        ConnectionFailed: There is none, or it is gone before it has said what it is.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise ConnectionFailed(f"no engine process at {path} ({error.strerror or error})") from error
    try:
        body = await read_body(reader)
        welcome = None if body is None else _FRAMES.decode(body)
        if not isinstance(welcome, Welcome):
            raise ConnectionFailed(LOST)
        link = EngineLink(writer, welcome)
        following = asyncio.create_task(link.follow(reader))
        try:
            yield link
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        writer.close()


class RemoteEngine(Generic[X, Y]):
    """An engine of the engine process, as sessions see it: see `Engine`.

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
        """As `Engine.slot`. Raises RelayError also when the engine process is gone."""
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
        """As `Engine.step`. Raises RelayError also when the engine process is gone."""
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
        with contextlib.suppress(RelayError):  # the engine process is gone, and the slot with it
            await self._link.ask(lambda number: Close(number, self.name, slot))


def _seen(future: asyncio.Future[msgspec.Raw]) -> None:
    """Marks an error as seen: the caller may be gone."""
    if not future.cancelled():
        future.exception()
