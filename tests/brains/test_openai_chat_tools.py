"""Calls of tools, counts of tokens and how a reply ended, through a chat completions URL."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from relay.events import CallDelta, ReplyEnd, Tool, ToolOffer
from tests.brains.chat_server import ASK, DONE, SHORT_PAUSE, Exchange, answer, call, delta, dialogue, fail, part, server

COUNTS = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
OFFER = ToolOffer((Tool("look_up", "Looks a city up.", {"type": "object"}), Tool("ring")))


def test_a_call_streams_after_the_words() -> None:
    seen: list[dict[str, Any]] = []

    async def handler(x: Exchange) -> None:
        seen.append(x.body)
        await x.stream(
            part(role="assistant", content=""),
            part(content="<think>hm</think>One moment"),
            part(content="."),
            part(tool_calls=[call(0, "", "look_up", "call_1")]),
            part(tool_calls=[call(0, '{"city":')]),
            part(tool_calls=[call(0, '"Bern"}')]),
            part(tool_calls=[call(1, "", "ring", "call_2")]),
            part(finish="tool_calls"),
            f"data: {json.dumps({'choices': [], 'usage': COUNTS})}\n\n",
            DONE,
        )

    assert answer(handler, tools=OFFER) == [
        "One moment",
        ".",
        CallDelta(0, "look_up", '{"city":', "call_1"),
        CallDelta(0, "look_up", '"Bern"}', "call_1"),
        CallDelta(1, "ring", "{}", "call_2"),
        ReplyEnd("stop", 9, 4, 3),
    ]
    (body,) = seen
    assert [tool["function"]["name"] for tool in body["tools"]] == ["look_up", "ring"]
    assert "tool_choice" not in body


def test_words_in_the_middle_of_a_continuation_are_settled_before_the_call() -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(part(content="Sure"), part(tool_calls=[call(0, "{}", "ring", "c")]), part(finish="tool_calls"))

    assert answer(handler, prefix="Sure, I will", tools=OFFER)[:2] == [" Sure", CallDelta(0, "ring", "{}", "c")]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop")],
)
def test_how_it_ended(finish: str, reason: Any) -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(delta("a b"), delta(None, finish))

    assert answer(handler) == ["a b", ReplyEnd(reason)]


def test_a_server_that_does_not_stream_calls_too() -> None:
    async def handler(x: Exchange) -> None:
        ring = {"id": "c", "function": {"name": "ring", "arguments": {"twice": True}}}
        message = {"content": None, "tool_calls": [ring]}
        body = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 2}}
        await x.answer(200, json.dumps(body))

    assert answer(handler, tools=OFFER) == [CallDelta(0, "ring", '{"twice":true}', "c"), ReplyEnd(input_tokens=2)]


def test_closing_a_reply_in_the_middle_of_a_call_closes_the_connection() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def handler(x: Exchange) -> None:
            await x.stream(part(tool_calls=[call(0, '{"city":', "look_up", "c")]))
            await x.closed_by_client()
            closed.set()

        async with asyncio.timeout(30), server(handler) as url, dialogue(url) as side:
            async with contextlib.aclosing(side.reply(ASK, tools=OFFER)) as reply:
                assert await anext(reply) == CallDelta(0, "look_up", '{"city":', "c")
            await closed.wait()

    asyncio.run(main())


def test_silence_in_the_middle_of_a_call() -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(part(tool_calls=[call(0, '{"city":', "look_up", "c")]))
        await x.closed_by_client()

    assert "stopped for 0.2 s in mid-reply" in fail(handler, settings=SHORT_PAUSE)


def test_a_server_that_cannot_count_is_asked_without() -> None:
    bodies: list[dict[str, Any]] = []

    async def handler(x: Exchange) -> None:
        bodies.append(x.body)
        if "stream_options" in x.body:
            await x.answer(400, '{"error":{"message":"Unknown field: stream_options"}}')
        else:
            await x.stream(delta("yes", "stop"))

    async def main() -> None:
        async with asyncio.timeout(30), server(handler) as url, dialogue(url) as side:
            for _ in range(2):
                assert [piece async for piece in side.reply(ASK)] == ["yes", ReplyEnd()]

    asyncio.run(main())
    assert ["stream_options" in body for body in bodies] == [True, False, False], "it is remembered"
