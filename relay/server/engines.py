"""The processes with the engines of `relay serve --gateways N`, as the first process sees them.

Engines of one process share an interpreter lock with each other and with the loop that talks to the gateways: under
many callers each waits for the rest. In processes of their own (`relay.server.engine`) they do not. Each is reached at
a Unix socket, by the gateways and by the first process, which asks what is loaded and how near its limit it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay import processes
from relay.config import ServerConfig
from relay.engine import remote
from relay.engine.remote import EngineLink, RemoteLoad
from relay.errors import EngineUnavailable
from relay.server.engine import EngineJob
from relay.server.models import groups, label

_STOP_TIMEOUT_S = 8.0


class EngineProcesses:
    """Runs them for as long as the block lasts: `async with EngineProcesses(config, environ, folder) as engines`.

    Args:
        config: The server's settings.
        environ: Their environment.
        folder: Folder for their sockets, which nobody else can enter.

    Attributes:
        paths: Their Unix sockets, once all have loaded.
        capacity: How many sessions they are for.
        denoiser_delay_s: By how much noise suppression is late.
        loads: Of all engines, by what people call them.
    """

    def __init__(self, config: ServerConfig, environ: Mapping[str, str], folder: Path) -> None:
        self.paths: list[Path] = []
        self.capacity = 0
        self.denoiser_delay_s = 0.0
        self.loads: dict[str, RemoteLoad] = {}
        self._config = config
        self._environ = environ
        self._folder = folder
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> EngineProcesses:
        """Starts them and waits until all have loaded.

        Raises:
            EngineUnavailable, WeightsError, UsageError: A model cannot run here.
            ConnectionFailed: A process has ended; its log says why.
        """
        async with contextlib.AsyncExitStack() as stack:
            running: list[asyncio.Task[None]] = []
            stack.push_async_callback(_end, running)
            for parts in groups(self._config):
                name = parts[0] if len(parts) == 1 else "engine"
                listener = socket.socket(socket.AF_UNIX)
                path = self._folder / name
                listener.bind(str(path))
                listener.listen()  # it can be connected to from now on, and answers once it has loaded
                running.append(asyncio.create_task(self._run(name, parts, listener)))
                self.paths.append(path)
            for path in self.paths:
                self._take(await stack.enter_async_context(remote.connect(path)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Ends them."""
        await self._stack.aclose()

    async def ended(self) -> None:
        """Waits until one has ended by itself. Raises EngineUnavailable, which says so."""
        raise EngineUnavailable(await asyncio.shield(self._ended))

    def _take(self, link: EngineLink) -> None:
        welcome = link.welcome
        self.capacity = welcome.capacity or self.capacity
        self.denoiser_delay_s = max(welcome.denoiser_delay_s, self.denoiser_delay_s)
        self.loads |= {label(name): RemoteLoad(link, label(name)) for name in welcome.engines}

    async def _run(self, name: str, parts: tuple[str, ...], listener: socket.socket) -> None:
        """Runs one to its end."""
        with contextlib.closing(listener):
            job, fds = EngineJob(self._config, parts, listener.fileno()), [listener.fileno()]
            try:
                async with processes.child(
                    "relay.server.engine", job, self._environ, fds, stop_timeout_s=_STOP_TIMEOUT_S
                ) as process:
                    listener.close()  # it is the process's alone now: when that ends, connections to it do
                    status: object = await process.wait()
            except OSError as error:
                status = error.strerror or error
        if not self._ended.done():
            self._ended.set_result(f"the {name} process has ended ({status}); see its log, and start the server again")


async def _end(running: Sequence[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
