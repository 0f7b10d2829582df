"""Trains the tokenizer of the embedded language model: `python -m relay_models.training.brain_tokenizer DATA OUT`."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from relay_models.tokenizer import ChatTokenizer, train_bpe
from relay_models.training.brain_data import Generator, read_books, read_dialogues, read_prompts
from relay_models.training.spoken import misheard, spoken

VOCABULARY = 8192


def texts(folder: Path, sources: Sequence[str], *, by_rule: int = 20_000, book_share: int = 6) -> Iterator[str]:
    """Every dialogue turn, heard and written, and one in `book_share` chunks of the books."""
    chance = random.Random(0)
    for index, (text, held_out) in enumerate(read_books(folder)):
        if index % book_share == 0 and not held_out:
            yield spoken(text)
    generator = Generator(read_prompts(folder, sources), seed=0)
    made = (generator.dialogue(index) for index in range(by_rule))
    for dialogues in (read_dialogues(folder, sources), made):
        for dialogue in dialogues:
            for role, text in dialogue.turns:
                yield misheard(text, chance) if role == "user" and chance.random() < 0.5 else text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with books.txt.gz, dialogues.jsonl.gz, prompts.txt.gz")
    parser.add_argument("out", type=Path, help="tokenizer.json to write")
    parser.add_argument(
        "--sources", nargs="+", default=["self_dialogue_corpus", "topical_chat", "taskmaster3", "taskmaster4"]
    )
    args = parser.parse_args()
    tokenizer = ChatTokenizer(train_bpe(texts(args.data, args.sources), vocabulary=VOCABULARY))
    tokenizer.save(args.out)
    print(f"{tokenizer.size} tokens -> {args.out}")


if __name__ == "__main__":
    main()
