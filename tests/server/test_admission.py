"""Who may connect."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace

import pytest

from relay.engine.load import Admission, Load
from relay.errors import TooManySessions, Unauthorized
from relay.server.admission import Seats, SharedSeats, check_key, check_origin, deciding
from relay.server.models import PARTS, label


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


def busy() -> Load:
    """An engine that was busy for all of the last seconds."""
    load = Load(1)
    for tenth in range(100):
        load.stepped(time.monotonic() - tenth / 10, 1, 0.1)
    return load


def test_seats_are_free_but_there_is_no_time() -> None:
    async def main() -> None:
        seats = Seats(9, Admission({"ears": busy()}))
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(seats.seat())
            with pytest.raises(TooManySessions, match="at its limit: with one caller more the ears would take"):
                seats.check()
            with pytest.raises(TooManySessions):
                await stack.enter_async_context(seats.seat())
            assert seats.taken == 4
        seats.check()

    asyncio.run(main())


def test_a_gateway_refuses_for_itself_and_for_the_engine_process() -> None:
    asked: list[str] = []

    @contextlib.asynccontextmanager
    async def slot():  # type: ignore[no-untyped-def]
        asked.append("seat")
        yield 0

    def linked(refusal: str | None, taken: int = 4) -> SimpleNamespace:
        welcome = SimpleNamespace(capacity=9)
        return SimpleNamespace(
            welcome=welcome, taken=taken, refusal=refusal, engine=lambda _: SimpleNamespace(slot=slot)
        )

    async def main() -> None:
        SharedSeats(linked(None)).check()  # type: ignore[arg-type]
        with pytest.raises(TooManySessions, match="all 9"):
            SharedSeats(linked(None, taken=9)).check()  # type: ignore[arg-type]
        with pytest.raises(TooManySessions, match="limit: the ears are tired; try"):
            SharedSeats(linked("the ears are tired")).check()  # type: ignore[arg-type]
        own = SharedSeats(linked(None), Admission({"sockets": busy()}))  # type: ignore[arg-type]
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(own.seat())
            with pytest.raises(TooManySessions, match="the sockets would take"):
                own.check()
            with pytest.raises(TooManySessions, match="the sockets would take"):
                await stack.enter_async_context(own.seat())
        assert asked == ["seat"] * 4

    asyncio.run(main())


def test_a_draft_model_that_is_late_keeps_nobody_out_but_where_it_answers_alone() -> None:
    loads = {label(name): Load(1) for name in (*PARTS, "verifier", "sockets")}
    racers = {label("draft"), label("verifier")}
    assert racers < set(loads)
    for path in (None, "relay", "cascade"):
        assert set(deciding(loads, path)) == set(loads) - racers
    assert deciding(loads, "draft") == loads
