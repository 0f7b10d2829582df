"""Speak: words as they come -> audio as it is ready."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from relay.channel import Channel
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.errors import EngineBusy, StageFailed


class Voice(Protocol):
    """What `speak` needs of a voice: `Engine[VoiceInput, VoiceOutput]`, or what stands before one."""

    def slot(self) -> AbstractAsyncContextManager[int]:
        """A slot with fresh state for as long as the block runs. Raises EngineBusy when none is free."""
        ...

    async def step(self, slot: int, x: VoiceInput) -> VoiceOutput:
        """Steps one slot; see `VoiceInput`."""
        ...


async def speak(
    words: Channel[str],
    voice: Voice,
    out: Callable[[VoiceOutput], Awaitable[None]],
    *,
    speed: float = 1.0,
) -> None:
    """Speaks until `words` is closed and all of it is said; `out` may wait, which holds the voice back.

    Raises:
        StageFailed: The voice failed, or has no slot free.
    """
    try:
        async with voice.slot() as slot:
            output = None
            while output is None or not output.final:
                text, final = await _next_text(words, wait=output is None or not len(output.pcm))
                output = await _step(voice, slot, VoiceInput(text, final, speed))
                await out(output)
    except EngineBusy as error:
        raise StageFailed("voice", str(error)) from error


async def _next_text(words: Channel[str], *, wait: bool) -> tuple[str, bool]:
    """The words that wait, and whether they are the last. While the voice has audio left, it is not kept waiting."""
    ready = words.get_waiting()
    if not ready and wait:
        try:
            ready = [await words.get(), *words.get_waiting()]
        except StopAsyncIteration:
            return "", True
    return "".join(ready), words.is_finished


async def _step(voice: Voice, slot: int, x: VoiceInput) -> VoiceOutput:
    try:
        return await voice.step(slot, x)
    except Exception as error:
        raise StageFailed("voice", f"the voice failed: {error}") from error
