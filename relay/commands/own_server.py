"""A server that a command starts for itself, in a process of its own, and stops again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence

from relay.errors import ConnectionFailed
from relay.processes import stop

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
READY = "ready "


@contextlib.asynccontextmanager
async def own_server(environ: Mapping[str, str], flags: Sequence[str] = ()) -> AsyncIterator[str]:
    """Runs `relay serve` on a free port of this machine for as long as the block lasts.

    Args:
        environ: The process's environment.
        flags: Further flags of `serve`.

    Yields:
        Its URL, once it is ready.

    Raises:
        ConnectionFailed: It ended, or did not get ready in time; with the last line that it wrote.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relay", "serve", "--host", "127.0.0.1", "--port", "0", *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environ),
        start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: deque[str] = deque(maxlen=50)
    readers = [asyncio.create_task(_keep(process.stderr, log))]
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on the loop
        loop.add_signal_handler(signal.SIGTERM, task.cancel)  # else the server would outlive us
    try:
        url = await _ready_url(process.stdout, readers[0], log)
        readers.append(asyncio.create_task(_keep(process.stdout, log)))
        yield url
    finally:
        await asyncio.shield(stop(process, STOP_TIMEOUT_S))
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)


async def _ready_url(stdout: asyncio.StreamReader, stderr: asyncio.Task[None], log: deque[str]) -> str:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while line := (await stdout.readline()).decode(errors="replace").strip():
                if line.startswith(READY):
                    return line.removeprefix(READY)
    except TimeoutError:
        raise ConnectionFailed(
            f"the server was not ready within {START_TIMEOUT_S:g} s{_last(log)}; try `relay serve` by itself"
        ) from None
    await asyncio.wait([stderr], timeout=STOP_TIMEOUT_S)  # its last words come through another pipe
    raise ConnectionFailed(f"the server ended before it was ready{_last(log)}; try `relay serve` by itself")


async def _keep(stream: asyncio.StreamReader, log: deque[str]) -> None:
    """Empties a pipe, so that the process never waits for us."""
    while line := await stream.readline():
        if text := line.decode(errors="replace").strip():
            log.append(text)


def _last(log: deque[str]) -> str:
    return f" ({log[-1].removeprefix('relay: error: ')})" if log else ""
