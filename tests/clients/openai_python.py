"""A dialogue through the Python package `openai`: the caller breaks into the first reply, the second calls a function.

python openai_python.py http://127.0.0.1:8000 KEY question.pcm interruption.pcm     (24 kHz, 16 bits, mono)
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

BYTES_PER_MS = 48
CHUNK_BYTES = 20 * BYTES_PER_MS
INTERRUPT_AFTER_MS = 4_000
LAST = "the-last-event"
SESSION: Any = {
    "type": "realtime",
    "instructions": "Be brief.",
    "audio": {"input": {"transcription": {"model": "relay"}, "turn_detection": {"type": "server_vad"}}},
    "tools": [
        {
            "type": "function",
            "name": "look_up",
            "description": "Looks the weather of a city up.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ],
}
TOPIC: Any = {
    "conversation": "none",
    "output_modalities": ["text"],
    "instructions": "Say the topic of the conversation in one word.",
    "tools": [],
}


def report(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


def report_reply(text: str, audio: bytes, *, interrupted: bool) -> None:
    samples = array("h", audio)
    report("reply", text=text, ms=len(audio) // BYTES_PER_MS, peak=max(map(abs, samples)), interrupted=interrupted)


async def speak(connection: AsyncRealtimeConnection, audio: bytes) -> None:
    for at in range(0, len(audio), CHUNK_BYTES):
        await connection.input_audio_buffer.append(audio=base64.b64encode(audio[at : at + CHUNK_BYTES]).decode())


class Caller:
    """Follows the events of one dialogue."""

    def __init__(self, connection: AsyncRealtimeConnection, interruption: bytes) -> None:
        self.connection = connection
        self.interruption: bytes | None = interruption
        self.audio = bytearray()
        self.item_id = ""
        self.playing_since_s = 0.0

    async def follow(self) -> None:
        async for event in self.connection:
            match event.type:
                case "error" if event.error.event_id == LAST:  # the session survives; this dialogue is over
                    report("refused", code=event.error.code, message=event.error.message)
                    return
                case "error":
                    report("error", message=event.error.message)
                    return
                case "conversation.item.input_audio_transcription.completed":
                    report("heard", text=event.transcript)
                case "response.output_audio.delta":
                    await self.play(event.item_id, base64.b64decode(event.delta))
                case "input_audio_buffer.speech_started" if self.audio:
                    played_ms = int((time.monotonic() - self.playing_since_s) * 1000)
                    audio_end_ms = min(played_ms, len(self.audio) // BYTES_PER_MS)
                    item = self.connection.conversation.item
                    await item.truncate(item_id=self.item_id, content_index=0, audio_end_ms=audio_end_ms)
                case "response.done":
                    await self.finish(event.response)
                case "conversation.item.retrieved":
                    content: Any = event.item
                    report("retrieved", text=content.content[0].transcript)
                    await self.connection.conversation.item.delete(item_id="item_unknown", event_id=LAST)

    async def play(self, item_id: str, audio: bytes) -> None:
        if not self.audio:
            self.item_id, self.playing_since_s = item_id, time.monotonic()
        self.audio += audio
        if self.interruption is not None and len(self.audio) > INTERRUPT_AFTER_MS * BYTES_PER_MS:
            said, self.interruption = self.interruption, None
            await speak(self.connection, said)

    async def finish(self, response: Any) -> None:
        connection, item = self.connection, self.connection.conversation.item
        if response.output[0].type == "function_call":
            (call,) = response.output
            report("tool", name=call.name, **json.loads(call.arguments))
            await item.create(item={"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
            await connection.response.create()
        elif response.output_modalities == ["text"]:
            report("topic", text=response.output[0].content[0].text)
            await item.retrieve(item_id=self.item_id)
        else:
            cut = response.status == "cancelled"
            report_reply(response.output[0].content[0].transcript, bytes(self.audio), interrupted=cut)
            self.audio.clear()
            if response.status == "completed":
                await connection.response.create(response=TOPIC)


async def main(url: str, key: str, question: str, interruption: str) -> None:
    base = url.replace("http", "ws", 1) + "/v1"
    client = AsyncOpenAI(api_key=key, websocket_base_url=base)
    async with client, client.realtime.connect(model="relay") as connection:
        await connection.session.update(session=SESSION)
        await speak(connection, Path(question).read_bytes())
        await Caller(connection, Path(interruption).read_bytes()).follow()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
