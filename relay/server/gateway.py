"""One gateway of `relay serve --gateways N`: `python -m relay.server.gateway`, started by `gateways`, its job on stdin.

It accepts callers at a socket that it inherits, holds their sessions, and steps the engines of other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from relay import processes
from relay.config import ServerConfig
from relay.engine import remote
from relay.engine.remote import Links
from relay.errors import RelayError, shown
from relay.metrics import Metrics
from relay.server.app import RelayServer
from relay.server.listener import SharedListener
from relay.server.models import keep_for_good


@dataclass(frozen=True, slots=True)
class GatewayJob:
    """What a gateway needs to know.

    Attributes:
        config: The server's settings.
        server_path: Unix socket of the first process, which keeps the seats.
        engine_paths: Those of the processes with engines.
        listener_fd: The listening socket, inherited.
        metrics_dir: Where all gateways keep their counters.
    """

    config: ServerConfig
    server_path: Path
    engine_paths: tuple[Path, ...]
    listener_fd: int
    metrics_dir: Path


async def run(job: GatewayJob) -> None:
    """Takes callers until SIGTERM.

    Raises:
        RelayError: One of the other processes is gone.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(remote.connect(job.server_path))
        engines = [await stack.enter_async_context(remote.connect(path)) for path in job.engine_paths]
        links = Links(server, engines)
        metrics = Metrics(shared_dir=job.metrics_dir)
        listener = SharedListener(job.listener_fd, lambda: gateway.sessions > server.taken / job.config.gateways + 1)
        gateway = RelayServer(job.config, links=links, listener=listener, metrics=metrics)
        await stack.enter_async_context(gateway)
        keep_for_good()
        server.ready()
        stopping, losing = asyncio.create_task(stop.wait()), asyncio.create_task(links.lost())
        await asyncio.wait([stopping, losing], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        losing.cancel()
        if losing.done() and not stop.is_set():
            raise losing.result()


def main() -> int:
    """Runs a gateway; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        asyncio.run(run(processes.read_job(GatewayJob)))
    except RelayError as error:
        print(f"relay: error: gateway: {' '.join(str(error).split())}", file=sys.stderr)
        return shown(error).exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
