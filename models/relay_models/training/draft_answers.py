"""The brain's own replies in place of those of the written dialogues, so that the draft model learns to begin as the
slow path will go on (sequence-level distillation, Kim and Rush 2016, arXiv 1606.07947).

    python -m relay_models.training.draft_answers ROOT --part 0/4

ROOT is that of `draft_data prepare`. Writes ROOT/answered-PART.xz, which `draft_data say` takes instead of
ROOT/dialogues.xz once all parts are there. Every reply is the likeliest text after the turns before it, the brain's
earlier replies among them; where the brain does not come to an end, the written reply stays. One GPU answers some two
thousand times a second, one CPU core thirty times.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from relay_models.decoder import Decoder, load_packed_decoder
from relay_models.loading import WEIGHTS_DIR
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.conversations import ASSISTANT
from relay_models.training.draft_data import Turns, dialogue_lines, write_dialogues
from relay_models.training.ears_data import sayable
from relay_models.training.rating import likeliest

LONGEST_TOKENS = 48
_CONTEXT = 400


def answer(dialogues: Sequence[Turns], brain: Decoder, tokenizer: ChatTokenizer) -> list[list[tuple[int, str]]]:
    """The dialogues, each reply the brain's own. All of them are one batch."""
    turns = [list(dialogue) for dialogue in dialogues]
    contexts: list[list[int]] = [[] for _ in turns]
    for place in range(max(map(len, turns), default=0)):
        asked = [row for row, each in enumerate(turns) if place < len(each) and each[place][0] == ASSISTANT]
        if asked:
            openers = [[*contexts[row][-_CONTEXT:], tokenizer.assistant] for row in asked]
            for row, tokens in zip(asked, likeliest(brain, openers, LONGEST_TOKENS, tokenizer.end), strict=True):
                text = tokenizer.decode(tokens).strip()
                if len(tokens) < LONGEST_TOKENS and sayable(text, shortest=1, longest=40) is not None:
                    turns[row][place] = (ASSISTANT, text)
        for row, each in enumerate(turns):
            if place < len(each):
                speaker, text = each[place]
                contexts[row] += tokenizer.turn("assistant" if speaker == ASSISTANT else "user", text)
    return turns


def batches_of(dialogues: Sequence[Turns], rows: int) -> Iterator[list[int]]:
    """Numbers of dialogues, `rows` at once, those together that have as many turns and are as long."""
    order = sorted(range(len(dialogues)), key=lambda n: (len(dialogues[n]), sum(len(text) for _, text in dialogues[n])))
    for start in range(0, len(order), rows):
        yield order[start : start + rows]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th dialogue from the K-th on")
    parser.add_argument("--brain", type=Path, default=WEIGHTS_DIR / "brain")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--most", type=int, help="answer only so many dialogues, those held out first")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    began = time.monotonic()
    device = torch.device("cuda", part % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    brain = load_packed_decoder(args.brain).to(device)
    tokenizer = ChatTokenizer.load(args.brain / "tokenizer.json")
    lines = sorted(dialogue_lines(args.root / "dialogues.xz"), key=lambda line: not line[0])[part::parts]
    lines = lines[: args.most]
    answered = [(held_out, list(turns)) for held_out, turns in lines]
    same = count = 0
    for numbers in batches_of([turns for _, turns in lines], args.rows):
        for number, turns in zip(numbers, answer([lines[n][1] for n in numbers], brain, tokenizer), strict=True):
            pairs = [(a, b) for a, b in zip(lines[number][1], turns, strict=True) if a[0] == ASSISTANT]
            same, count = same + sum(a == b for a, b in pairs), count + len(pairs)
            answered[number] = (lines[number][0], turns)
    write_dialogues(answered, args.root / f"answered-{part}-{parts}.xz")
    facts = {"replies": count, "as written": same, "s": round(time.monotonic() - began)}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
