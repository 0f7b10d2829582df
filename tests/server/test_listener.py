"""Newcomers at a socket that several processes share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from relay.server.listener import SharedListener


class Process:
    """One of several that listen, on a clock of its own making."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.has_more = False
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.listener = SharedListener(listening.detach(), lambda: self.has_more, lambda: self.now_s)
        self.listener.setblocking(False)

    def takes(self) -> bool:
        """Whether a newcomer who stands there is taken now."""
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    with made.listener:
        yield made


def newcomer(process: Process) -> None:
    socket.create_connection(("127.0.0.1", process.port)).close()


def test_who_holds_its_share_takes_a_newcomer_at_once_and_nobody_else(process: Process) -> None:
    newcomer(process)
    assert process.takes()
    assert not process.takes()


def test_who_holds_more_takes_a_newcomer_when_nobody_else_has(process: Process) -> None:
    process.has_more = True
    newcomer(process)
    for _ in range(4):
        assert not process.takes()
        process.now_s += 0.004
    process.now_s += 0.004
    assert process.takes()


def test_the_wait_begins_anew_for_a_newcomer_who_comes_later(process: Process) -> None:
    process.has_more = True
    newcomer(process)
    assert not process.takes()
    process.now_s += 5.0  # another process has taken that one, and this one was not asked
    assert not process.takes()


def test_a_small_backlog_does_not_turn_newcomers_away(process: Process) -> None:
    process.listener.listen(1)  # as asyncio does, to say how many it accepts at once
    for _ in range(20):
        newcomer(process)
    assert [process.takes() for _ in range(21)] == [True] * 20 + [False]
