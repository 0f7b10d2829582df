"""A process with engines of `relay serve --gateways N`: `python -m relay.server.engine`, started by `engines`.

It gets its job on stdin, loads its models, and steps them for whoever connects to the Unix socket that it inherits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass

from relay import processes
from relay.config import ServerConfig
from relay.engine.host import EngineHost
from relay.engine.load import Measures
from relay.engine.remote_wire import Loads, Welcome, failed
from relay.errors import RelayError
from relay.server.models import Started, keep_for_good, start

_TELL_S = 0.25


@dataclass(frozen=True, slots=True)
class EngineJob:
    """What a process with engines needs to know.

    Attributes:
        config: The server's settings.
        parts: Those of `relay.server.models.PARTS` that run here.
        listener_fd: The Unix socket at which it is reached, inherited.
    """

    config: ServerConfig
    parts: tuple[str, ...]
    listener_fd: int


async def run(job: EngineJob) -> None:
    """Steps engines until SIGTERM, or until the process that started this one is gone."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def orphaned() -> None:  # nothing is written after the job: what can be read is the end
        loop.remove_reader(sys.stdin)
        stop.set()

    loop.add_reader(sys.stdin, orphaned)
    serving, stopping = asyncio.create_task(_serve(job)), asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve(job: EngineJob) -> None:
    listener = socket.socket(fileno=job.listener_fd)
    async with contextlib.AsyncExitStack() as stack:
        try:
            started = await start(job.config, job.parts, stack)
        except RelayError as error:  # it is for whoever connects to say so
            async with EngineHost({}, failed(0, error)).listen(listener):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            os._exit(0)  # a thread still loads: if the interpreter ended beneath it, its libraries would abort, loudly
        welcome = Welcome(sorted(started.engines), started.capacity, started.denoiser_delay_s)
        host = EngineHost(started.engines, welcome)
        await stack.enter_async_context(host.listen(listener))
        keep_for_good()
        while True:
            host.tell(_loads(started))
            await asyncio.sleep(_TELL_S)


def _loads(started: Started) -> Loads:
    """Rounded, so that it is no news when nothing happens."""
    now_s, loads = time.monotonic(), {}
    for name, load in started.loads.items():
        now = load.measures(now_s)
        loads[name] = Measures(round(now.used, 3), round(now.busy, 3), now.deadline_share)
    return Loads(loads)


def main() -> int:
    """Runs a process with engines; returns its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(run(processes.read_job(EngineJob)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
