"""Recordings with their texts: a folder with a manifest, or a small synthetic set made on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from relay.audio import EARS_RATE_HZ, VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.files import load
from relay.errors import UsageError
from relay_benchmarks.espeak import Spoken, speak

MANIFEST = "manifest.jsonl"
LEAD_MS, TAIL_MS = 200, 600
PAD_NOISE_DBFS = -70.0
SYNTHETIC = "built-in, synthetic: eSpeak NG, the baseline voice"

SENTENCES = (
    "Can you help me find a restaurant near the station?",
    "The train to Cambridge leaves at 7:45 from platform 3.",
    "I would like to book a table for two people tonight.",
    "What is the weather going to be like tomorrow morning?",
    "She put the old letters back into the wooden box.",
    "Please turn the music down and close the kitchen door.",
    "We need 3 rooms for 5 nights, from the 21st of June.",
    "My brother moved to a small town by the sea last year.",
    "It costs $12.50, and you can pay with a credit card.",
    "Nobody knew why the lights had gone out so early.",
    "Sorry, could you say the last part of the address again?",
    "That sounds good, please remind me on Friday afternoon.",
)
SPEAKERS = (("en-us", 160, 50), ("en-us+f2", 170, 55), ("en-gb-x-rp", 155, 45), ("en-us+m3", 180, 40))


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of the reference and when it is said, in seconds of the recording."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording.

    Attributes:
        name: Its file, or who says which sentence.
        text: What is said.
        source: A sound file, or [samples] int16 at 16 kHz.
        words: When each word is said; empty where nobody knows.
        words_by: Who says so.
    """

    name: str
    text: str
    source: Path | Int16Array
    words: tuple[TimedWord, ...] = ()
    words_by: str = "reference"

    def pcm(self) -> Int16Array:
        """[samples] int16 at 16 kHz. Raises AudioFileError."""
        return load(self.source, EARS_RATE_HZ) if isinstance(self.source, Path) else self.source

    def padded(self) -> Int16Array:
        """The same with faint noise before (`LEAD_MS`) and after (`TAIL_MS`), as a turn has it. Raises AudioFileError.

        Without an end of silence the last words would be shown only because the file is over.
        """
        rng = np.random.default_rng(0)
        pcm = self.pcm()
        lead, tail = samples_in(LEAD_MS, EARS_RATE_HZ), samples_in(TAIL_MS, EARS_RATE_HZ)
        pad = np.rint(rng.standard_normal(lead + tail) * 32768 * 10 ** (PAD_NOISE_DBFS / 20)).astype(np.int16)
        return np.concatenate([pad[:lead], pcm, pad[lead:]])


@dataclass(frozen=True, slots=True)
class RecordingSet:
    """Recordings that are judged together."""

    name: str
    recordings: tuple[Recording, ...]
    synthetic: bool = False


def read_manifest(path: Path, limit: int | None = None) -> RecordingSet:
    """A set from JSON lines `{"wav", "text"}`, with `"words": [{"text", "start_s", "end_s"}]` where times are known.

    Args:
        path: The manifest, or a folder that holds `manifest.jsonl`. Files are relative to its folder.
        limit: How many recordings to take, from the first on; None: all.

    Raises:
        UsageError: There is no such file, a line is wrong, or a recording is missing.
    """
    file = path / MANIFEST if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(f"cannot read the manifest {file} ({reason}); give a file of JSON lines") from error
    recordings = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            recordings.append(_recording(line, file, number))
            if len(recordings) == limit:
                break
    if not recordings:
        raise UsageError(f"{file} names no recording; write a line with wav and text for each")
    return RecordingSet(file.absolute().parent.name if file.name == MANIFEST else file.stem, tuple(recordings))


def _recording(line: str, file: Path, number: int) -> Recording:
    try:
        entry: dict[str, Any] = json.loads(line)
        words = tuple(
            TimedWord(str(word["text"]), float(word["start_s"]), float(word["end_s"]))
            for word in entry.get("words") or ()
        )
        wav, text = entry["wav"], entry["text"]
        if not isinstance(wav, str) or not isinstance(text, str):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f'{file}, line {number}: write {{"wav": FILE, "text": TEXT}} there') from error
    source = file.parent / wav
    if not source.is_file():
        raise UsageError(f"{file}, line {number}: there is no {source}; paths are relative to the manifest")
    return Recording(wav, text, source, words)


def built_in(limit: int | None = None) -> RecordingSet:
    """The synthetic set: the fixed sentences, each by one of four eSpeak voices. Raises EngineUnavailable."""
    sentences = SENTENCES[:limit]
    said = [Spoken(text, *SPEAKERS[i % len(SPEAKERS)]) for i, text in enumerate(sentences)]
    recordings = [
        Recording(f"{spoken.voice}: {spoken.text}", spoken.text, pcm)
        for spoken, pcm in zip(said, spoken_at_ears_rate(said), strict=True)
    ]
    return RecordingSet(SYNTHETIC, tuple(recordings), synthetic=True)


def spoken_at_ears_rate(texts: Sequence[Spoken]) -> list[Int16Array]:
    """[samples] int16 at 16 kHz of every text. Raises EngineUnavailable."""
    return [soxr.resample(pcm, VOICE_RATE_HZ, EARS_RATE_HZ) for pcm in speak(texts)]
