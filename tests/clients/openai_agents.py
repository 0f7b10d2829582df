"""A dialogue through the Python package `openai-agents`, which truncates and runs the tool by itself.

python openai_agents.py http://127.0.0.1:8000 KEY question.pcm interruption.pcm     (24 kHz, 16 bits, mono)
"""

from __future__ import annotations

import asyncio
import json
import sys
from array import array
from pathlib import Path

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession

BYTES_PER_MS = 48
CHUNK_BYTES = 20 * BYTES_PER_MS
INTERRUPT_AFTER_MS = 4_000


def report(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


def report_reply(text: str, audio: bytes, *, interrupted: bool) -> None:
    samples = array("h", audio)
    report("reply", text=text, ms=len(audio) // BYTES_PER_MS, peak=max(map(abs, samples)), interrupted=interrupted)


@function_tool
def look_up(city: str) -> str:
    """Looks the weather of a city up."""
    report("tool", name="look_up", city=city)
    return "sunny"


async def speak(session: RealtimeSession, audio: bytes) -> None:
    for at in range(0, len(audio), CHUNK_BYTES):
        await session.send_audio(audio[at : at + CHUNK_BYTES])


async def follow(session: RealtimeSession, interruption: bytes) -> None:
    """Reports what is heard and said, until the reply after the interruption has ended."""
    audio, text, interrupted, has_spoken_twice = bytearray(), "", False, False
    async for event in session:
        if event.type == "error":
            report("error", message=str(event.error))
            return
        if event.type == "audio":
            audio += event.audio.data
            if not has_spoken_twice and len(audio) > INTERRUPT_AFTER_MS * BYTES_PER_MS:
                has_spoken_twice = True
                await speak(session, interruption)
        elif event.type == "audio_interrupted":
            interrupted = True
        elif event.type == "raw_model_event" and event.data.type == "transcript_delta":
            text += event.data.delta
        elif event.type == "raw_model_event" and event.data.type == "input_audio_transcription_completed":
            report("heard", text=event.data.transcript)
        elif event.type == "raw_model_event" and event.data.type == "turn_ended" and audio:
            report_reply(text, bytes(audio), interrupted=interrupted)
            if not interrupted:
                return
            audio.clear()
            text, interrupted = "", False


async def main(url: str, key: str, question: str, interruption: str) -> None:
    agent = RealtimeAgent(name="Relay", instructions="Be brief.", tools=[look_up])
    model = {"url": url.replace("http", "ws", 1) + "/v1/realtime?model=relay", "api_key": key}
    async with await RealtimeRunner(agent).run(model_config=model) as session:
        await speak(session, Path(question).read_bytes())
        await follow(session, Path(interruption).read_bytes())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
