"""Who may connect: key, origin and host checks, and the number of sessions. Pure; raises what the table documents."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from relay.errors import TooManySessions, Unauthorized

_KEY_SUBPROTOCOL = "openai-insecure-api-key."
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


class Seats:
    """Counts sessions against the number admitted."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0

    def check(self) -> None:
        """Raises TooManySessions when all are taken."""
        if self.taken >= self.capacity:
            raise TooManySessions(f"all {self.capacity} sessions are in use; try again later")

    def __enter__(self) -> None:
        self.check()
        self.taken += 1

    def __exit__(self, *exc: object) -> None:
        self.taken -= 1
