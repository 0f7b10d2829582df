"""Child processes: how they are started with a job, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")


@contextlib.asynccontextmanager
async def child(
    module: str, job: object, environ: Mapping[str, str], fds: Sequence[int] = (), *, stop_timeout_s: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs `python -m module` for as long as the block lasts; then it is ended.

    Args:
        module: Module to run; it gets its job with `read_job`.
        job: What it is to do, as a dataclass.
        environ: Its environment.
        fds: Files that it inherits.
        stop_timeout_s: How long it may take to end.

    Raises:
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env=dict(environ),
        pass_fds=fds,
        start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order
    )
    try:
        assert process.stdin is not None
        # A job does not go on the command line, which everybody can read: it has keys in it.
        process.stdin.write(msgspec.json.encode(job, enc_hook=str) + b"\n")
        yield process
    finally:
        await asyncio.shield(stop(process, stop_timeout_s))


def read_job(kind: type[T]) -> T:
    """The job of this process, a `child`. Its stdin stays open until whoever started it is gone."""
    return msgspec.json.decode(sys.stdin.readline(), type=kind, dec_hook=lambda kind, value: kind(value))


async def stop(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    """Asks a process to end, and ends it when it has not done so in time. Returns when it is gone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
