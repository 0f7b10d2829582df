"""`relay say`: a text through a voice, played or written as it is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.client import devices, microphone
from relay.client.files import write_wav
from relay.commands.console import note, print_json
from relay.engine import catalog
from relay.engine.engine import Engine
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.errors import StageFailed, UsageError


@dataclass(frozen=True, slots=True)
class SayOptions:
    """What `relay say` was asked.

    Attributes:
        text: What to say.
        engine: Voice by name.
        out: WAV file to write; None: play it.
        json: Print times and words as JSON.
    """

    text: str
    engine: str = "auto"
    out: Path | None = None
    json: bool = False


class Speech:
    """One text on its way through a voice; what it measured is complete once `pieces` has ended."""

    def __init__(self) -> None:
        self.samples = 0
        self.words: list[SpokenWord] = []
        self.first_audio_s: float | None = None
        self.work_s = 0.0

    async def pieces(self, voice: Engine[VoiceInput, VoiceOutput], text: str) -> AsyncIterator[Int16Array]:
        """[samples] int16 at 24 kHz, as they are made. Raises what the voice raises."""
        async with voice.slot() as slot:
            increment, final = text, False
            while not final:
                began_s = time.perf_counter()
                output = await voice.step(slot, VoiceInput(increment, final=True))
                self.work_s += time.perf_counter() - began_s
                increment, final = "", output.final
                if len(output.pcm) and self.first_audio_s is None:
                    self.first_audio_s = self.work_s
                self.samples += len(output.pcm)
                self.words += output.words
                if len(output.pcm):
                    yield output.pcm


async def say(options: SayOptions) -> int:
    """Speaks a text.

    Returns:
        Exit status.

    Raises:
        EngineUnavailable, WeightsError: The voice, or the sound device, cannot run.
        UsageError: There is nothing to say.
        AudioFileError: The file cannot be written.
        StageFailed: The voice made no sound.
    """
    if not options.text.strip():
        raise UsageError("the text is empty; give words to say")
    if options.out is None:
        devices.choose(None, "output")  # before the voice is loaded for nothing
    speech = Speech()
    async with Engine(catalog.voice(options.engine), name="voice") as voice:
        pieces = speech.pieces(voice, options.text)
        if options.out is None:
            await microphone.play(pieces)
        else:
            pcm = [piece async for piece in pieces]
            whole = np.concatenate(pcm) if pcm else np.empty(0, dtype=np.int16)
            await asyncio.to_thread(write_wav, options.out, whole, VOICE_RATE_HZ)
    if not speech.samples or speech.first_audio_s is None:
        raise StageFailed("voice", "the voice made no sound of this text; try other words, or another --engine")
    audio_s = speech.samples / VOICE_RATE_HZ
    if options.json:
        print_json(
            {
                "first_audio_ms": round(speech.first_audio_s * 1000, 1),
                "audio_s": round(audio_s, 3),
                "rtf": round(speech.work_s / audio_s, 4),
                "words": [
                    {
                        "text": word.text,
                        "start_s": round(word.start_sample / VOICE_RATE_HZ, 3),
                        "end_s": round(word.end_sample / VOICE_RATE_HZ, 3),
                    }
                    for word in speech.words
                ],
            }
        )
    elif options.out is not None:
        note(f"{options.out}: {audio_s:.1f} s, first sound after {speech.first_audio_s * 1000:.0f} ms")
    return 0
