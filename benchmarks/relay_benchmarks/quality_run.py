"""Recordings through a recogniser, chunk by chunk as fast as it goes: what it showed when, and what that took."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.engine.engine import Engine
from relay_benchmarks.quality_set import Recording

Ears = Engine[EarsInput, EarsOutput]
NO_AUDIO: Int16Array = np.empty(0, dtype=np.int16)
PARTS = 10  # in which a long run is reported


@dataclass(frozen=True, slots=True)
class Shown:
    """A change of what is shown.

    Attributes:
        given_samples: Audio given to the recogniser by then.
        stable: Text that will not change any more.
        unstable: What follows it.
    """

    given_samples: int
    stable: str
    unstable: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One utterance through a recogniser.

    Attributes:
        samples: Its length at 16 kHz.
        shown: Every change of what was shown, the last with the final answer.
        text: The final text.
        words: Its words with their times.
        step_s: Wall clock of all steps.
        processor_s: Processor time of the process over all steps.
        final_s: Wall clock of the last step: from the end of the utterance to its final text.
    """

    samples: int
    shown: tuple[Shown, ...]
    text: str
    words: tuple[Word, ...]
    step_s: float
    processor_s: float
    final_s: float


async def hear(pcm: Int16Array, ears: Ears, chunk_samples: int) -> Heard:
    """Steps a fresh slot through one utterance.

    Args:
        pcm: [samples] int16 at 16 kHz.
        ears: The recogniser.
        chunk_samples: Audio given at a time.

    Raises:
        Whatever the recogniser raises.
    """
    shown: list[Shown] = []
    before = ("", "")
    begin_s, begin_processor_s = time.perf_counter(), time.process_time()
    async with ears.slot() as slot:
        for end, chunk in _chunks(pcm, chunk_samples):
            output = await ears.step(slot, EarsInput(chunk))
            if (output.stable, output.unstable) != before:
                before = (output.stable, output.unstable)
                shown.append(Shown(end, output.stable, output.unstable))
        last_s = time.perf_counter()
        final = await ears.step(slot, EarsInput(NO_AUDIO, final=True))
        end_s = time.perf_counter()
        processor_s = time.process_time() - begin_processor_s
    shown.append(Shown(len(pcm), final.stable, ""))
    return Heard(len(pcm), tuple(shown), final.stable, final.words, end_s - begin_s, processor_s, end_s - last_s)


@dataclass(slots=True)
class LongRun:
    """One slot over a long time, in `PARTS` equal parts.

    Attributes:
        audio_s: Length of the audio.
        chunk_ms: Median wall clock of a chunk, for each part.
        chunk_p99_ms: The same, 99th percentile.
        rss_mb: Resident memory of the process at the beginning and after each part.
    """

    audio_s: float = 0.0
    chunk_ms: list[float] = field(default_factory=list)
    chunk_p99_ms: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)


async def hear_long(
    recordings: Sequence[Recording],
    ears: Ears,
    chunk_samples: int,
    *,
    seconds: float,
    on_audio: Callable[[float], None] = lambda seconds: None,
) -> LongRun:
    """Steps one slot through the recordings, over and over, as one utterance that does not end.

    Args:
        recordings: What is heard.
        ears: The recogniser.
        chunk_samples: Audio given at a time.
        seconds: How much audio in all.
        on_audio: Told of seconds of audio as they are done.

    Raises:
        AudioFileError: A recording cannot be read.
        Whatever the recogniser raises.
    """
    process = psutil.Process()
    chunks = max(PARTS, round(seconds * EARS_RATE_HZ / chunk_samples))
    audio = _endless(recordings, chunk_samples)
    run = LongRun(audio_s=chunks * chunk_samples / EARS_RATE_HZ)
    async with ears.slot() as slot:
        for part in range(PARTS):
            run.rss_mb.append(process.memory_info().rss / 1e6)
            count = chunks * (part + 1) // PARTS - chunks * part // PARTS
            times_ms = np.empty(count)
            for i, chunk in enumerate(itertools.islice(audio, count)):
                begin_s = time.perf_counter()
                await ears.step(slot, EarsInput(chunk))
                times_ms[i] = (time.perf_counter() - begin_s) * 1000.0
            run.chunk_ms.append(float(np.median(times_ms)))
            run.chunk_p99_ms.append(float(np.percentile(times_ms, 99)))
            on_audio(count * chunk_samples / EARS_RATE_HZ)
        run.rss_mb.append(process.memory_info().rss / 1e6)
    return run


@contextlib.contextmanager
def one_core() -> Iterator[bool]:
    """Holds this thread, and the threads that it starts, on one core; gives whether this system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, allowed)


def _chunks(pcm: Int16Array, chunk_samples: int) -> Iterator[tuple[int, Int16Array]]:
    """Each chunk after the place where it ends."""
    for at in range(0, len(pcm), chunk_samples):
        chunk = pcm[at : at + chunk_samples]
        yield at + len(chunk), chunk


def _endless(recordings: Sequence[Recording], chunk_samples: int) -> Iterator[Int16Array]:
    """Whole chunks of the recordings in turn, without an end."""
    rest = NO_AUDIO
    for recording in itertools.cycle(recordings):
        joined = np.concatenate([rest, recording.padded()])
        whole = len(joined) // chunk_samples * chunk_samples
        yield from np.split(joined[:whole], whole // chunk_samples) if whole else ()
        rest = joined[whole:]
