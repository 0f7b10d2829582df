"""Who may connect."""

from __future__ import annotations

import asyncio

import pytest

from relay.errors import TooManySessions, Unauthorized
from relay.server.admission import Seats, check_key, check_origin


def test_key() -> None:
    check_key(None, {}, [])
    check_key("k1", {"Authorization": "Bearer k1"}, [])
    check_key("k1", {}, ["realtime", "openai-insecure-api-key.k1"])
    for headers, subprotocols in (
        ({}, []),
        ({"Authorization": "Bearer k2"}, []),
        ({"Authorization": "k1"}, []),
        ({}, ["openai-insecure-api-key."]),
        ({"Authorization": "Bearer ключ"}, []),
    ):
        with pytest.raises(Unauthorized):
            check_key("k1", headers, subprotocols)


@pytest.mark.parametrize(
    ("host", "origin", "loopback", "has_key", "admitted"),
    [
        ("localhost:8000", None, True, False, True),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", True, False, True),
        ("[::1]:8000", "http://[::1]:8000", True, False, True),
        ("127.0.0.1:8000", "http://evil.example", True, False, False),
        ("127.0.0.1:8000", "http://127.0.0.1:9000", True, False, False),
        ("127.0.0.1:8000", "null", True, False, False),
        ("evil.example:8000", "http://evil.example:8000", True, False, False),
        ("", None, True, False, False),
        ("box.lan:8000", "http://box.lan:8000", False, False, True),
        ("box.lan:8000", "http://other.lan", False, False, False),
        ("box.lan:8000", "http://other.lan", False, True, True),
    ],
)
def test_origin(host: str, origin: str | None, loopback: bool, has_key: bool, admitted: bool) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    if admitted:
        check_origin(headers, loopback=loopback, has_key=has_key)
    else:
        with pytest.raises(Unauthorized):
            check_origin(headers, loopback=loopback, has_key=has_key)


def test_seats() -> None:
    counted: list[int] = []
    seats = Seats(1, on_change=counted.append)

    async def main() -> None:
        async with seats.seat():
            with pytest.raises(TooManySessions):
                seats.check()
            with pytest.raises(TooManySessions):
                async with seats.seat():
                    pass
        seats.check()

    asyncio.run(main())
    assert seats.taken == 0
    assert counted == [1, 0]
