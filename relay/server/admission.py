"""Who may connect: key, origin and host checks, the number of sessions, and room. Raises what the table documents."""

from __future__ import annotations

import contextlib
import hmac
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from urllib.parse import urlsplit

from relay.config import Path_
from relay.engine.load import Admission, Measured
from relay.engine.remote import EngineLink
from relay.errors import TooManySessions, Unauthorized

_KEY_SUBPROTOCOL = "openai-insecure-api-key."
_RACERS = frozenset({"draft model", "verifier"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def check_key(expected: str | None, headers: Mapping[str, str], subprotocols: Sequence[str]) -> None:
    """Raises Unauthorized unless the client presents the key, as a bearer token or the way browsers must."""
    if expected is None:
        return
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    given = [token.strip()] if scheme.lower() == "bearer" else []
    given += [name.removeprefix(_KEY_SUBPROTOCOL) for name in subprotocols if name.startswith(_KEY_SUBPROTOCOL)]
    if not any(hmac.compare_digest(key.encode(), expected.encode()) for key in given):
        raise Unauthorized("this server needs an API key; send it as 'Authorization: Bearer KEY'")


def check_origin(headers: Mapping[str, str], *, loopback: bool, has_key: bool) -> None:
    """Raises Unauthorized for a web page of another site.

    Any site that a person visits can open a websocket to their own machine; a browser always says from where. Without a
    key, only the server's own page may connect, and a server on loopback answers to loopback names only, so that a
    name that is pointed at this machine later (DNS rebinding) does not pass.
    """
    if has_key:
        return
    host = urlsplit("//" + headers.get("Host", ""))
    if loopback and host.hostname not in _LOOPBACK_NAMES:
        raise Unauthorized("this server answers to localhost only; start it with --host and --api-key to open it up")
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host.netloc:
        raise Unauthorized("pages of other sites may not connect; start the server with --api-key to allow them")


def deciding(loads: Mapping[str, Measured], path: Path_ | None) -> dict[str, Measured]:
    """The loads that decide whether there is time for one caller more.

    A draft or a verdict that is late loses its race, and the language model answers: that makes nobody late, but where
    the draft model alone is to answer.

    Args:
        loads: Of all that callers share, by name.
        path: How replies are made.
    """
    return {name: load for name, load in loads.items() if path == "draft" or name not in _RACERS}


class Seats:
    """Counts sessions against the number admitted, and asks whether there is time for one more.

    Args:
        capacity: How many are admitted.
        admission: Knows how much time there is; None: there is enough.
        on_change: Told of the number whenever it changes.
    """

    def __init__(
        self,
        capacity: int,
        admission: Admission | None = None,
        on_change: Callable[[int], None] = lambda taken: None,
    ) -> None:
        self.capacity = capacity
        self.taken = 0
        self._admission = admission
        self._on_change = on_change

    @property
    def held(self) -> int:
        """How many of them this process holds: all."""
        return self.taken

    def refusal(self) -> str | None:
        """Why nobody else is let in although seats are free; None when somebody is."""
        return None if self._admission is None else self._admission.refusal(time.monotonic())

    def check(self) -> None:
        """Raises TooManySessions when all are taken, or there is no time for one more."""
        _check(self.taken, self.capacity, self.refusal())

    @contextlib.asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """A seat for as long as the block runs. Raises as `check`."""
        self.check()
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.taken += change
        if self._admission is not None:
            self._admission.count(time.monotonic(), self.taken)
        self._on_change(self.taken)


class SeatEngine:
    """Seats as an engine lends them to gateways: slots that are never stepped, so that a lost gateway's are freed.

    Args:
        seats: The seats.
    """

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """A seat. Raises TooManySessions when all are taken."""
        async with self._seats.seat():
            yield next(self._numbers)

    async def step(self, slot: int, x: object, *, deadline_s: float = 0.0) -> object:
        """Raises RuntimeError: there is nothing to step."""
        raise RuntimeError("a seat is not stepped")


class SharedSeats:
    """The seats of all gateways, as one of them sees them. What it was told last may be old; `seat` asks.

    Args:
        link: The first process, which keeps them.
        admission: Knows how much time this gateway has itself.
    """

    def __init__(self, link: EngineLink, admission: Admission | None = None) -> None:
        self.capacity = link.welcome.capacity
        self._link = link
        self._engine = link.engine("seats")
        self._own = Seats(self.capacity, admission)

    @property
    def taken(self) -> int:
        """Sessions over all gateways, as last told."""
        return self._link.taken

    @property
    def held(self) -> int:
        """How many of them this process holds."""
        return self._own.taken

    def refusal(self) -> str | None:
        """As `Seats.refusal`: for want of time in this gateway, or in an engine as last told."""
        return self._own.refusal() or self._link.refusal

    def check(self) -> None:
        """Raises as `Seats.check`."""
        _check(self.taken, self.capacity, self.refusal())

    @contextlib.asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """A seat for as long as the block runs. Raises as `Seats.check`."""
        async with self._own.seat(), self._engine.slot():
            yield


def _check(taken: int, capacity: int, refusal: str | None) -> None:
    if taken >= capacity:
        raise TooManySessions(f"all {capacity} sessions are in use; try again later")
    if refusal is not None:
        raise TooManySessions(f"the server is at its limit: {refusal}; try again later")
