"""`relay transcribe`: sound files through a recogniser, in the chunks in which a caller's speech would arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.live import Live
from rich.text import Text

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.client.files import read_blocks
from relay.commands.console import complain, print_json, progress_console
from relay.engine import catalog
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.engine import Engine
from relay.errors import AudioFileError

CHUNK_MS = 80


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What `relay transcribe` was asked.

    Attributes:
        files: Sound files.
        engine: Recogniser by name, or folder with a checkpoint.
        lookahead_ms: Audio it may wait for; None: its own choice.
        json: Print every change as a JSON line.
        models_dir: Where models of the user's own are.
    """

    files: tuple[Path, ...]
    engine: str = "auto"
    lookahead_ms: int | None = None
    json: bool = False
    models_dir: Path | None = None


async def transcribe(options: TranscribeOptions) -> int:
    """Transcribes each file; one that cannot be read is reported and the others are still done.

    Returns:
        Exit status.

    Raises:
        EngineUnavailable, WeightsError, UsageError: The recogniser cannot run.
    """
    asked = catalog.EarsOptions(lookahead_ms=options.lookahead_ms)
    runner = catalog.ears(options.engine, asked, models_dir=options.models_dir)
    failed = False
    async with Engine(runner, name="ears") as ears:
        for path in options.files:
            try:
                await _transcribe_file(path, ears, options)
            except AudioFileError as error:
                complain(str(error))
                failed = True
    return int(failed)


async def _transcribe_file(path: Path, ears: Engine[EarsInput, EarsOutput], options: TranscribeOptions) -> None:
    console = progress_console()
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(output: EarsOutput, audio_s: float) -> None:
            if options.json:
                print_json(_line(path, output, audio_s))
            elif not console.quiet:
                live.update(_partial(output), refresh=True)

        final = await recognise(read_chunks(path), ears, show)
    if not options.json:
        print(f"{path}: {final.stable}" if len(options.files) > 1 else final.stable, flush=True)


async def recognise(
    chunks: AsyncIterator[Int16Array],
    ears: Engine[EarsInput, EarsOutput],
    on_output: Callable[[EarsOutput, float], None],
) -> EarsOutput:
    """Steps a recogniser through one utterance.

    Args:
        chunks: [samples] int16 at 16 kHz.
        ears: The recogniser.
        on_output: Called with every output that says something new and the seconds of audio given so far, and with the
            final one.

    Returns:
        The final output.
    """
    samples = 0
    said = ("", "")
    async with ears.slot() as slot:
        async for pcm in chunks:
            samples += len(pcm)
            output = await ears.step(slot, EarsInput(pcm))
            if (output.stable, output.unstable) != said:
                said = (output.stable, output.unstable)
                on_output(output, samples / EARS_RATE_HZ)
        output = await ears.step(slot, EarsInput(np.empty(0, dtype=np.int16), final=True))
    on_output(output, samples / EARS_RATE_HZ)
    return output


async def read_chunks(path: Path) -> AsyncIterator[Int16Array]:
    """A file in chunks of about 80 ms at 16 kHz, read on another thread. Raises AudioFileError."""
    blocks = read_blocks(path, EARS_RATE_HZ, CHUNK_MS / 1000)
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block


def _line(path: Path, output: EarsOutput, audio_s: float) -> dict[str, object]:
    text = " ".join(part for part in (output.stable, output.unstable) if part)
    words = [
        {
            "text": word.text,
            "start_s": round(word.start_sample / EARS_RATE_HZ, 3),
            "end_s": round(word.end_sample / EARS_RATE_HZ, 3),
        }
        for word in output.words
    ]
    kind = "final" if output.final else "partial"
    return {"type": kind, "text": text, "audio_s": round(audio_s, 3), "words": words, "file": str(path)}


def _partial(output: EarsOutput) -> Text:
    text = Text(output.stable)
    if output.stable and output.unstable:
        text.append(" ")
    return text.append(output.unstable, style="dim")
