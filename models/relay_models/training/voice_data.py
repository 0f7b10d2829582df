"""What the voice is trained on: recordings at 24 kHz with their words as phonemes, and sentences for synthesisers.

`python -m relay_models.training.voice_data DATA OUT` turns a folder of speech and text into one small folder that
travels to the training machine. Kathleen's prompts that are held out for every model here
(`ears_data.held_out_prompt`) are kept apart, and no sentence that shares six words in a row with one of them is said
by a synthesiser.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from relay_models.frontend import Frontend
from relay_models.frontend.lexicon import load_lexicon
from relay_models.phonemes import to_ids
from relay_models.training.ears_data import Guard, held_out_prompt, rows_of, sayable, words
from relay_models.vocoder_source import HOP_SAMPLES, RATE_HZ

Pcm = NDArray[np.int16]
Words = list[list[int]]

KATHLEEN, STRANGERS = "kathleen", "strangers"
SPEAKERS = (KATHLEEN, "rms", "awb")
"""Speakers with texts; the voice that ships is the first."""
_LEVEL = 0.1
"""Loudness of the loud parts (95th percentile of the frames' root mean squares) that every clip is brought to."""
_AUDIBLE = 10 ** (-27 / 20)
"""Loudness, against that of the loud parts, from which on a frame is speech and not the room."""
_LEAD_HOPS, _TAIL_HOPS = 2, 10
_LONGEST_HOPS = 1_000
_STRANGER_S = 4
_SOURCES = frozenset({"common_voice", "ljspeech", "slurp", "user_self_dialogue_corpus", "user_topical_chat"})


@dataclass(slots=True)
class Recordings:
    """Clips of whole hops at 24 kHz in one array.

    Attributes:
        audio: All samples, one clip after the other.
        hops: Length of each clip.
        words: Symbol ids of each clip's words, without the end; empty where the text is not known.
        speakers, names: Who speaks, and where the clip came from.
    """

    audio: Pcm = field(default_factory=lambda: np.zeros(0, np.int16))
    hops: list[int] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    speakers: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @classmethod
    def join(cls, parts: Sequence[tuple[Pcm, Words, str, str]]) -> Recordings:
        """From (samples, words, speaker, name) of each clip."""
        audio = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int16)
        hops = [len(part[0]) // HOP_SAMPLES for part in parts]
        return cls(audio, hops, [p[1] for p in parts], [p[2] for p in parts], [p[3] for p in parts])

    def __len__(self) -> int:
        return len(self.hops)

    @property
    def hours(self) -> float:
        """Length of all clips."""
        return len(self.audio) / RATE_HZ / 3600

    def save(self, stem: Path, *, compression: float) -> None:
        """Writes `stem`.json.xz and `stem`.ogg: Opus of 70 kbit/s at `compression` 0.75, 57 at 0.8."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".json.xz").write_bytes(lzma.compress(self._index()))
        path = stem.with_suffix(".ogg")
        soundfile.write(path, self.audio, RATE_HZ, format="OGG", subtype="OPUS", compression_level=compression)

    @classmethod
    def load(cls, stem: Path) -> Recordings:
        """Reads what `save` wrote. Raises OSError or ValueError when files are missing or do not fit together."""
        index = json.loads(lzma.decompress(stem.with_suffix(".json.xz").read_bytes()))
        audio, rate = soundfile.read(stem.with_suffix(".ogg"), dtype="int16")
        if rate != RATE_HZ or len(audio) != sum(index["hops"]) * HOP_SAMPLES:
            raise ValueError(f"{stem.name}: the audio does not fit its index")
        return cls(audio, **index)

    def save_raw(self, stem: Path) -> None:
        """Writes `stem`.npy, then `stem`.json: a reader that sees the second finds both whole."""
        np.save(stem.with_suffix(".npy"), self.audio)
        part = stem.with_suffix(".part")
        part.write_bytes(self._index())
        part.rename(stem.with_suffix(".json"))

    @classmethod
    def load_raw(cls, stem: Path) -> Recordings:
        """Reads what `save_raw` wrote."""
        return cls(np.load(stem.with_suffix(".npy")), **json.loads(stem.with_suffix(".json").read_bytes()))

    def _index(self) -> bytes:
        parts = {"hops": self.hops, "words": self.words, "speakers": self.speakers, "names": self.names}
        return json.dumps(parts, separators=(",", ":")).encode()


def tidy(samples: NDArray[np.floating], rate_hz: int) -> Pcm | None:
    """A clip as it is stored: 24 kHz, silence cut to 20 ms before and 100 ms after, one loudness, whole hops.

    Args:
        samples: Mono, full scale 1.
        rate_hz: Its rate.

    Returns:
        None when there is nothing to hear, or it is longer than ten seconds.
    """
    x = samples.astype(np.float32)
    if rate_hz != RATE_HZ:
        x = soxr.resample(x, rate_hz, RATE_HZ, quality="HQ")
    frames = x[: len(x) // HOP_SAMPLES * HOP_SAMPLES].reshape(-1, HOP_SAMPLES)
    if len(frames) < 10:
        return None
    loudness = np.sqrt(np.mean(frames**2, axis=1))
    loud = float(np.quantile(loudness, 0.95))
    heard = np.flatnonzero(loudness > loud * _AUDIBLE)
    # A click or a breath before speech is no beginning: two of three frames have to be heard.
    heard = heard[[bool(np.isin((i + 1, i + 2), heard).any()) for i in heard]]
    if loud < 1e-4 or not len(heard):
        return None
    kept = frames[max(0, heard[0] - _LEAD_HOPS) : heard[-1] + _TAIL_HOPS].reshape(-1)
    if len(kept) > _LONGEST_HOPS * HOP_SAMPLES:
        return None
    scaled = kept * min(_LEVEL / loud, 0.98 / float(np.abs(kept).max()))
    return np.rint(scaled * 32767).astype(np.int16)


def spell(frontend: Frontend, text: str) -> Words:
    """Symbol ids of a text's words."""
    stream = frontend.stream()
    said = [*stream.push(text), *stream.finish()]
    return [to_ids(word.symbols) for word in said]


def pack_kathleen(data: Path, out: Path, frontend: Frontend) -> list[str]:
    """Packs her recordings; returns the texts that nothing may be trained on."""
    parts: dict[bool, list[tuple[Pcm, Words, str, str]]] = {False: [], True: []}
    held_texts = []
    for row in rows_of(data / "speech/kathleen/metadata.tsv"):
        samples, rate_hz = soundfile.read(data / "speech/kathleen" / row["file"], dtype="float32")
        held = held_out_prompt(row["prompt_id"])
        if held:
            held_texts.append(sayable(row["text"], shortest=1, longest=99) or row["text"])
        if (clip := tidy(samples, rate_hz)) is not None:
            parts[held].append((clip, spell(frontend, row["text"]), KATHLEEN, row["prompt_id"]))
    Recordings.join(parts[False]).save(out / KATHLEEN, compression=0.75)
    Recordings.join(parts[True]).save(out / f"{KATHLEEN}_held_out", compression=0.75)
    return held_texts


def pack_strangers(data: Path, out: Path) -> None:
    """Packs the beginnings of the many speakers' clips, for the vocoder."""
    folder = data / "speech/librispeech_tc100_251spk"
    parts: list[tuple[Pcm, Words, str, str]] = []
    for row in rows_of(folder / "metadata.tsv"):
        samples, rate_hz = soundfile.read(folder / row["file"], dtype="float32")
        if (clip := tidy(samples[: _STRANGER_S * rate_hz], rate_hz)) is not None:
            parts.append((clip, [], STRANGERS, row["file"]))
    Recordings.join(parts).save(out / STRANGERS, compression=0.8)


def collect_texts(
    data: Path, guard: Guard, frontend: Frontend, *, count: int, seed: int = 0
) -> list[tuple[str, Words]]:
    """Sentences for synthesisers as they are to be said, with their words: a random choice without held-out ones."""
    with gzip.open(data / "text/prompts.txt.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").partition("\t") for line in lines]
    texts = [text for source, _, text in rows if source in _SOURCES]
    random.Random(seed).shuffle(texts)
    chosen: list[tuple[str, Words]] = []
    for text in texts:
        said = sayable(text, shortest=3, longest=18)
        if said is not None and not guard.refuses(words(said)):
            chosen.append((said, spell(frontend, said)))
            if len(chosen) == count:
                break
    return chosen


def save_texts(texts: Sequence[tuple[str, Words]], path: Path) -> None:
    """Sentences with their words, xz."""
    path.write_bytes(lzma.compress(json.dumps(list(texts), separators=(",", ":")).encode(), preset=9))


def load_texts(path: Path) -> list[tuple[str, Words]]:
    """Reads what `save_texts` wrote."""
    return [(text, spelled) for text, spelled in json.loads(lzma.decompress(path.read_bytes()))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with speech/ and text/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--lexicon", type=Path, help="folder of the lexicon; the shipped one when left out")
    parser.add_argument("--sentences", type=int, default=12_000, help="for the synthesisers")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    frontend = Frontend(load_lexicon(args.lexicon))
    guard = Guard(pack_kathleen(args.data, args.out, frontend))
    pack_strangers(args.data, args.out)
    save_texts(collect_texts(args.data, guard, frontend, count=args.sentences), args.out / "texts.json.xz")
    size = sum(path.stat().st_size for path in args.out.iterdir() if path.is_file())
    print(f"{size / 1e6:.1f} MB; Flite's libraries belong into tts/ beside it")


if __name__ == "__main__":
    main()
