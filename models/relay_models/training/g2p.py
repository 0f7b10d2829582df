"""Trains letters-to-sounds on a pronunciation dictionary and packs model and dictionary for the front end.

    python -m relay_models.training.g2p cmudict.dict OUT [--minutes 5] [--ship]

`cmudict.dict` is the CMU Pronouncing Dictionary (github.com/cmusphinx/cmudict, BSD-2-Clause). One word in ten, chosen
by a hash of its spelling, is left out of training and measures the model. Everything runs on one core. `--ship` enters
OUT into the manifest of shipped weights; OUT is then `weights/frontend` of this package.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from relay_models import loading
from relay_models.frontend.g2p import (
    HISTORY,
    OUTSIDE,
    REACH,
    STRESS_STATES,
    LettersToSounds,
    history_rows,
    letter_ids,
    stress_state,
    window_rows,
)
from relay_models.frontend.lexicon import MODEL_NAME, TENSORS, PackedDictionary, Phonemes, inflected
from relay_models.training.g2p_alignment import Alignment, align

MASK_ROWS = 32
BEAM = 4
RAREST_CHUNK = 5
"""A chunk seen less often is an accident of the alignment; its words are left out of training."""
SUMMARY = "text front end: pronunciation dictionary and letters to sounds, int8; American English"
LICENCE = "Apache-2.0 AND BSD-2-Clause"


@dataclass(frozen=True, slots=True)
class Width:
    """Size of the network: its two hidden layers, and how much of each is dropped in training."""

    hidden: int
    inner: int
    dropout: float


WIDTH = Width(hidden=512, inner=256, dropout=0.15)


def read_dictionary(path: Path) -> dict[str, list[Phonemes]]:
    """Words of a to z and apostrophes with their pronunciations, from a file in the layout of `cmudict.dict`."""
    words: dict[str, list[Phonemes]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.partition("#")[0].split()
        spelling = re.sub(r"\(\d+\)$", "", word)
        if re.fullmatch(r"[a-z']*[a-z][a-z']*", spelling):
            words.setdefault(spelling, []).append(tuple(phonemes))
    return words


def is_held_out(word: str) -> bool:
    """Whether a word is of the tenth that is not trained on. Possessives go with their word."""
    return zlib.crc32(word.removesuffix("'s").encode()) % 10 == 0


@dataclass(frozen=True, slots=True)
class Examples:
    """Every letter of the training words: `windows` [n, 2 * REACH + 1], `histories` [n, HISTORY + 1], `chunks` [n]."""

    windows: Tensor
    histories: Tensor
    chunks: Tensor


def examples_of(alignments: Mapping[str, Alignment], inventory: Sequence[Sequence[str]]) -> Examples:
    """Training rows of aligned words; each chunk of them is in the inventory."""
    ids = {tuple(chunk): i for i, chunk in enumerate(inventory)}
    windows, histories, chunks = [], [], []
    for word, alignment in alignments.items():
        windows.append(window_rows(letter_ids(word)).astype(np.int32))
        said: list[int] = []
        state = 0
        for chunk in alignment:
            histories.append(history_rows(said[-HISTORY:], state, len(inventory)))
            said.append(ids[chunk])
            state = stress_state(state, chunk)
        chunks += said
    return Examples(
        torch.from_numpy(np.concatenate(windows)),
        torch.tensor(histories, dtype=torch.int32),
        torch.tensor(chunks, dtype=torch.int64),
    )


class Network(nn.Module):
    """The model of `relay_models.frontend.g2p` as it is trained. `chunks` is the number of kinds."""

    def __init__(self, chunks: int, width: Width) -> None:
        super().__init__()
        self._dropout = width.dropout
        hidden, inner = width.hidden, width.inner
        self.letters = nn.EmbeddingBag((2 * REACH + 1) * (OUTSIDE + 1), hidden, mode="sum")
        self.history = nn.EmbeddingBag(HISTORY * (chunks + 1) + STRESS_STATES, hidden, mode="sum")
        for table in (self.letters, self.history):
            nn.init.normal_(table.weight, std=0.1)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.inner = nn.Linear(hidden, inner)
        self.outer = nn.Linear(inner, chunks)

    def forward(self, windows: Tensor, histories: Tensor) -> Tensor:
        """Row numbers [n, 2 * REACH + 1] and [n, HISTORY + 1] -> logits [n, chunks]."""
        hidden = torch.relu(self.letters(windows) + self.history(histories) + self.bias)
        hidden = torch.relu(self.inner(self._thinned(hidden)))
        logits: Tensor = self.outer(self._thinned(hidden))
        return logits

    def _thinned(self, hidden: Tensor) -> Tensor:
        """Dropout with one mask for every `MASK_ROWS` rows: drawing a mask for each costs more than the products."""
        if not self.training:
            return hidden
        masks = torch.rand(-(-len(hidden) // MASK_ROWS), 1, hidden.shape[1]) >= self._dropout
        rows = masks.expand(-1, MASK_ROWS, -1).reshape(-1, hidden.shape[1])[: len(hidden)]
        return hidden * rows / (1 - self._dropout)

    def packed(self) -> dict[str, NDArray[Any]]:
        """The tensors that `LettersToSounds` reads."""
        tensors: dict[str, NDArray[Any]] = {
            "letters.bias": self.bias.detach().numpy(),
            "inner.bias": self.inner.bias.detach().numpy(),
            "outer.bias": self.outer.bias.detach().numpy(),
        }
        matrices = {
            "letters": self.letters.weight,
            "history": self.history.weight,
            "inner": self.inner.weight.T,
            "outer": self.outer.weight.T,
        }
        for name, matrix in matrices.items():
            weights = matrix.detach().numpy()
            scale = np.maximum(np.abs(weights).max(axis=0), 1e-8) / 127
            # In C order: safetensors writes an array's memory as it lies.
            tensors[name] = np.ascontiguousarray(np.round(weights / scale).astype(np.int8))
            tensors[f"{name}.scale"] = scale.astype(np.float32)
        return tensors


def batches(examples: Examples, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One pass over all letters in a new order."""
    order = torch.randperm(len(examples.chunks), generator=generator)
    for start in range(0, len(order), size):
        at = order[start : start + size]
        yield examples.windows[at], examples.histories[at], examples.chunks[at]


def train(examples: Examples, chunks: int, *, width: Width, rate: float, batch: int, minutes: float) -> Network:
    """Trains for a given time of one core: AdamW, rate falling as a cosine to nothing, averaged weights (EMA)."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    network = Network(chunks, width)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01, fused=True)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    start, epoch, done = time.process_time(), 0, 0.0
    while done < 1:
        total, seen = 0.0, 0
        for windows, histories, targets in batches(examples, batch, generator):
            done = (time.process_time() - start) / (60 * minutes)
            if done >= 1 and seen:
                break
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, done * 50 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
            loss = nn.functional.cross_entropy(network(windows, histories), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            average.update_parameters(network)
            total, seen = total + loss.item(), seen + 1
        epoch += 1
        print(f"epoch {epoch}: {total / seen:.4f} nats a letter, {time.process_time() - start:.0f} s", flush=True)
    trained = average.module.eval()
    assert isinstance(trained, Network)
    return trained


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How a model does on words, against the nearest of each word's pronunciations.

    Attributes:
        words: Number of words.
        word_error: Share of words with any error, stress included.
        phoneme_error: Edit distance over phonemes of the references, stress included.
        word_error_bare: Share of words with an error other than in stress.
        phoneme_error_bare: Edit distance without stress.
    """

    words: int
    word_error: float
    phoneme_error: float
    word_error_bare: float
    phoneme_error_bare: float


def measure(model: Callable[[str], Sequence[str]], references: Mapping[str, Sequence[Sequence[str]]]) -> Accuracy:
    """Accuracy on words, each with all its pronunciations."""
    errors = {True: 0, False: 0}
    wrong = {True: 0, False: 0}
    total = 0
    for word, pronunciations in references.items():
        guess = model(word)
        for stressed in (True, False):
            marks = "" if stressed else "012"
            heard = [p.rstrip(marks) for p in guess]
            distance, length = min(
                (edit_distance(heard, [p.rstrip(marks) for p in said]), len(said)) for said in pronunciations
            )
            errors[stressed] += distance
            wrong[stressed] += distance > 0
            total += length if stressed else 0
    count = len(references)
    return Accuracy(count, wrong[True] / count, errors[True] / total, wrong[False] / count, errors[False] / total)


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and substitutions that lead from one sequence to the other."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def worth_keeping(words: Mapping[str, Phonemes]) -> dict[str, Phonemes]:
    """The words of a dictionary without regular inflections, which the lexicon derives from their bases."""
    kept: dict[str, Phonemes] = {}

    def find(word: str) -> Phonemes | None:
        return kept.get(word) or inflected(word, find)

    for word in sorted(words, key=lambda word: (len(word), word)):
        if inflected(word, find) != words[word]:
            kept[word] = words[word]
    return kept


def main() -> None:
    """Reads the dictionary, trains, measures, writes OUT."""
    parser = argparse.ArgumentParser(description="Train letters to sounds and pack the dictionary.")
    parser.add_argument("dictionary", type=Path, help="cmudict.dict")
    parser.add_argument("out", type=Path, help="folder for model.safetensors and config.json")
    parser.add_argument("--minutes", type=float, default=5.0, help="time of one core for training")
    parser.add_argument("--ship", action="store_true", help="enter OUT into the manifest")
    args = parser.parse_args()
    torch.set_num_threads(1)

    pronunciations = read_dictionary(args.dictionary)
    words = {word: said[0] for word, said in pronunciations.items()}
    plain = {word: said for word, said in pronunciations.items() if "'" not in word}
    alignments = align({word: said[0] for word, said in plain.items() if not is_held_out(word)})
    counts = Counter(chunk for alignment in alignments.values() for chunk in alignment)
    chunks = [chunk for chunk, count in counts.most_common() if count >= RAREST_CHUNK]
    usual = set(chunks)
    alignments = {word: alignment for word, alignment in alignments.items() if usual.issuperset(alignment)}
    examples = examples_of(alignments, chunks)
    print(f"{len(alignments)} words, {len(examples.chunks)} letters, {len(chunks)} kinds of chunks", flush=True)
    network = train(examples, len(chunks), width=WIDTH, rate=0.003, batch=512, minutes=args.minutes)

    tensors = network.packed()
    model = LettersToSounds(tensors, chunks, beam=BEAM)
    held_out = measure(model, {word: said for word, said in plain.items() if is_held_out(word)})
    print(held_out)
    kept = worth_keeping(words)
    tensors["dictionary"] = PackedDictionary.pack(kept)
    print(f"dictionary: {len(kept)} of {len(words)} words in {tensors['dictionary'].nbytes} bytes")
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / TENSORS)
    config = {"beam": BEAM, "chunks": chunks, "held_out": asdict(held_out)}
    (args.out / "config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
    if args.ship:
        entry = loading.describe(MODEL_NAME, args.out, kind="frontend", summary=SUMMARY, licence=LICENCE)
        loading.add_to_manifest(MODEL_NAME, entry, args.out.parent)


if __name__ == "__main__":
    main()
