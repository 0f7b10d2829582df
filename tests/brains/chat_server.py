"""A chat completions server on a bare socket, which behaves as a test says, and a brain to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from relay.brains.openai_chat import ChatSettings, OpenAIChatBrain, OpenAIChatDialogue
from relay.errors import BrainUnavailable
from relay.events import Message, Piece, ReplyEnd, ToolOffer

ASK = [Message("system", "Be brief."), Message("user", "Can you help me?")]
KEY = "sk-very-secret"
Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request as a server sees it, and the bare socket to answer it with."""

    def __init__(self, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.body: dict[str, Any] = json.loads(body) if body else {}
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes | str) -> None:
        for part in parts:
            self._writer.write(part if isinstance(part, bytes) else part.encode())
            await self._writer.drain()

    async def stream(self, *parts: bytes | str, kind: str = "text/event-stream") -> None:
        """Begins an answer whose end is the end of the connection."""
        await self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n", *parts)

    async def answer(self, status: int, body: str | bytes, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else body.encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        await self.send(head, data)

    async def closed_by_client(self) -> None:
        assert await self._reader.read() == b""


@contextlib.asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """A server on a free port of this machine; every request goes to `handler`, every connection is closed after it."""
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length")), 0
            )
            await handler(Exchange(head, await reader.readexactly(length), reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
    assert not failures


def delta(text: str | None, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


DONE = "data: [DONE]\n\n"
# Each is short alone: on a busy machine the other would run out first.
SHORT_FIRST = ChatSettings(first_token_timeout_s=0.3)
SHORT_PAUSE = ChatSettings(between_tokens_timeout_s=0.2)


@contextlib.asynccontextmanager
async def dialogue(url: str, **kwargs: Any) -> AsyncIterator[OpenAIChatDialogue]:
    kwargs = {"model": "tiny", "api_key": KEY} | kwargs
    async with OpenAIChatBrain(url, **kwargs) as brain, brain.dialogue() as dialogue:
        yield dialogue


def answer(handler: Handler, *, prefix: str = "", tools: ToolOffer | None = None, **kwargs: Any) -> list[Piece]:
    """The pieces of one reply of a server that does what `handler` does."""

    async def main() -> list[Piece]:
        async with asyncio.timeout(30), server(handler) as url, dialogue(url, **kwargs) as side:
            return [piece async for piece in side.reply(ASK, prefix=prefix, tools=tools)]

    return asyncio.run(main())


def ask(handler: Handler, **kwargs: Any) -> list[str]:
    """Its text. The end is told, once."""
    *pieces, end = answer(handler, **kwargs)
    assert isinstance(end, ReplyEnd)
    return words_of(pieces)


def words_of(pieces: list[Piece]) -> list[str]:
    assert all(isinstance(piece, str) for piece in pieces)
    return [piece for piece in pieces if isinstance(piece, str)]


def fail(handler: Handler, **kwargs: Any) -> str:
    """The message of the error that a server's misbehaviour ends in."""
    with pytest.raises(BrainUnavailable) as caught:
        ask(handler, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert KEY not in message
    assert message.startswith("the language model server at 127.0.0.1:")
    return message


def part(finish: str | None = None, **fields: Any) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': fields, 'finish_reason': finish}]})}\n\n"


def call(
    index: int | None, arguments: Any = None, name: str | None = None, call_id: str | None = None
) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": "function", "function": function}
