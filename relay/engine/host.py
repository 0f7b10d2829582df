"""The side of a process with engines: it steps them for gateways that connect through a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from relay.engine.engine import Steps
from relay.engine.remote import read_body
from relay.engine.remote_wire import (
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
    failed,
    frame,
    pack,
    unpack,
)

log = logging.getLogger(__name__)
_FRAMES = Frames(Up)


class EngineHost:
    """Lets gateways step engines.

    Args:
        engines: By name; the names are those of `KINDS`.
        welcome: What gateways are told first; an error when there is nothing to step.
        on_ready: Called when a gateway takes callers.
    """

    def __init__(
        self,
        engines: Mapping[str, Steps[Any, Any]],
        welcome: Welcome | Failed,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._engines = engines
        self._welcome = welcome
        self._on_ready = on_ready
        self._gateways: dict[_Gateway, asyncio.Task[None]] = {}
        self._told: Seated | Loads | None = None

    @contextlib.asynccontextmanager
    async def listen(self, at: Path | socket.socket) -> AsyncIterator[None]:
        """Takes gateways at a Unix socket for as long as the block runs; then their connections are closed.

        Args:
            at: Where to make the socket, or one that listens already.
        """
        if isinstance(at, socket.socket):
            server = await asyncio.start_unix_server(self._on_gateway, sock=at)
        else:
            server = await asyncio.start_unix_server(self._on_gateway, at)
        try:
            yield
        finally:
            server.close()
            tasks = list(self._gateways.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def tell(self, message: Seated | Loads) -> None:
        """Tells all gateways, and those that come, how it stands, if that is news."""
        if message != self._told:
            self._told = message
            for gateway in self._gateways:
                gateway.send(message)

    async def _on_gateway(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gateway = _Gateway(self._engines, writer, self._on_ready)
        task = asyncio.current_task()
        assert task is not None
        self._gateways[gateway] = task
        try:
            gateway.send(self._welcome)
            if self._told is not None:
                gateway.send(self._told)
            await gateway.run(reader)
        except FrameError as error:
            log.error("a gateway is cut off: %s", error)
        except asyncio.CancelledError:  # we are closing; a task of a stream server that ends cancelled is an error
            pass
        finally:
            del self._gateways[gateway]
            writer.close()


class _Gateway:
    """One gateway: its open slots, and its requests under way."""

    def __init__(
        self, engines: Mapping[str, Steps[Any, Any]], writer: asyncio.StreamWriter, on_ready: Callable[[], None]
    ) -> None:
        self._engines = engines
        self._writer = writer
        self._on_ready = on_ready
        self._slots: dict[tuple[str, int], contextlib.AsyncExitStack] = {}
        self._requests: set[asyncio.Task[None]] = set()

    def send(self, message: Down) -> None:
        """Sends a message, unless the gateway is gone."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Answers until the gateway is gone, then frees its slots. Raises FrameError for what is no message."""
        try:
            while (body := await read_body(reader)) is not None:
                message: Up = _FRAMES.decode(body)
                if isinstance(message, Ready):
                    self._on_ready()
                    continue
                task = asyncio.create_task(self._answer(message))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
        finally:
            requests = list(self._requests)
            for task in requests:
                task.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
            # One by one and whatever happens: a slot's end waits for its step under way.
            stacks = list(self._slots.values())
            self._slots.clear()
            for outcome in await asyncio.gather(*(stack.aclose() for stack in stacks), return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a slot of a lost gateway was not freed: %r", outcome)

    async def _answer(self, message: Open | Step | Close) -> None:
        try:
            answer: Down = Result(message.id, pack(await self._do(message)))
            frame(answer)
        except Exception as error:
            answer = failed(message.id, error)
        self.send(answer)

    async def _do(self, message: Open | Step | Close) -> object:
        engine = self._engines.get(message.engine)
        if engine is None:
            raise FrameError(f"there is no engine {message.engine!r}")
        match message:
            case Open():
                stack = contextlib.AsyncExitStack()
                slot = await stack.enter_async_context(engine.slot())
                self._slots[message.engine, slot] = stack
                return slot
            case Step(slot=slot, x=x, deadline_s=deadline_s):
                if (message.engine, slot) not in self._slots:
                    raise RuntimeError(f"slot {slot} of the {message.engine} engine is not open")
                return await engine.step(slot, unpack(x, KINDS[message.engine][0]), deadline_s=deadline_s)
            case Close(slot=slot):
                open_slot = self._slots.pop((message.engine, slot), None)
                if open_slot is None:
                    raise RuntimeError(f"slot {slot} of the {message.engine} engine is not open")
                await open_slot.aclose()
        return None
