"""One listening socket for several processes, so that each gets its share of the callers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

BACKLOG = 1024
"""Newcomers that may wait at the socket."""
_WAIT_S = 0.02
_FORGET_S = 0.01


class SharedListener(socket.socket):
    """A listening socket that this process has inherited, as others have.

    All are woken for a newcomer, and the first to ask gets it: mostly the same one, as the system wakes them in one
    order. So whoever holds more than its share asks a moment later, when nobody else has taken the newcomer.

    Args:
        fd: Of the socket; it belongs to this object from now on.
        has_more: Whether this process holds more than its share.
        clock: Seconds.
    """

    def __init__(self, fd: int, has_more: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(fileno=fd)
        self._has_more = has_more
        self._clock = clock
        self._since_s = self._last_s = float("-inf")

    def listen(self, backlog: int = 0, /) -> None:
        """Listens, whatever the backlog: asyncio means by it also how many it accepts at once, and that is one here."""
        super().listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        """A newcomer. Raises BlockingIOError when there is none, or others are to have it."""
        if self._has_more() and not self._has_waited():
            raise BlockingIOError
        return super().accept()

    def _has_waited(self) -> bool:
        """Whether the newcomer has stood here for some time; asyncio asks again and again as long as it does."""
        now_s = self._clock()
        if now_s - self._last_s > _FORGET_S:  # nobody was there between
            self._since_s = now_s
        self._last_s = now_s
        return now_s - self._since_s >= _WAIT_S
