"""The Python SDK of OpenAI, unchanged, against the real server: speech, calls of functions, responses out of band."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import numpy as np
import soundfile
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.websocket_reconnection import ReconnectingEvent

from relay.commands.own_server import own_server
from tests.brains.chat_server import DONE, Exchange, call, delta, part, server

RATE_HZ = 24_000
CHUNK_BYTES = RATE_HZ // 50 * 2
SILENCE = (np.random.default_rng(3).standard_normal(RATE_HZ) * 8).astype("<i2").tobytes()


def question() -> bytes:
    with (resources.files("relay") / "assets" / "question.wav").open("rb") as file:
        samples, rate_hz = soundfile.read(file, dtype="int16")
    assert rate_hz == RATE_HZ
    return bytes(samples.astype("<i2").tobytes())


async def speak(connection: AsyncRealtimeConnection, audio: bytes) -> None:
    for at in range(0, len(audio), CHUNK_BYTES):
        chunk = base64.b64encode(audio[at : at + CHUNK_BYTES]).decode()
        await connection.input_audio_buffer.append(audio=chunk)


async def until_done(connection: AsyncRealtimeConnection) -> tuple[list[Any], Any]:
    events: list[Any] = []
    async with asyncio.timeout(60):
        async for event in connection:
            assert event.type != "error", event
            events.append(event)
            if event.type == "response.done":
                return events, event.response
    raise AssertionError("the connection ended before the response was done")


def test_two_spoken_turns() -> None:
    async def main() -> None:
        async with own_server(os.environ) as url:
            base = url.replace("http", "ws", 1) + "/v1"
            client = AsyncOpenAI(api_key="unused", websocket_base_url=base)
            async with client.realtime.connect(model="relay") as connection:
                await connection.session.update(
                    session={"type": "realtime", "audio": {"input": {"transcription": {"model": "relay"}}}}
                )
                transcripts = []
                for turn in range(2):
                    await speak(connection, question() + SILENCE)
                    events, response = await until_done(connection)
                    assert response.status == "completed", response
                    kinds = [event.type for event in events]
                    assert kinds.count("input_audio_buffer.speech_started") == 1
                    completed = "conversation.item.input_audio_transcription.completed"
                    (heard,) = [event.transcript for event in events if event.type == completed]
                    assert "restaurant" in heard, f"turn {turn} was heard as {heard!r}"
                    deltas = [event.delta for event in events if event.type == "response.output_audio.delta"]
                    audio = np.frombuffer(b"".join(map(base64.b64decode, deltas)), dtype="<i2")
                    assert len(audio) > RATE_HZ // 2
                    assert np.abs(audio).max() > 1000
                    transcripts.append(response.output[0].content[0].transcript)
                assert all(transcripts)
                # The context holds both turns: two questions, two answers.
                item = response.output[0].id
                await connection.conversation.item.retrieve(item_id=item)
                async with asyncio.timeout(10):
                    async for event in connection:
                        if event.type == "conversation.item.retrieved":
                            assert event.item.content[0].transcript == transcripts[-1]
                            break
            await client.close()

    asyncio.run(main())


async def weather_model(x: Exchange) -> None:
    """A language model that looks two cities up at once, and reads the results out."""
    last = x.body["messages"][-1]
    if last["role"] == "tool":
        found = {m["tool_call_id"]: m["content"] for m in x.body["messages"] if m["role"] == "tool"}
        await x.stream(delta(f"Bern is {found['c1']}, "), delta(f"Basel is {found['c2']}."), delta(None, "stop"), DONE)
    elif "tools" in x.body:
        await x.stream(
            delta("One moment, please."),
            part(tool_calls=[call(0, "", "look_up", "c1")]),
            part(tool_calls=[call(0, '{"city":')]),
            part(tool_calls=[call(0, '"Bern"}')]),
            part(tool_calls=[call(1, '{"city":"Basel"}', "look_up", "c2")]),
            part(finish="tool_calls"),
            DONE,
        )
    else:
        await x.stream(delta('{"topic":\n "weather"}'), delta(None, "stop"), DONE)


def test_two_calls_and_a_reply_out_of_band() -> None:
    look_up = {
        "type": "function",
        "name": "look_up",
        "description": "Looks the weather of a city up.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            model_url = await stack.enter_async_context(server(weather_model))
            flags = ["--llm-url", model_url, "--llm-model", "tiny"]
            url = await stack.enter_async_context(own_server(os.environ, flags))
            client = AsyncOpenAI(api_key="unused", websocket_base_url=url.replace("http", "ws", 1) + "/v1")
            async with client.realtime.connect(model="relay") as connection:
                await connection.session.update(session={"type": "realtime", "tools": [look_up], "tool_choice": "auto"})
                await connection.conversation.item.create(
                    item={
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": "How is the weather in Bern and Basel?"}],
                    }
                )
                await connection.response.create()
                events, response = await until_done(connection)
                assert response.status == "completed", response
                message, *calls = response.output
                assert message.content[0].transcript == "One moment, please."
                assert [(made.name, json.loads(made.arguments)["city"]) for made in calls] == [
                    ("look_up", "Bern"),
                    ("look_up", "Basel"),
                ]
                told = "response.function_call_arguments"
                streamed = [event.delta for event in events if event.type == f"{told}.delta" and event.call_id == "c1"]
                assert "".join(streamed) == '{"city":"Bern"}'
                assert [event.call_id for event in events if event.type == f"{told}.done"] == ["c1", "c2"]
                for made, weather in zip(calls, ("sunny", "wet"), strict=True):
                    output = {"type": "function_call_output", "call_id": made.call_id, "output": weather}
                    await connection.conversation.item.create(item=output)  # type: ignore[arg-type]
                await connection.response.create()
                await connection.response.create(
                    response={
                        "conversation": "none",
                        "output_modalities": ["text"],
                        "metadata": {"purpose": "topic"},
                        "instructions": "Say the topic of the conversation as JSON.",
                        "tools": [],
                        "input": [
                            {"type": "item_reference", "id": message.id},  # type: ignore[list-item]
                            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Topic?"}]},
                        ],
                    }
                )
                ended = [await until_done(connection) for _ in range(2)]
                aside = next(end for _, end in ended if end.metadata)
                own = next(end for _, end in ended if not end.metadata)
                assert (aside.metadata, aside.conversation_id) == ({"purpose": "topic"}, None)
                assert aside.output[0].content[0].text == '{"topic":\n "weather"}'
                assert own.output[0].content[0].transcript == "Bern is sunny, Basel is wet."
                assert own.usage.output_token_details.audio_tokens > 20
                spoken = [
                    event for events, _ in ended for event in events if event.type == "response.output_audio.delta"
                ]
                assert {event.response_id for event in spoken} == {own.id}
            await client.close()

    asyncio.run(main())


def test_a_transcription_session() -> None:
    async def main() -> None:
        async with own_server(os.environ) as url:
            client = AsyncOpenAI(api_key="unused", websocket_base_url=url.replace("http", "ws", 1) + "/v1")
            async with client.realtime.connect(model="relay") as connection:
                include = ["item.input_audio_transcription.logprobs"]
                await connection.session.update(session={"type": "transcription", "include": include})  # type: ignore[arg-type,typeddict-item]
                await speak(connection, question() + SILENCE)
                async with asyncio.timeout(60):
                    async for event in connection:
                        assert not event.type.startswith(("response.", "error"))
                        if event.type == "session.updated":
                            assert event.session.type == "transcription"
                        if event.type == "conversation.item.input_audio_transcription.completed":
                            assert "restaurant" in event.transcript
                            assert event.logprobs
                            assert all(entry.logprob <= 0 for entry in event.logprobs)
                            break
            await client.close()

    asyncio.run(main())


class Cable:
    """The TCP connections that go through a port, to be cut all at once."""

    def __init__(self) -> None:
        self.port = 0
        self._ends: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()


@contextlib.asynccontextmanager
async def cable_to(port: int) -> AsyncIterator[Cable]:
    """A port of this machine that leads to another one."""
    cable = Cable()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def lay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        cable._ends += [writer, far_writer]
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    listening = await asyncio.start_server(lay, "127.0.0.1", 0)
    async with listening:
        cable.port = listening.sockets[0].getsockname()[1]
        yield cable


def test_a_cut_connection_is_made_again() -> None:
    """The package's hook is called, and the dialogue goes on in a new session."""
    hooked: list[ReconnectingEvent] = []
    sessions: list[str] = []
    heard: list[str] = []

    async def follow(connection: AsyncRealtimeConnection, cable: Cable) -> None:
        async for event in connection:
            assert event.type != "error", event
            if event.type == "session.created":
                sessions.append(event.session.id or "")
                await connection.session.update(
                    session={"type": "realtime", "audio": {"input": {"transcription": {"model": "relay"}}}}
                )
                await speak(connection, question() + SILENCE)
            elif event.type == "conversation.item.input_audio_transcription.completed":
                heard.append(event.transcript)
            elif event.type == "response.output_audio.delta" and len(sessions) == 1:
                cable.cut()
            elif event.type == "response.done" and len(sessions) == 2:
                assert event.response.status == "completed"
                return

    async def main() -> None:
        async with own_server(os.environ) as url, cable_to(int(url.rpartition(":")[2])) as cable:
            client = AsyncOpenAI(api_key="unused", websocket_base_url=f"ws://127.0.0.1:{cable.port}/v1")
            connecting = client.realtime.connect(model="relay", on_reconnecting=hooked.append, initial_delay=0.01)
            async with client, connecting as connection, asyncio.timeout(100):
                await follow(connection, cable)

    asyncio.run(main())
    assert [event.close_code for event in hooked] == [1006]
    assert len(set(sessions)) == 2
    assert len(heard) == 2
    assert all("restaurant" in text for text in heard)
