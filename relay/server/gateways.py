"""`relay serve --gateways N`: this process starts the others, counts the sessions, and ends when one cannot be spared.

The models run in processes of their own (`engines`); N gateways (`gateway`) hold the sockets and the sessions, on one
port. The listening socket is opened here and inherited by them, and they share the callers (`listener`). They step the
models, and take their seats here, through Unix sockets in a folder that only this user can enter. A gateway that dies
takes its sessions with it and nothing else: its slots are freed, and another takes its place. When a process with
models dies, or this one, all end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from relay import processes
from relay.config import ServerConfig
from relay.engine.host import EngineHost
from relay.engine.load import Admission
from relay.engine.remote_wire import Seated, Welcome
from relay.errors import ConfigError, EngineUnavailable
from relay.server.admission import SeatEngine, Seats, deciding
from relay.server.app import tls_context, url_of
from relay.server.engines import EngineProcesses
from relay.server.gateway import GatewayJob
from relay.server.listener import BACKLOG
from relay.server.models import keep_for_good

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 8.0
RESTART_DELAY_S = 1.0
_WATCH_S = 0.25
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Environment of all processes, where the user has not set it otherwise; torch, MKL and the OpenBLAS of NumPy go by it.
What they compute on the host are small products, again and again: with a thread for each core, in each library of each
process, most of the time goes into threads that wait for one another, and no core is left for the others' work."""


async def serve_with_gateways(
    config: ServerConfig, environ: Mapping[str, str], on_ready: Callable[[str], None]
) -> None:
    """Serves until it is cancelled (asyncio does so on Ctrl-C) or gets SIGTERM.

    Args:
        config: Settings, `gateways` of them at least 1.
        environ: Environment of the other processes.
        on_ready: Gets the URL once all gateways take callers.

    Raises:
        ConfigError: The port is taken, the certificate does not load, or this system cannot do it.
        EngineUnavailable, WeightsError: A model cannot run here, a gateway did not start, or a process with models has
            ended.
        ConnectionFailed: A process with models has ended before all had loaded.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Gateways(config, environ) as gateways:
        keep_for_good()
        on_ready(gateways.url)
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(gateways.broken())]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        for end in done:
            end.result()


class Gateways:
    """All other processes: `async with Gateways(config, environ) as gateways`.

    Args:
        config: Settings.
        environ: Their environment.

    Attributes:
        url: Where the server is reached.
    """

    def __init__(self, config: ServerConfig, environ: Mapping[str, str]) -> None:
        self.url = ""
        self._config = config
        self._environ = _ONE_THREAD | dict(environ)
        self._ready = 0
        self._changed = asyncio.Event()
        self._started = self._failed = False
        self._engines: EngineProcesses
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Gateways:
        """Starts the models, opens the port, and starts the gateways; raises as `serve_with_gateways`."""
        if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
            raise ConfigError("--gateways needs Unix sockets, which this system has not; leave it out")
        tls_context(self._config)  # what is wrong with it is said once, before anything is loaded
        async with contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-")))  # mode 0700
            (folder / "metrics").mkdir()
            engines = EngineProcesses(self._config, self._environ, folder)
            self._engines = await stack.enter_async_context(engines)
            host, watch = self._host(engines)
            await stack.enter_async_context(host.listen(folder / "server"))
            watching = asyncio.create_task(watch())
            stack.callback(watching.cancel)
            listener = stack.enter_context(await _listen(self._config))
            paths = folder / "server", tuple(engines.paths)
            job = GatewayJob(self._config, *paths, listener.fileno(), folder / "metrics")
            await stack.enter_async_context(self._run(job))
            await self._until_ready()
            self.url = url_of(self._config, listener.getsockname()[1])
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Ends the gateways, which say goodbye to their clients, and then the models."""
        await self._stack.aclose()

    async def broken(self) -> None:
        """Waits until a process with models has ended. Raises EngineUnavailable then."""
        await self._engines.ended()

    def _host(self, engines: EngineProcesses) -> tuple[EngineHost, Callable[[], Coroutine[Any, Any, None]]]:
        """What lends seats to the gateways, and what tells them how it stands, until it is cancelled."""
        welcome = Welcome(["seats"], engines.capacity, engines.denoiser_delay_s)
        loads = deciding(engines.loads, self._config.path)
        admission = Admission(loads, max_share=self._config.max_load_percent / 100)

        def tell(taken: int) -> None:
            host.tell(Seated(taken, seats.refusal()))

        async def watch() -> None:
            while True:
                await asyncio.sleep(_WATCH_S)
                tell(seats.taken)

        seats = Seats(engines.capacity, admission, tell)
        host = EngineHost({"seats": SeatEngine(seats)}, welcome, self._on_ready)
        return host, watch

    def _on_ready(self) -> None:
        self._ready += 1
        self._changed.set()

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while self._ready < self._config.gateways:
                    self._changed.clear()
                    await self._changed.wait()
                    if self._failed:
                        raise EngineUnavailable("a gateway ended before it was ready; its error is above")
        except TimeoutError:
            raise EngineUnavailable(
                f"the gateways were not ready within {START_TIMEOUT_S:g} s; try fewer with --gateways"
            ) from None
        self._started = True

    @contextlib.asynccontextmanager
    async def _run(self, job: GatewayJob) -> AsyncIterator[None]:
        """Keeps the gateways running."""
        keepers = [asyncio.create_task(self._keep(job)) for _ in range(self._config.gateways)]
        try:
            yield
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, job: GatewayJob) -> None:
        """Runs one gateway, and another when it ends; if that is before all were ready, the server does not start."""
        while True:
            try:
                status: object = await self._one(job)
            except OSError as error:
                status = error.strerror or error
            if not self._started:
                self._failed = True
                self._changed.set()
                return
            log.error("a gateway ended (%s); its sessions are lost, and another takes its place", status)
            await asyncio.sleep(RESTART_DELAY_S)

    async def _one(self, job: GatewayJob) -> int:
        """Runs a gateway to its end; returns its exit status."""
        environ = self._environ | {"PROMETHEUS_MULTIPROC_DIR": str(job.metrics_dir)}
        fds, process = [job.listener_fd], None
        try:
            async with processes.child(
                "relay.server.gateway", job, environ, fds, stop_timeout_s=STOP_TIMEOUT_S
            ) as process:
                return await process.wait()
        finally:
            if process is not None:
                mark_process_dead(process.pid, str(job.metrics_dir))  # type: ignore[no-untyped-call]


async def _listen(config: ServerConfig) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.host}:{config.port} ({error.strerror or error}); choose another --port"
        ) from error
