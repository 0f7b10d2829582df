"""Single keys from the terminal, for push-to-talk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from relay.errors import UsageError


@contextlib.contextmanager
def _unbuffered(terminal: Any) -> Iterator[None]:
    """Keys come one by one and are not echoed; Ctrl-C still interrupts."""
    import termios  # absent on Windows, where keys come one by one anyway
    import tty

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


async def pressed() -> AsyncIterator[str]:
    """Every key that is pressed, as a character. Raises UsageError when there is no terminal to press them in."""
    terminal = sys.stdin
    if not terminal.isatty():
        raise UsageError("--push-to-talk needs a terminal; run it in one, or leave it out")
    loop = asyncio.get_running_loop()
    keys: asyncio.Queue[str] = asyncio.Queue()
    if sys.platform == "win32":
        import msvcrt

        while True:
            while msvcrt.kbhit():
                yield msvcrt.getwch()
            await asyncio.sleep(0.02)  # the console tells nobody that a key was pressed

    def read() -> None:  # around Python's own buffer, in which keys would wait for the next one
        for key in os.read(terminal.fileno(), 64).decode(errors="ignore"):
            keys.put_nowait(key)

    with _unbuffered(terminal):
        loop.add_reader(terminal, read)
        try:
            while True:
                yield await keys.get()
        finally:
            loop.remove_reader(terminal)
