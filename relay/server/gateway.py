"""One gateway of `relay serve --gateways N`: `python -m relay.server.gateway`, started by `gateways`, its job on stdin.

It accepts callers at a socket that it inherits, holds their sessions, and steps the models of the engine process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from relay.config import ServerConfig
from relay.engine import remote
from relay.errors import RelayError, shown
from relay.metrics import Metrics
from relay.server.app import RelayServer
from relay.server.models import keep_for_good


@dataclass(frozen=True, slots=True)
class GatewayJob:
    """What a gateway needs to know.

    Attributes:
        config: The server's settings.
        engine_path: Unix socket of the engine process.
        listener_fd: The listening socket, inherited.
        metrics_dir: Where all gateways keep their counters.
    """

    config: ServerConfig
    engine_path: Path
    listener_fd: int
    metrics_dir: Path


def pack_job(job: GatewayJob) -> bytes:
    """One line for a gateway's stdin: keys do not belong on a command line, which everybody can read."""
    return msgspec.json.encode(job, enc_hook=str) + b"\n"


async def run(job: GatewayJob) -> None:
    """Takes callers until SIGTERM.

    Raises:
        RelayError: The engine process is gone.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        link = await stack.enter_async_context(remote.connect(job.engine_path))
        listener = socket.socket(fileno=job.listener_fd)
        metrics = Metrics(shared_dir=job.metrics_dir)
        await stack.enter_async_context(RelayServer(job.config, link=link, listener=listener, metrics=metrics))
        keep_for_good()
        link.ready()
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(link.lost.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if link.lost.is_set() and not stop.is_set():
            raise RelayError(remote.LOST)


def main() -> int:
    """Runs a gateway; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        job = msgspec.json.decode(sys.stdin.readline(), type=GatewayJob, dec_hook=lambda kind, value: kind(value))
        asyncio.run(run(job))
    except RelayError as error:
        print(f"relay: error: gateway: {' '.join(str(error).split())}", file=sys.stderr)
        return shown(error).exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
