"""Lost connections: a real socket that is cut, and a server that remembers nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from relay.client import Dialogue, PlayoutClock, Reconnect, Reconnected, Reconnecting, connect, events
from relay.client.foreign import decode
from relay.client.restore import Memory
from relay.errors import ConnectionFailed, UsageError
from relay.wire import client_events as ask
from relay.wire import server_events as got
from relay.wire.types import FunctionCallOutputItem, MessageItem

SOON = Reconnect(first_delay_s=0.01, longest_delay_s=0.02, attempts=5)
Handler = Callable[[ServerConnection, int], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[str]:
    """A websocket server; `handle` gets every connection and its number, after `session.created`."""
    count = iter(range(1000))

    async def accept(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "session.created", "event_id": "e", "session": {"type": "realtime"}}))
        await handle(socket, next(count))

    async with serve(accept, "127.0.0.1", 0, subprotocols=["realtime"]) as running:  # type: ignore[list-item]
        yield f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}"


async def read(socket: ServerConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind that the client sends."""
    while True:
        event = dict(json.loads(await socket.recv()))
        if event["type"] == kind:
            return event


async def say(socket: ServerConnection, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, "event_id": "e", **fields}))


def message(item_id: str, role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "message", "id": item_id, "role": role, "status": "completed", "content": content}


def test_settings_and_conversation_come_back_and_the_caller_is_told() -> None:
    restored: list[dict[str, Any]] = []

    async def handle(socket: ServerConnection, number: int) -> None:
        if number == 0:
            await read(socket, "session.update")
            await read(socket, "session.update")
            user = message("u1", "user", [{"type": "input_audio"}])
            await say(socket, "conversation.item.added", previous_item_id=None, item=user)
            await say(
                socket,
                "conversation.item.input_audio_transcription.completed",
                item_id="u1",
                content_index=0,
                transcript="where is it",
                usage={"type": "duration", "seconds": 1.0},
            )
            answer = message("a1", "assistant", [{"type": "output_text", "text": "Over there."}])
            await say(socket, "conversation.item.added", previous_item_id="u1", item=answer)
            lost = message("u2", "user", [{"type": "input_audio"}])
            await say(socket, "conversation.item.added", previous_item_id="a1", item=lost)
            socket.transport.abort()
            return
        restored.append(await read(socket, "session.update"))
        restored.append(await read(socket, "conversation.item.create"))
        restored.append(await read(socket, "conversation.item.create"))
        await socket.close()

    async def main() -> list[events.Event]:
        async with asyncio.timeout(20), server(handle) as url, connect(url, reconnect=SOON) as client:
            await client.update({"instructions": "Be brief.", "audio": {"input": {"turn_detection": None}}})
            await client.update({"audio": {"output": {"voice": "ash"}}})
            return [event async for event in client]

    seen = asyncio.run(main())
    assert [type(event) for event in seen if not isinstance(event, got.ServerEvent)] == [Reconnecting, Reconnected]
    (back,) = (event for event in seen if isinstance(event, Reconnected))
    assert (back.restored_items, back.forgotten_items, back.lost_responses) == (2, 1, ())
    session, user, answer = restored
    assert session["session"]["instructions"] == "Be brief."
    assert session["session"]["audio"] == {"input": {"turn_detection": None}, "output": {"voice": "ash"}}
    assert user["item"] == {
        "type": "message",
        "id": "u1",
        "role": "user",
        "content": [{"type": "input_text", "text": "where is it"}],
    }
    assert answer["item"]["content"] == [{"type": "output_text", "text": "Over there."}]


def test_what_is_sent_meanwhile_is_kept_and_speech_is_counted_as_dropped() -> None:
    gone = asyncio.Event()

    async def handle(socket: ServerConnection, number: int) -> None:
        if number == 0:
            socket.transport.abort()
            return
        created = await read(socket, "conversation.item.create")
        assert created["item"]["content"][0]["text"] == "hello"
        await read(socket, "response.create")
        await socket.close()

    async def main() -> Reconnected:
        async with asyncio.timeout(20), server(handle) as url, connect(url, reconnect=SOON) as client:
            found: list[Reconnected] = []
            async for event in client:
                if isinstance(event, Reconnecting):
                    gone.set()
                    await client.append(np.zeros(2400, dtype=np.int16))
                    await client.create_message("hello")
                    await client.create_response()
                    await client.cancel()  # of a response that is lost anyhow
                elif isinstance(event, Reconnected):
                    found.append(event)
            return found[0]

    assert asyncio.run(main()).dropped_audio_s == pytest.approx(0.1)


def test_a_server_that_stays_away_is_given_up() -> None:
    async def handle(socket: ServerConnection, number: int) -> None:
        socket.transport.abort()

    async def main() -> list[events.Event]:
        seen: list[events.Event] = []
        async with asyncio.timeout(20):
            async with server(handle) as url, connect(url, reconnect=SOON) as client:
                iterator = aiter(client)
                seen.append(await anext(iterator))
                server_gone.set()
            with pytest.raises(ConnectionFailed):
                async for event in iterator:
                    seen.append(event)
        return seen

    server_gone = asyncio.Event()
    assert isinstance(asyncio.run(main())[0], Reconnecting)


@pytest.mark.parametrize("code", [1008, 3000])
def test_a_server_that_does_not_want_us_is_not_asked_again(code: int) -> None:
    async def handle(socket: ServerConnection, number: int) -> None:
        assert number == 0
        await socket.close(code, "go away")

    async def main() -> None:
        async with asyncio.timeout(20), server(handle) as url, connect(url, reconnect=SOON) as client:
            with pytest.raises(ConnectionFailed, match="go away"):
                async for _ in client:
                    pass

    asyncio.run(main())


def test_what_was_sent_into_a_dying_connection_is_said_again() -> None:
    async def handle(socket: ServerConnection, number: int) -> None:
        if number == 0:
            await read(socket, "response.create")
            socket.transport.abort()  # before a word about the message or the response
            return
        created = await read(socket, "conversation.item.create")
        assert created["item"]["content"][0]["text"] == "hello"
        await read(socket, "response.create")
        await socket.close()

    async def main() -> list[events.Event]:
        async with asyncio.timeout(20), server(handle) as url, connect(url, reconnect=SOON) as client:
            await client.create_message("hello")
            await client.create_response()
            return [event async for event in client]

    assert [type(event) for event in asyncio.run(main())] == [Reconnecting, Reconnected]


def test_a_dialogue_goes_on_and_the_lost_reply_is_over() -> None:
    created = {
        "id": "r",
        "status": "in_progress",
        "status_details": None,
        "output": [],
        "conversation_id": "c",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash"}},
        "usage": None,
        "metadata": None,
    }

    async def handle(socket: ServerConnection, number: int) -> None:
        if number == 0:
            await say(socket, "input_audio_buffer.speech_started", audio_start_ms=0, item_id="u")
            await say(socket, "response.created", response=created)
            socket.transport.abort()
        else:
            await read(socket, "session.update")
            await socket.close()

    async def main() -> tuple[Dialogue, list[type]]:
        seen: list[type] = []
        async with asyncio.timeout(20), server(handle) as url, connect(url, reconnect=SOON) as client:
            dialogue = Dialogue(client, PlayoutClock(), on_event=lambda event: seen.append(type(event)))
            await dialogue.start()
            await dialogue.run()
        return dialogue, seen

    dialogue, seen = asyncio.run(main())
    assert seen[-2:] == [Reconnecting, Reconnected]
    assert (dialogue.replies["r"].status, dialogue.replies["r"].failure) == ("failed", "the connection was lost")
    assert dialogue.quiet
    assert dialogue.connected


@given(st.integers(1, 60))
def test_delays_grow_and_stay_bounded(attempt: int) -> None:
    patience = Reconnect()
    whole = min(8.0, 0.25 * 2.0 ** (attempt - 1))
    assert whole / 2 <= patience.delay_s(attempt) <= whole


def test_extras_are_not_asked_of_a_server_without_them() -> None:
    async def handle(socket: ServerConnection, number: int) -> None:
        assert socket.request is not None
        assert socket.request.headers["Authorization"] == "Bearer k"
        assert socket.request.headers["OpenAI-Organization"] == "o"
        assert socket.request.path == "/v1/realtime?model=gpt-realtime"
        await socket.wait_closed()

    async def main() -> None:
        headers = {"OpenAI-Organization": "o"}
        async with (
            asyncio.timeout(20),
            server(handle) as url,
            connect(url, api_key="k", model="gpt-realtime", headers=headers) as client,
        ):
            assert not client.offers_extras
            with pytest.raises(UsageError, match=r"no relay\.\* events"):
                await client.update({"relay": {"partials": True}})

    asyncio.run(main())


def test_an_interrupted_reply_is_remembered_as_far_as_it_was_heard() -> None:
    memory = Memory()
    item = MessageItem(id="a", role="assistant", content=[])
    memory.received(got.ConversationItemAdded(event_id="e", previous_item_id=None, item=item))
    text = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0, "event_id": "e"}
    memory.received(
        events.ResponseOutputItemAdded(event_id="e", response_id="r", output_index=0, item=item),
    )
    memory.received(events.ResponseOutputAudioTranscriptDelta(delta="one two three four", **text))  # type: ignore[arg-type]
    memory.heard("r", 2000.0)
    memory.received(got.ConversationItemTruncated(event_id="e", item_id="a", content_index=0, audio_end_ms=1000))
    (again,), forgotten = memory.restore()
    assert isinstance(again, ask.ConversationItemCreate)
    assert isinstance(again.item, MessageItem)
    assert again.item.content[0].text == "one two"  # type: ignore[union-attr]
    assert forgotten == 0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([*"abcdefgh", None, "-"])), max_size=30))
def test_items_keep_their_places(steps: list[tuple[str, str | None]]) -> None:
    memory, order = Memory(), list[str]()
    for item_id, previous in steps:
        if previous == "-":
            memory.received(got.ConversationItemDeleted(event_id="e", item_id=item_id))
            order = [other for other in order if other != item_id]
            continue
        item = FunctionCallOutputItem(id=item_id, call_id="c", output="o")
        memory.received(got.ConversationItemAdded(event_id="e", previous_item_id=previous, item=item))
        if item_id not in order:
            order.insert(order.index(previous) + 1 if previous in order else len(order), item_id)
    restored, _ = memory.restore()
    assert [event.item.id for event in restored if isinstance(event, ask.ConversationItemCreate)] == order


def test_events_of_another_make_are_understood() -> None:
    created = {
        "type": "session.created",
        "event_id": "e",
        "session": {
            "type": "realtime",
            "id": "sess_1",
            "object": "realtime.session",
            "model": "gpt-realtime",
            "expires_at": 1756324625,
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": 24000}, "novel": 1},
                "output": {"voice": "ash"},
            },
        },
    }
    event = decode(json.dumps(created))
    assert isinstance(event, events.SessionCreated)
    assert event.session.model == "gpt-realtime"
    transcribed = {
        "type": "conversation.item.input_audio_transcription.completed",
        "event_id": "e",
        "item_id": "i",
        "content_index": 0,
        "transcript": "hello",
        "usage": {"type": "tokens", "total_tokens": 9, "input_tokens": 5, "output_tokens": 4},
    }
    event = decode(json.dumps(transcribed))
    assert isinstance(event, events.TranscriptionCompleted)
    assert event.transcript == "hello"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(st.sampled_from(["session.created", "response.done", "conversation.item.added", "tomorrow"]), JSON)
def test_any_json_is_an_event_or_none(kind: str, value: Any) -> None:
    for frame in ({"type": kind, "event_id": "e", "session": value, "item": value, "response": value}, value):
        event = decode(json.dumps(frame))
        assert event is None or isinstance(event, got.ServerEvent)
