"""The brain behind a chat completions URL, against servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket

import pytest

from relay.brains.openai_chat import ChatSettings, OpenAIChatBrain, OpenAIChatDialogue
from relay.errors import BrainUnavailable, ConfigError
from relay.events import ReplyEnd
from tests.brains.chat_server import (
    ASK,
    DONE,
    KEY,
    SHORT_FIRST,
    SHORT_PAUSE,
    Exchange,
    ask,
    delta,
    dialogue,
    fail,
    server,
)

# --- a server that behaves, more or less


def test_streams_a_reply() -> None:
    seen: list[Exchange] = []

    async def handler(x: Exchange) -> None:
        seen.append(x)
        await x.stream(delta(None), delta("Of"), delta(" course"), delta("."), delta(None, "stop"), DONE)

    assert ask(handler) == ["Of", " course", "."]
    (x,) = seen
    assert x.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"authorization: bearer {KEY}" in x.head.lower()
    assert x.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Can you help me?"}],
        "stream": True,
        "max_tokens": 512,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "stream",
    [
        delta("a b").replace("\n", "\r\n") + DONE.replace("\n", "\r\n"),
        ": ping\n\n" + delta("a b") + DONE,
        delta("a b").rstrip("\n") + "\n" + DONE,  # no line between events
        delta("a b", "length"),  # no [DONE]
        delta("a b") + 'data: {"choices":[],"usage":{"total_tokens":9}}\n\n' + DONE,
        'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n' + delta("a b") + DONE,
        delta("<think>so") + delta("</thi") + delta("nk>\n\na b") + DONE,
        delta("a b") + "data: [DONE]",
    ],
    ids=["crlf", "comments", "no blank lines", "no done", "usage", "reasoning", "thinking", "cut after done"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_dialects(stream: str, size: int) -> None:
    data = stream.encode()

    async def handler(x: Exchange) -> None:
        await x.stream(*(data[at : at + size] for at in range(0, len(data), size)))

    assert "".join(ask(handler)) == "a b"


def test_a_server_that_does_not_stream() -> None:
    async def handler(x: Exchange) -> None:
        await x.answer(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "a b"}}]}))

    assert ask(handler) == ["a b"]


def test_asks_for_the_model_once() -> None:
    paths: list[str] = []

    async def handler(x: Exchange) -> None:
        paths.append(x.head.split()[1])
        if paths[-1] == "/v1/models":
            await x.answer(200, '{"object":"list","data":[{"id":"first"},{"id":"second"}]}')
        else:
            assert x.body["model"] == "first"
            await x.stream(delta("yes", "stop"))

    async def main() -> None:
        async with asyncio.timeout(30), server(handler) as url, dialogue(url, model=None) as side:
            for _ in range(2):
                assert [piece async for piece in side.reply(ASK)] == ["yes", ReplyEnd()]

    asyncio.run(main())
    assert paths == ["/v1/models", "/v1/chat/completions", "/v1/chat/completions"]


def test_closing_the_reply_closes_the_connection() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def handler(x: Exchange) -> None:
            await x.stream(delta("one"), delta(" two"))
            await x.closed_by_client()
            closed.set()

        async with asyncio.timeout(30), server(handler) as url, dialogue(url) as side:
            async with contextlib.aclosing(side.reply(ASK)) as reply:
                assert await anext(reply) == "one"
            await closed.wait()

    asyncio.run(main())


def test_cancelling_the_wait_for_the_first_word_closes_the_connection() -> None:
    async def main() -> None:
        asked, closed = asyncio.Event(), asyncio.Event()

        async def handler(x: Exchange) -> None:
            asked.set()
            await x.closed_by_client()
            closed.set()

        async def listen(side: OpenAIChatDialogue) -> None:
            async with contextlib.aclosing(side.reply(ASK)) as reply:
                await anext(reply)

        async with asyncio.timeout(30), server(handler) as url, dialogue(url) as side:
            task = asyncio.create_task(listen(side))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()

    asyncio.run(main())


def test_a_dropped_idle_connection_is_tried_again() -> None:
    count = 0

    async def handler(x: Exchange) -> None:
        nonlocal count
        count += 1
        if count > 1:
            await x.stream(delta("yes", "stop"))

    assert ask(handler) == ["yes"]


# --- continuing what was said


def test_continuation_by_instruction() -> None:
    async def handler(x: Exchange) -> None:
        (_, last) = x.body["messages"]
        assert last["role"] == "user"
        assert "Sure, I" in last["content"]
        await x.stream(delta("sure"), delta(", i ca"), delta("n help."), delta(None, "stop"))

    assert "".join(ask(handler, prefix="Sure, I")) == " can help."


def test_continuation_by_prefill() -> None:
    async def handler(x: Exchange) -> None:
        assert x.body["messages"][-1] == {"role": "assistant", "content": "Sure, I"}
        assert x.body["continue_final_message"] is True
        assert x.body["add_generation_prompt"] is False
        await x.stream(delta(" can help."), delta(None, "stop"))

    assert "".join(ask(handler, prefix="Sure, I", settings=ChatSettings(continuation="prefill"))) == " can help."


# --- a server that misbehaves


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}), "--llm-key-env"),
        (404, '{"error":"model not found"}', "(404: model not found); check --llm-url"),
        (422, '{"detail":"Unexpected fields"}', "(422: Unexpected fields)"),
        (429, "", "try again later"),
        (500, "<html>oops</html>", "refused the request (500); look at its log"),
        (503, '{"error":{"message":"Loading\\nmodel"}}', "(503: Loading model); wait until"),
        (301, "", "(301)"),
    ],
)
def test_refusals(status: int, body: str, says: str) -> None:
    assert says in fail(lambda x: x.answer(status, body))


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"", "ended the reply unfinished"),
        (delta("half a"), "ended the reply unfinished"),
        (b"data: {nonsense\n\n", "not a chat completion"),
        (b'data: {"choices":[{"delta":{"content":7}}]}\n\n', "not a chat completion"),
        (b"data: [1]\n\n", "not a chat completion"),
        (b'data: {"error":{"message":"out of memory"}}\n\n', "failed: out of memory"),
        (b'data: {"object":"error","message":"too long"}\n\n', "failed: too long"),
        (delta("a ") + 'data: {"error":"CUDA\\nerror"}\n\n', "failed: CUDA error"),
        (os.urandom(300), "ended the reply unfinished"),
        (b"x" * 2_000_000, "does not stream chat completions"),
    ],
    ids=["nothing", "half", "nonsense", "types", "list", "error", "vllm error", "late error", "binary", "endless line"],
)
def test_broken_streams(stream: bytes | str, says: str) -> None:
    assert says in fail(lambda x: x.stream(stream))


def test_a_web_page() -> None:
    assert "often ends in /v1" in fail(lambda x: x.stream("<html>Welcome</html>", kind="text/html; charset=utf-8"))


def test_an_answer_that_breaks_off() -> None:
    async def handler(x: Exchange) -> None:
        await x.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = delta("half a")
        await x.send(f"{len(data):x}\r\n{data}\r\n")

    assert "broke the reply off" in fail(handler)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b""], ids=["another protocol", "nothing"])
def test_something_else_answers(answer: bytes) -> None:
    assert "broke the connection off" in fail(lambda x: x.send(answer))


def test_silence_before_the_first_word() -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(": ping\n\n", delta(None), delta("<think>hm"))
        await x.closed_by_client()

    assert "said nothing for 0.3 s" in fail(handler, settings=SHORT_FIRST)


def test_silence_in_mid_reply() -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(delta("well"))
        await x.closed_by_client()

    assert "stopped for 0.2 s in mid-reply" in fail(handler, settings=SHORT_PAUSE)


def test_a_slow_listener_is_no_slow_server() -> None:
    """The time that a piece waits to be fetched does not count against the server."""
    settings = ChatSettings(between_tokens_timeout_s=0.2)

    async def main() -> None:
        async def handler(x: Exchange) -> None:
            await x.stream(delta("one"), delta(" two"), delta(None, "stop"))

        async with asyncio.timeout(30), server(handler) as url, dialogue(url, settings=settings) as side:
            reply = side.reply(ASK)
            assert await anext(reply) == "one"
            await asyncio.sleep(0.3)  # longer than the server may pause
            assert await anext(reply) == " two"
            await reply.aclose()

    asyncio.run(main())


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:{KEY}@127.0.0.1:{free.getsockname()[1]}"

        async def main() -> None:
            async with dialogue(url) as side:
                await anext(side.reply(ASK))

        with pytest.raises(BrainUnavailable, match=r"cannot be reached .*; start it, or check --llm-url") as caught:
            asyncio.run(main())
    assert KEY not in str(caught.value)


def test_no_models() -> None:
    assert "name one with --llm-model" in fail(lambda x: x.answer(200, '{"data":[]}'), model=None)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://h:99999/v1"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="--llm-url"):
        OpenAIChatBrain(url)


def test_a_key_that_cannot_be_sent() -> None:
    async def main() -> None:
        async with OpenAIChatBrain("http://127.0.0.1:1", api_key="ключ"):
            pass

    with pytest.raises(ConfigError, match="API key"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h:1", "/v1"),
        ("http://h:1/", "/v1"),
        ("http://h:1/v1/", "/v1"),
        ("http://h:1/v1/chat/completions", "/v1"),
        ("https://h/api/openai", "/api/openai"),
    ],
)
def test_urls(url: str, path: str) -> None:
    assert OpenAIChatBrain(url)._url.path == path
