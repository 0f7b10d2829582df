"""Speak: words as they come -> audio as it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from relay.channel import Channel
from relay.engine.engine import Steps
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.errors import EngineBusy, StageFailed
from relay.stages.hold import Hold

Voice: TypeAlias = Steps[VoiceInput, VoiceOutput]
"""What `speak` needs of a voice: an engine, or what stands before one."""

SOUND_S = 0.1
"""How soon sound is to be there where nothing is left to play."""


async def speak(
    words: Channel[str],
    voice: Voice,
    out: Callable[[VoiceOutput], Awaitable[None]],
    *,
    speed: float = 1.0,
    hold: Hold | None = None,
    ahead_s: Callable[[], float | None] = lambda: None,
) -> None:
    """Speaks until `words` is closed and all of it is said; `out` may wait, which holds the voice back.

    Args:
        words: What to say.
        voice: Says it.
        out: Takes the audio.
        speed: Speaking rate.
        hold: What is heard while words are late; the times of the words after it are moved by its length.
        ahead_s: How much of what went out is still to be played; None before the first. Its end is when more is due.

    Raises:
        StageFailed: The voice failed, or has no slot free.
    """

    async def step(slot: int, x: VoiceInput) -> VoiceOutput:
        due_s = asyncio.get_running_loop().time() + max(ahead_s() or 0.0, SOUND_S)
        try:
            return await voice.step(slot, x, deadline_s=due_s)
        except Exception as error:
            raise StageFailed("voice", f"the voice failed: {error}") from error

    try:
        async with voice.slot() as slot:
            output = None
            while output is None or not output.final:
                wait = output is None or not len(output.pcm)
                if wait and hold is not None and not len(words):
                    await _hold(words, hold, out, partial(step, slot), speed)
                text, final = await _next_text(words, wait=wait)
                output = await step(slot, VoiceInput(text, final, speed))
                await out(output if hold is None else _moved(output, hold.held_samples))
    except EngineBusy as error:
        raise StageFailed("voice", str(error)) from error


async def _hold(
    words: Channel[str],
    hold: Hold,
    out: Callable[[VoiceOutput], Awaitable[None]],
    step: Callable[[VoiceInput], Awaitable[VoiceOutput]],
    speed: float,
) -> None:
    """Holds, if that is wanted, until words come or nothing is left to hold with: first what the voice kept back."""
    holding = False
    while not await words.ready(hold.due_s()):
        if not hold.flushed:
            hold.flushed = True
            await out(await step(VoiceInput("", speed=speed, flush=True)))
            continue
        holding = True
        await out(VoiceOutput(hold.more()))
    if holding:
        await out(VoiceOutput(hold.tail()))


def _moved(output: VoiceOutput, samples: int) -> VoiceOutput:
    """The same, its words later by what was heard in between."""
    words = [
        replace(word, start_sample=word.start_sample + samples, end_sample=word.end_sample + samples)
        for word in output.words
    ]
    return replace(output, words=tuple(words))


async def _next_text(words: Channel[str], *, wait: bool) -> tuple[str, bool]:
    """The words that wait, and whether they are the last. While the voice has audio left, it is not kept waiting."""
    ready = words.get_waiting()
    if not ready and wait:
        try:
            ready = [await words.get(), *words.get_waiting()]
        except StopAsyncIteration:
            return "", True
    return "".join(ready), words.is_finished
