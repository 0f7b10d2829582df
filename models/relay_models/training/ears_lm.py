"""Language model of the ears: `python -m relay_models.training.ears_lm ROOT OUT --books BOOKS`.

ROOT is what `ears_data` prepared; BOOKS a gzip of paragraphs with empty lines between. An n-gram model over the ears'
pieces is counted from both, without any text that the ears are judged by, pruned, quantised, and written to
OUT/lm.safetensors. Sizes and perplexities per word on what is held out are printed for this and other prunings.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from relay_models.lm import LEAST_BACK_OFF, STEPS, Lm, NGramLm, Order, save_orders, size_bytes
from relay_models.training.ears_data import Guard, held_out_sentence, load_texts, sayable, sentences, words

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


def held_out(root: Path) -> dict[str, list[str]]:
    """Labels that the ears are judged by: those of clips that are not trained on, and of `judge.xz`, by set."""
    found = {"judge": [words(text) for text in load_texts(root / "judge.xz")]}
    for path in sorted((root / "clips").glob("*.json")):
        texts = [text for text in json.loads(path.read_text(encoding="utf-8"))["texts"] if text]
        if texts and not path.stem.startswith("train_"):
            found[path.stem] = texts
    return found


def passages(paragraph: str, guard: Guard) -> list[list[str]]:
    """Labels of a paragraph's sentences, in runs that end at what cannot be said; none when one of them is held out."""
    runs: list[list[str]] = [[]]
    for sentence in sentences(paragraph):
        label = words(sayable(sentence, shortest=1, longest=1000) or "")
        if label and (guard.refuses(label) or held_out_sentence(label)):
            return []
        if label:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def collect(root: Path, books: Path | None, guard: Guard) -> Iterator[str]:
    """Labels to count: passages of the books, and those sentences of `texts.xz` that are not in them."""
    taken: set[str] = set()
    if books is not None:
        with gzip.open(books, "rt", encoding="utf-8") as file:
            paragraphs = file.read().split("\n\n")
        for paragraph in paragraphs:
            for run in passages(paragraph, guard):
                taken.update(run)
                yield " ".join(run)
    for text in load_texts(root / "texts.xz"):
        label = words(text)
        if label not in taken and not guard.refuses(label):
            yield label


def encode(labels: Iterable[str], tokenizer: Tokenizer) -> NDArray[np.uint16]:
    """Pieces of all labels in a row, the number after the last piece before each."""
    start = np.array([tokenizer.get_vocab_size()], np.uint16)
    parts: list[NDArray[np.uint16]] = []
    batch: list[str] = []
    for label in labels:
        batch.append(label)
        if len(batch) == 10_000:
            parts += [np.array(row.ids, np.uint16) for row in tokenizer.encode_batch(batch)]
            batch.clear()
    parts += [np.array(row.ids, np.uint16) for row in tokenizer.encode_batch(batch)]
    return np.concatenate([piece for part in parts for piece in (start, part)] or [start])


def count(corpus: NDArray[np.uint16], order: int, vocabulary: int) -> list[tuple[Integers, Integers]]:
    """How often n-grams of one to `order` pieces were seen.

    Args:
        corpus: What `encode` gave.
        order: The longest; with 512 pieces 7 at most.
        vocabulary: Pieces and the beginning of a text, which stands only at the beginning of an n-gram.

    Returns:
        For each length the keys as in `Grams`, sorted, and their counts. Single pieces are all there, seen or not.
    """
    tokens = corpus.astype(np.int64)
    places = np.arange(len(tokens))
    since = places - np.maximum.accumulate(np.where(tokens == vocabulary - 1, places, 0))
    found = [(np.arange(vocabulary), np.bincount(tokens, minlength=vocabulary))]
    keys = tokens.copy()
    for length in range(2, order + 1):
        keys[length - 1 :] += tokens[: len(tokens) - length + 1] * vocabulary ** (length - 1)
        found.append(np.unique(keys[since >= length - 1], return_counts=True))
    return found


def discounts(counts: Integers) -> Reals:
    """What is taken off counts of 0, 1, 2, and 3 or more (Chen and Goodman 1998, section 3)."""
    ones, twos, threes, fours = (max(1, int((counts == n).sum())) for n in (1, 2, 3, 4))
    y = ones / (ones + 2 * twos)
    taken = [0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes]
    found: Reals = np.clip(taken, [0, 0.1, 0.1, 0.1], [0, 0.95, 1.9, 2.85])  # for counts too few to tell
    return found


@dataclass(slots=True)
class Grams:
    """N-grams of one length, sorted.

    Attributes:
        keys: [n-grams] the pieces as digits, the last piece the lowest.
        counts: [n-grams] how often each was seen.
        scores: [n-grams] log-probability of the last piece after the others.
        back_offs: [n-grams] log-weight of the shorter context after this n-gram; 0 where nothing follows.
    """

    keys: Integers
    counts: Integers
    scores: Reals
    back_offs: Reals

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Forgets the others."""
        self.keys, self.counts = self.keys[chosen], self.counts[chosen]
        self.scores, self.back_offs = self.scores[chosen], self.back_offs[chosen]

    def places(self, keys: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """Where n-grams stand, and whether they do."""
        places = np.minimum(self.keys.searchsorted(keys), max(0, len(self.keys) - 1))
        known = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), bool)
        return places, known


def _sums(groups: Integers, values: Reals | Integers) -> Reals:
    """Of the values of each group."""
    return np.bincount(groups, values).astype(np.float64)


def estimate(seen: Sequence[tuple[Integers, Integers]], vocabulary: int) -> list[Grams]:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1998): probabilities of all n-grams that were seen.

    In all orders but the longest, an n-gram counts as often as different pieces stand before it, unless it begins a
    text.
    """
    found: list[Grams] = []
    for length, (keys, counts) in enumerate(seen, start=1):
        used: Integers = counts
        if length < len(seen):
            before = np.bincount(keys.searchsorted(seen[length][0] % vocabulary**length), minlength=len(keys))
            used = np.where(before > 0, before, counts)
        used = np.where(keys == vocabulary - 1, 0, used) if length == 1 else used
        contexts, parents = np.unique(keys // vocabulary, return_inverse=True)
        shares = (used - discounts(used)[np.minimum(used, 3)]) / _sums(parents, used)[parents]
        left = 1 - _sums(parents, shares)
        if length == 1:
            lower = np.full(vocabulary, 1 / (vocabulary - 1))
        else:
            shorter = found[-1]
            shorter.back_offs[shorter.keys.searchsorted(contexts)] = np.log(left)
            lower = np.exp(shorter.scores[shorter.keys.searchsorted(keys % vocabulary ** (length - 1))])
        found.append(Grams(keys, counts, np.log(shares + left[parents] * lower), np.zeros(len(keys))))
    return found


def look_up(grams: Sequence[Grams], keys: Integers, vocabulary: int) -> Reals:
    """Log-probability of the last piece of n-grams as long as the longest of `grams`, known or not."""
    places, known = grams[-1].places(keys)
    found = np.zeros(len(keys))
    found[known] = grams[-1].scores[places[known]]
    if not known.all():
        rest = keys[~known]
        places, continued = grams[-2].places(rest // vocabulary)
        weights = np.zeros(len(rest))
        weights[continued] = grams[-2].back_offs[places[continued]]
        found[~known] = weights + look_up(grams[:-1], rest % vocabulary ** (len(grams) - 1), vocabulary)
    return found


def _log(share: Reals) -> Reals:
    """Of a share that rounding may have made nothing or less."""
    y: Reals = np.log(np.maximum(share, 1e-12))
    return y


def prune(grams: Sequence[Grams], threshold: float, vocabulary: int) -> None:
    """Forgets n-grams whose loss changes the model by less than `threshold` nats a piece (Stolcke 1998, section 3).

    Longer ones first; single pieces, and what others begin with, stay. Back-offs are then made anew.
    """
    total = grams[0].counts.sum()
    for length in range(len(grams), 1, -1):
        shorter, longer = grams[length - 2], grams[length - 1]
        parents = shorter.keys.searchsorted(longer.keys // vocabulary)
        p = np.exp(longer.scores)
        lower = np.exp(look_up(grams[: length - 1], longer.keys % vocabulary ** (length - 1), vocabulary))
        left = 1 - _sums(parents, p)[parents]
        left_lower = 1 - _sums(parents, lower)[parents]
        weight, weight_without = _log(left) - _log(left_lower), _log(left + p) - _log(left_lower + lower)
        change = p * (longer.scores - weight_without - np.log(lower)) + left * (weight - weight_without)
        needed = shorter.counts[parents] / total * change >= threshold
        if length < len(grams):
            needed[longer.keys.searchsorted(grams[length].keys // vocabulary)] = True
        longer.keep(needed)
    renormalise(grams, vocabulary)


def renormalise(grams: Sequence[Grams], vocabulary: int) -> None:
    """Makes back-offs such that the probabilities after every context sum to one."""
    for length in range(2, len(grams) + 1):
        shorter, longer = grams[length - 2], grams[length - 1]
        contexts, parents = np.unique(longer.keys // vocabulary, return_inverse=True)
        lower = np.exp(look_up(grams[: length - 1], longer.keys % vocabulary ** (length - 1), vocabulary))
        left, left_lower = (1 - _sums(parents, share) for share in (np.exp(longer.scores), lower))
        shorter.back_offs = np.zeros(len(shorter.keys))
        shorter.back_offs[shorter.keys.searchsorted(contexts)] = _log(left) - _log(left_lower)


def quantise(grams: Sequence[Grams], vocabulary: int) -> list[Order]:
    """Eight bits a logarithm."""
    orders = []
    for number, order in enumerate(grams):
        following = grams[number + 1].keys // vocabulary if number + 1 < len(grams) else np.zeros(0, np.int64)
        contexts, children = np.unique(following, return_counts=True)
        continued = np.zeros(len(order.keys), bool)
        continued[order.keys.searchsorted(contexts)] = True
        back_offs = np.rint(STEPS * (order.back_offs[continued] - LEAST_BACK_OFF))
        orders.append(
            Order(
                tokens=(order.keys % vocabulary).astype(np.uint16),
                scores=np.clip(np.rint(-STEPS * order.scores), 0, 255).astype(np.uint8),
                continued=continued,
                back_offs=np.clip(back_offs, 0, 255).astype(np.uint8),
                children=children.astype(np.uint16),
            )
        )
    return orders


def perplexity(lm: Lm, labels: Sequence[str], tokenizer: Tokenizer) -> float:
    """Of the labels, per word."""
    total = 0.0
    for label in labels:
        state = lm.start()
        for token in tokenizer.encode(label).ids:
            total -= float(lm.scores(state)[token])
            state = lm.advance(state, token)
    return math.exp(total / max(1, sum(len(label.split()) for label in labels)))


def train(
    root: Path, out: Path, *, books: Path | None, order: int, thresholds: Sequence[float], most_mb: float
) -> None:
    """Writes the largest model that fits: OUT/lm.safetensors.

    Args:
        root, out, books: See above.
        order: Pieces of the longest n-grams.
        thresholds: Of `prune`, applied one after the other, each to what the one before left.
        most_mb: Largest size to write.

    Raises:
        ValueError: No model was small enough.
    """
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size() + 1
    judged = held_out(root)
    guard = Guard(text for texts in judged.values() for text in texts)
    corpus = encode(collect(root, books, guard), tokenizer)
    print(f"{len(corpus) / 1e6:.1f} M pieces", flush=True)
    grams = estimate(count(corpus, order, vocabulary), vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    written = False
    for threshold in sorted(thresholds):
        prune(grams, threshold, vocabulary)
        orders = quantise(grams, vocabulary)
        lm = NGramLm(orders)
        size_mb = size_bytes(orders) / 1e6
        rates = "  ".join(f"{name} {perplexity(lm, texts, tokenizer):.0f}" for name, texts in judged.items())
        chosen = not written and size_mb <= most_mb
        print(f"{threshold:.1e}: {size_mb:.2f} MB  {rates}{'  written' if chosen else ''}", flush=True)
        if chosen:
            save_orders(orders, out / "lm.safetensors")
            written = True
    if not written:
        raise ValueError(f"none of the models has {most_mb} MB or less; give a higher threshold")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--books", type=Path, help="books.txt.gz")
    parser.add_argument("--order", type=int, default=6)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[1e-7, 1.6e-7, 2.5e-7, 5e-7, 1e-6])
    parser.add_argument("--most-mb", type=float, default=5.0)
    args = parser.parse_args()
    train(
        args.root,
        args.out,
        books=args.books,
        order=args.order,
        thresholds=args.thresholds,
        most_mb=args.most_mb,
    )


if __name__ == "__main__":
    main()
