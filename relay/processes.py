"""Child processes, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal


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
