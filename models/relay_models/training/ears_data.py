"""What the ears are trained and judged on: sentences, word labels, word pieces, recordings, and what is held out.

`python -m relay_models.training.ears_data DATA OUT` turns a folder of speech, room responses and text into one small
folder that travels to the training machine. Held out of all training, text included:

- Kathleen's prompts whose id has a CRC-32 divisible by ten (`held_out_prompt`), the same for every model here;
- the book-aligned clips of strangers (`transcripts.tsv`): the development set;
- every sentence that shares six words in a row with one of these;
- one sentence in 300, by its CRC-32, for judging voices that are left out of the synthesis.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import lzma
import random
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from relay_models.features import FeatureConfig, LogMel
from relay_models.state import valid_positions
from relay_models.training.spoken import spoken

RATE_HZ = 16_000
FEATURES = FeatureConfig(offset=10.0, scale=1 / 3.5)
"""Log-mel near mean 0 and deviation 1: raw, at mean -10.6, the first layers swallow the gradient (LOG.md, "Ears")."""
SHARED_WORDS = 6
"""A sentence with this many words in a row in common with a held-out text is not trained on."""

_SOURCES = ("arctic", "common_voice", "ljspeech", "slurp", "home_assistant", "user_self_dialogue_corpus",
            "user_topical_chat", "user_taskmaster3", "user_taskmaster4")  # fmt: skip
"""Prompt sources used; `user_sgd` (CC BY-SA) is left out, so that the weights carry no condition of its licence."""

_WRITTEN_OUT = {
    "mr": "mister", "mrs": "missus", "ms": "miss", "dr": "doctor", "st": "saint", "etc": "et cetera", "vs": "versus",
    "prof": "professor", "capt": "captain", "col": "colonel", "gen": "general", "lt": "lieutenant", "rev": "reverend",
    "ave": "avenue", "blvd": "boulevard", "rd": "road", "hon": "honorable", "sgt": "sergeant", "jr": "junior",
}  # fmt: skip
_ABBREVIATION = re.compile(r"\b(" + "|".join(_WRITTEN_OUT) + r")\b\.?(?=\s|,|$)", re.IGNORECASE)
_NEEDS_STOP = frozenset({"st", "col", "gen", "rev", "hon", "ave"})
"""Abbreviations that are also names or words: written out only when a stop follows."""
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "“": None, "”": None, '"': None, "–": "-", "—": ",", "…": ",", "*": None, "_": " "}
)
_SAYABLE = re.compile(r"[A-Za-z' ,.?!;:-]+")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"']))\s+(?=[\"']?[A-Z])")
_BROKEN_END = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|Col|Gen|Lt|Rev|Hon|[A-Z])\.$")


def words(text: str) -> str:
    """The label of a text: lower-case words of a-z and inner apostrophes, one space between, nothing else."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z']", " ", plain)
    plain = re.sub(r"(?<![a-z])'+|'+(?![a-z])", " ", plain)
    return " ".join(plain.split())


def _written_out(match: re.Match[str]) -> str:
    name = match[1].lower()
    if name in _NEEDS_STOP and not match[0].endswith("."):
        return match[0]
    return _WRITTEN_OUT[name]


def sayable(text: str, *, shortest: int = 2, longest: int = 32) -> str | None:
    """A written sentence as a synthesiser should say it, or None when it cannot be said without doubt.

    Numbers and common abbreviations are written out, so that what is heard and what `words` returns are the same.

    Args:
        text: One sentence.
        shortest, longest: Bounds of its number of words.
    """
    said = spoken(text.translate(_QUOTES))
    said = _ABBREVIATION.sub(_written_out, said)
    said = re.sub(r"(?<=\w)[/-](?=\w)", " ", said)
    said = unicodedata.normalize("NFKD", said).encode("ascii", "ignore").decode()
    said = " ".join(said.replace("-", ",").split())
    if not _SAYABLE.fullmatch(said) or not shortest <= len(words(said).split()) <= longest:
        return None
    if any(len(word) > 18 or (word.isupper() and len(word) > 1) for word in said.split()):
        return None
    return said


def sentences(paragraph: str) -> Iterator[str]:
    """Sentences of a paragraph; a stop after a title or an initial ends none."""
    held = ""
    for part in _SENTENCE_END.split(" ".join(paragraph.split())):
        held = f"{held} {part}".strip()
        if not _BROKEN_END.search(held):
            yield held
            held = ""
    if held:
        yield held


def held_out_prompt(prompt_id: str) -> bool:
    """Whether a recorded prompt (`arctic_a0001`) is for judging only: a tenth of all ids, for good."""
    return zlib.crc32(prompt_id.encode()) % 10 == 0


def held_out_sentence(label: str) -> bool:
    """Whether a sentence (as `words` gives it) is for judging only: one in 300, for good."""
    return zlib.crc32(label.encode()) % 300 == 0


class Guard:
    """Knows the held-out texts, and refuses sentences that overlap with them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._short: set[str] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in texts:
            label = words(text).split()
            self._short.add(" ".join(label))
            self._runs.update(_runs(label))

    def refuses(self, label: str) -> bool:
        """Whether a sentence equals a held-out text or shares `SHARED_WORDS` words in a row with one."""
        return label in self._short or not self._runs.isdisjoint(_runs(label.split()))


def _runs(label: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(label[i : i + SHARED_WORDS]) for i in range(len(label) - SHARED_WORDS + 1))


def train_pieces(labels: Iterable[str], size: int) -> Tokenizer:
    """Byte-pair pieces of words; a piece with a leading low line begins a word. No unknowns: all letters are pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=[*"abcdefghijklmnopqrstuvwxyz'", "▁"], limit_alphabet=28, show_progress=False
    )
    tokenizer.train_from_iterator(labels, trainer)
    return tokenizer


@dataclass(slots=True)
class Clips:
    """Recordings in one array, with their texts (empty where none is known).

    Attributes:
        audio: All samples at 16 kHz, one clip after the other.
        lengths: Samples of each clip.
        texts: What is said, as labels.
        names: Where each came from: a file, a voice.
    """

    audio: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    lengths: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @classmethod
    def join(cls, parts: Sequence[tuple[NDArray[np.int16], str, str]]) -> Clips:
        """From (samples, text, name) of each clip."""
        audio = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int16)
        return cls(audio, [len(p[0]) for p in parts], [p[1] for p in parts], [p[2] for p in parts])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def hours(self) -> float:
        """Length of all clips."""
        return sum(self.lengths) / RATE_HZ / 3600

    def __iter__(self) -> Iterator[tuple[NDArray[np.int16], str]]:
        """Samples and text of each clip."""
        ends = np.cumsum(self.lengths)
        for length, end, text in zip(self.lengths, ends, self.texts, strict=True):
            yield self.audio[end - length : end], text

    def save(self, stem: Path, *, compression: float) -> None:
        """Writes `stem`.json and `stem`.ogg: Vorbis, 25 kbit/s at `compression` 1, 36 at 0.7, 60 at 0.3."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        index = {"lengths": self.lengths, "texts": self.texts, "names": self.names}
        stem.with_suffix(".json").write_text(json.dumps(index), encoding="utf-8")
        with soundfile.SoundFile(
            stem.with_suffix(".ogg"), "w", RATE_HZ, 1, format="OGG", subtype="VORBIS", compression_level=compression
        ) as file:
            for first in range(0, len(self.audio), 1 << 16):  # the encoder fails on large blocks
                file.write(self.audio[first : first + (1 << 16)])

    @classmethod
    def load(cls, stem: Path) -> Clips:
        """Reads what `save` wrote. Raises OSError or ValueError when files are missing or do not fit together."""
        index = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        audio, rate = soundfile.read(stem.with_suffix(".ogg"), dtype="int16")
        if rate != RATE_HZ or len(audio) != sum(index["lengths"]):
            raise ValueError(f"{stem.name}: the audio does not fit its index")
        return cls(audio, index["lengths"], index["texts"], index["names"])


def read_audio(path: Path) -> NDArray[np.int16]:
    """A file's first channel at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples[:, 0], rate, RATE_HZ, quality="HQ") if rate != RATE_HZ else samples[:, 0]
    return np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16)


def style_of(features: Tensor, counts: Tensor) -> Tensor:
    """Mean and deviation of each mel band over a recording: [rows, frames, bins] -> [rows, 2, bins]."""
    valid = valid_positions(counts, features.shape[1])[:, :, None]
    total = counts.clamp(min=1)[:, None]
    mean = (features * valid).sum(1) / total
    variance = ((features - mean[:, None]).square() * valid).sum(1) / total
    return torch.stack((mean, variance.sqrt()), dim=1)


def pack_styles(data: Path, out: Path) -> None:
    """Writes the spectra of the real speakers whose words are not known, and so not judged by: styles.safetensors."""
    folder = data / "speech/librispeech_tc100_251spk"
    aligned = {row["file"] for row in rows_of(folder / "transcripts.tsv")}
    front = LogMel(FEATURES)
    styles = []
    for row in rows_of(folder / "metadata.tsv"):
        if row["file"] not in aligned:
            pcm = torch.from_numpy(read_audio(folder / row["file"]).astype(np.float32) / 32768)[None]
            styles.append(style_of(*front(pcm, torch.tensor([pcm.shape[1]]))))
    save_file({"styles": torch.cat(styles)}, out / "styles.safetensors")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated file with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def pack_recordings(data: Path, out: Path) -> list[str]:
    """Packs the real recordings and rooms into `out`, and returns the texts that nothing may be trained on."""
    kathleen = rows_of(data / "speech/kathleen/metadata.tsv")
    strangers_dir = data / "speech/librispeech_tc100_251spk"
    aligned = {row["file"]: row["text"] for row in rows_of(strangers_dir / "transcripts.tsv")}
    parts: dict[str, list[tuple[NDArray[np.int16], str, str]]] = {}
    for row in kathleen:
        name = "kathleen" if held_out_prompt(row["prompt_id"]) else "train_kathleen"
        text = words(sayable(row["text"], shortest=1, longest=99) or row["text"])
        parts.setdefault(name, []).append((read_audio(data / "speech/kathleen" / row["file"]), text, row["prompt_id"]))
    for file, text in aligned.items():
        parts.setdefault("strangers", []).append((read_audio(strangers_dir / file), words(text), file))
    parts["rooms"] = [(read_audio(path), "", path.stem) for path in sorted((data / "rir").glob("*.flac"))]
    for name, clips in parts.items():
        Clips.join(clips).save(out / "clips" / name, compression=0.8 if name.startswith("train_") else 0.3)
    return [text for name in ("kathleen", "strangers") for _, text, _ in parts[name]]


def collect_texts(data: Path, guard: Guard, *, book_sentences: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences to be said: (for training, for judging), each fit for `words`, in random order."""
    chosen: dict[str, str] = {}

    def add(text: str) -> bool:
        said = sayable(text)
        label = words(said) if said else ""
        if said is None or label in chosen or guard.refuses(label):
            return False
        chosen[label] = said
        return True

    with gzip.open(data / "text/prompts.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            source, _, text = line.rstrip("\n").partition("\t")
            if source in _SOURCES:
                add(text)
    chance = random.Random(seed)
    with gzip.open(data / "text/books.txt.gz", "rt", encoding="utf-8") as file:
        paragraphs = file.read().split("\n\n")
    chance.shuffle(paragraphs)
    wanted = len(chosen) + book_sentences
    for paragraph in paragraphs:
        for sentence in sentences(paragraph):
            add(sentence)
        if len(chosen) >= wanted:
            break
    train = [said for label, said in chosen.items() if not held_out_sentence(label)]
    judge = [said for label, said in chosen.items() if held_out_sentence(label)]
    chance.shuffle(train)
    chance.shuffle(judge)
    return train, judge


def save_texts(texts: Sequence[str], path: Path) -> None:
    """One sentence a line, xz."""
    path.write_bytes(lzma.compress("\n".join(texts).encode(), preset=9))


def load_texts(path: Path) -> list[str]:
    """Reads what `save_texts` wrote."""
    return lzma.decompress(path.read_bytes()).decode().split("\n")


def prepare(data: Path, out: Path, *, book_sentences: int, pieces: int) -> None:
    """Writes everything but synthesised clips into `out`: clips/, styles, texts.xz, judge.xz, tokenizer.json."""
    out.mkdir(parents=True, exist_ok=True)
    guard = Guard(pack_recordings(data, out))
    pack_styles(data, out)
    train, judge = collect_texts(data, guard, book_sentences=book_sentences)
    save_texts(train, out / "texts.xz")
    save_texts(judge, out / "judge.xz")
    train_pieces((words(text) for text in train), pieces).save(str(out / "tokenizer.json"), pretty=False)
    print(f"{len(train)} sentences to train on, {len(judge)} to judge with")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with speech/, rir/ and text/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--book-sentences", type=int, default=200_000)
    parser.add_argument("--pieces", type=int, default=511, help="word pieces; with blank, a multiple of 8")
    args = parser.parse_args()
    prepare(args.data, args.out, book_sentences=args.book_sentences, pieces=args.pieces)


if __name__ == "__main__":
    main()
