"""How soon a voice sounds, how fast it speaks, and how many replies it speaks side by side in real time.

Also a command of its own, for machines that have torch and little else:

    python -m relay_benchmarks.voices FOLDER --device cuda --voices 64 --voices 256
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.engine.engine import Runner
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput

Voice = Runner[VoiceInput, VoiceOutput]

CHUNK_MS = 80.0
"""Of speech in a step: what it takes must be less, or playback runs dry."""
PERCENTILES = (50, 90, 95, 99)
WARM_UP_SENTENCES = 3
SENTENCES = (
    "Author of the danger trail, and other stories of the north.",
    "Can you help me find a restaurant near the station?",
    "The train to Cambridge leaves at 7:45 from platform 3.",
    "I would like to book a table for two people tonight.",
    "What is the weather going to be like tomorrow morning?",
    "She put the old letters back into the wooden box.",
    "My brother moved to a small town by the sea last year.",
    "It costs $12.50, and you can pay with a credit card.",
    "Nobody knew why the lights had gone out so early.",
    "Sorry, could you say the last part of the address again?",
)


@dataclass(slots=True)
class Speech:
    """One text, spoken word by word as fast as the voice goes.

    Attributes:
        pcm: [samples] int16 at 24 kHz.
        words: Where each word is.
        first_audio_ms: Wall clock of the steps from the first word to the first sound; None when there was none.
        first_audio_words: How many words had been given by then.
        step_s: Wall clock of all steps.
    """

    pcm: Int16Array
    words: list[SpokenWord] = field(default_factory=list)
    first_audio_ms: float | None = None
    first_audio_words: int = 0
    step_s: float = 0.0

    @property
    def audio_s(self) -> float:
        """Its length."""
        return len(self.pcm) / VOICE_RATE_HZ


def speak(voice: Voice, text: str, *, at_once: bool = False, slot: int = 0) -> Speech:
    """Speaks a text in a fresh slot: a word is given whenever the words before it give no more sound.

    Args:
        voice: Loaded.
        text: What is said.
        at_once: All words are given in the first step instead.
        slot: A slot that is closed.

    Raises what the voice gives as its failure.
    """
    speech = Speech(np.empty(0, dtype=np.int16))
    pieces: list[Int16Array] = []
    words = [text] if at_once else text.split()
    given, final = 0, False
    voice.open(slot)
    try:
        dry = True
        while not final:
            increment = words[given] + " " if dry and given < len(words) else ""
            given += bool(increment)
            began_s = time.perf_counter()
            (output,) = voice.step([slot], [VoiceInput(increment, final=given == len(words))])
            speech.step_s += time.perf_counter() - began_s
            if isinstance(output, BaseException):
                raise output
            dry, final = not len(output.pcm), output.final
            if len(output.pcm) and speech.first_audio_ms is None:
                speech.first_audio_ms, speech.first_audio_words = speech.step_s * 1000, given
            pieces.append(output.pcm)
            speech.words += output.words
    finally:
        voice.close(slot)
    speech.pcm = np.concatenate(pieces)
    return speech


@dataclass(frozen=True, slots=True)
class Crowd:
    """Replies spoken side by side.

    Attributes:
        voices: How many.
        steps: How many steps of all of them were measured.
        chunk_ms: Speech in a step.
        step_ms: Wall clock of a step: P50 to P99 and the largest.
        late: Share of steps that took longer than the speech they gave.
        in_real_time: Whether P99 is within it.
        audio_s_per_s: Speech made in a second, by all voices together.
    """

    voices: int
    steps: int
    chunk_ms: float
    step_ms: dict[str, float]
    late: float
    in_real_time: bool
    audio_s_per_s: float


def crowd(voice: Voice, voices: int, *, seconds: float = 20.0, warm_up_s: float = 4.0, seed: int = 0) -> Crowd:
    """Speaks `voices` replies at once, each of them sentence after sentence, a word a step while a sentence lasts.

    Every step is of all voices, as when all of them play; they begin one after the other during the warm-up, so that
    sentences begin and end at all times. `seconds` and `warm_up_s` are of speech.

    Raises:
        ValueError: The voice has fewer slots.
        Whatever the voice gives as a failure.
    """
    if voices > voice.max_slots:
        raise ValueError(f"this voice speaks {voice.max_slots} replies at most, not {voices}")
    rng = np.random.default_rng(seed)
    warm_up, steps = (max(1, round(s * 1000 / CHUNK_MS)) for s in (warm_up_s, seconds))
    begins = rng.integers(0, warm_up, voices) if voices > 1 else np.zeros(1, np.int64)
    waiting: list[list[str]] = [[] for _ in range(voices)]
    times_ms: list[float] = []
    samples = 0
    for slot in range(voices):
        voice.open(slot)
    try:
        for number in range(warm_up + steps):
            slots = [slot for slot in range(voices) if begins[slot] <= number]
            xs = []
            for slot in slots:
                if not waiting[slot]:
                    waiting[slot] = [*SENTENCES[int(rng.integers(len(SENTENCES)))].split(), ""]
                word = waiting[slot][0]
                if word:
                    waiting[slot].pop(0)
                xs.append(VoiceInput(f"{word} " if word else "", final=not waiting[slot][0]))
            began_s = time.perf_counter()
            outputs = [
                output
                for first in range(0, len(slots), voice.max_batch)
                for output in voice.step(slots[first : first + voice.max_batch], xs[first : first + voice.max_batch])
            ]
            took_ms = (time.perf_counter() - began_s) * 1000
            for slot, output in zip(slots, outputs, strict=True):
                if isinstance(output, BaseException):
                    raise output
                if output.final:
                    waiting[slot].clear()
                samples += len(output.pcm) if number >= warm_up else 0
            if number >= warm_up:
                times_ms.append(took_ms)
    finally:
        for slot in range(voices):
            voice.close(slot)
    p99 = float(np.percentile(times_ms, 99))
    return Crowd(
        voices=voices,
        steps=len(times_ms),
        chunk_ms=CHUNK_MS,
        step_ms={f"p{p}": round(float(np.percentile(times_ms, p)), 2) for p in PERCENTILES}
        | {"max": round(max(times_ms), 2)},
        late=round(float(np.mean([ms > CHUNK_MS for ms in times_ms])), 4),
        in_real_time=p99 <= CHUNK_MS,
        audio_s_per_s=round(samples / VOICE_RATE_HZ / (sum(times_ms) / 1000), 2),
    )


def alone(voice: Voice, rounds: int = 5) -> dict[str, Any]:
    """First sound and real-time factor of one reply at a time, once the voice is warm."""
    for text in SENTENCES[:WARM_UP_SENTENCES]:
        speak(voice, text)
    speeches = [speak(voice, text) for _ in range(rounds) for text in SENTENCES]
    first = [speech.first_audio_ms for speech in speeches if speech.first_audio_ms is not None]
    return {
        "replies": len(speeches),
        "first_audio_ms": {f"p{p}": round(float(np.percentile(first, p)), 2) for p in PERCENTILES},
        "first_audio_words": max(speech.first_audio_words for speech in speeches),
        "rtf": round(sum(s.step_s for s in speeches) / sum(s.audio_s for s in speeches), 4),
    }


def measure(voice: Voice, counts: Sequence[int], *, seconds: float, seed: int = 0) -> dict[str, Any]:
    """The report of a voice that is loaded: alone, and in crowds of each size."""
    return {
        "alone": alone(voice),
        "crowds": [asdict(crowd(voice, count, seconds=seconds, seed=seed)) for count in counts],
    }


def main() -> None:
    """Command line."""
    from relay.engine.voice_onnx import OnnxVoiceRunner
    from relay.engine.voice_torch import TorchVoiceRunner

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of an exported or trained voice")
    parser.add_argument("--device", choices=("cpu", "cuda", "onnx"), default="cuda", help="torch there, or ONNX")
    parser.add_argument("--voices", action="append", type=int, default=[], help="at once; also several times")
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech, measured in each crowd")
    options = parser.parse_args()
    counts = options.voices or [1, 64, 256]
    voice: Voice
    if options.device == "onnx":
        voice = OnnxVoiceRunner(options.folder)
    else:
        voice = TorchVoiceRunner(options.folder, device=options.device, max_slots=max(256, *counts))
    voice.load()
    name = options.device
    if options.device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    report = {"device": name, **measure(voice, counts, seconds=options.seconds)}
    voice.unload()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
