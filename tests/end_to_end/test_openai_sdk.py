"""The Python SDK of OpenAI, unchanged, holds a spoken dialogue with the real server: real ears, brain and voice."""

from __future__ import annotations

import asyncio
import base64
import os
from importlib import resources
from typing import Any

import numpy as np
import soundfile
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from relay.commands.own_server import own_server

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
