"""The writing half of a connection: what is queued for the client goes out in order, and a client must read."""

from __future__ import annotations

import asyncio

from relay.errors import SlowReader
from relay.services import Recorder, Transport
from relay.wire.realtime import RealtimeProtocol


class Writer:
    """Sends what the protocol has queued.

    Args:
        transport: The connection.
        protocol: Has the frames.
        recorder: Keeps the events, if anything does.
        timeout_s: How long one message may wait to be sent.
    """

    def __init__(
        self, transport: Transport, protocol: RealtimeProtocol, recorder: Recorder | None, timeout_s: float
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._recorder = recorder
        self._timeout_s = timeout_s
        self._queued = asyncio.Event()
        self._drained = asyncio.Event()

    def flush(self) -> None:
        """Lets what is queued be sent."""
        if self._protocol.has_outgoing:
            self._queued.set()

    async def drained(self) -> None:
        """Waits until all that is queued has been sent."""
        while self._queued.is_set():
            self._drained.clear()
            await self._drained.wait()

    async def run(self) -> None:
        """Runs until cancelled. Raises SlowReader when the client does not read."""
        while True:
            await self._queued.wait()
            for frame in self._protocol.outgoing():
                try:
                    async with asyncio.timeout(self._timeout_s):
                        await self._transport.send(frame)
                except TimeoutError:
                    raise SlowReader("the client does not read what it is sent") from None
                if self._recorder is not None and isinstance(frame, str):
                    self._recorder.event(frame, "server")
            if not self._protocol.has_outgoing:
                self._queued.clear()
                self._drained.set()
