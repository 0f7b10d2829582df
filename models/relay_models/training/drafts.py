"""What the draft model really drafts, rated by the slow model itself: what the verifier learns from.

    python -m relay_models.training.drafts EARS DRAFT OUT --shards SHARDS --root ROOT --gpus 4

SHARDS are spoken dialogues that the draft model was not trained on (`draft_data say --held-out N`). At each reply's
beginning the model drafts; the slow model (the brain), given the true transcript, rates the draft: how much less likely
it finds the drafted words than its own best start, in nats a token (the *regret*). No person and no hosted judge is
asked. What regret is too much is calibrated on true replies against replies to other questions (`rating`): those that
people and rules wrote, in ROOT of `draft_data prepare`, for the brain's own (`draft_answers`) regret nothing.

OUT gets the rated drafts, in files small enough to travel one by one (`rated`), and examples.tsv: examples with their
labels, to be checked by hand (`verifier_check`).
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relay_models.decoder import load_packed_decoder
from relay_models.decoding import GreedyTransducer
from relay_models.draft import DraftModel, Special, load_draft
from relay_models.draft_stream import RIGHT, Drafter
from relay_models.drafting import Drafted
from relay_models.ears import Ears, load_ears
from relay_models.loading import WEIGHTS_DIR
from relay_models.state import StreamState, valid_positions
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.conversations import ASSISTANT, Kind
from relay_models.training.draft_batches import Heard, hear
from relay_models.training.draft_data import Spoken, Turn, Turns, dialogue_lines, read_shard
from relay_models.training.rated import write_rated
from relay_models.training.rating import Example, Question, examples_of, likeliest, tolerance_of

_CONTEXT = 480


def part_of(turns: Sequence[Turn]) -> str:
    """The part that a dialogue belongs to, by its text, whatever voice says it."""
    text = "/".join(turn.text for turn in turns if turn.kind == Kind.TURN.value)[:80]
    share = zlib.crc32(text.encode()) % 100
    return "train" if share < 70 else "calibrate" if share < 85 else "judge"


def context_of(turns: Sequence[Turn], before: int, tokenizer: ChatTokenizer) -> list[int]:
    """Tokens of what was said before turn number `before`, backchannels left out, and the assistant's opener."""
    tokens: list[int] = []
    for turn in turns[:before]:
        if turn.kind != Kind.BACKCHANNEL.value and turn.text:
            tokens += tokenizer.turn("assistant" if turn.speaker == ASSISTANT else "user", turn.text)
    return [*tokens[-_CONTEXT:], tokenizer.assistant]


@torch.no_grad()
def confidences(ears: Ears, dialogues: Sequence[Spoken]) -> list[list[float]]:
    """For each turn of each dialogue: mean probability of the tokens that the recogniser hears in it; 0 for none.

    All dialogues are one batch: decoding walks frame by frame, however many there are.
    """
    device = next(ears.parameters()).device
    greedy = GreedyTransducer(ears.predictor, ears.joint)
    lengths = torch.tensor([len(one.pcm) for one in dialogues])
    pcm = torch.zeros(len(dialogues), int(lengths.max()))
    for row, one in enumerate(dialogues):
        pcm[row, : len(one.pcm)] = torch.from_numpy(one.pcm.astype(np.float32) / 32768)
    features, mels = ears.features(pcm.to(device), lengths.to(device))
    encoded = ears.encoder(features, mels, RIGHT)
    valid = valid_positions(encoded.lengths, encoded.frames.shape[1])
    emissions, _ = greedy.step(encoded.frames, valid, StreamState(greedy.fresh_tensors(len(dialogues))))
    found = []
    for one, tokens in zip(dialogues, emissions.by_row(), strict=True):
        sure = [
            [np.exp(each.log_probability) for each in tokens if 2 * turn.first <= each.frame <= 2 * turn.last + 1]
            for turn in one.turns
        ]
        found.append([float(np.mean(each)) if each else 0.0 for each in sure])
    return found


def questions_of(
    heard: Heard, sure: Sequence[float], tokenizer: ChatTokenizer, model: DraftModel
) -> dict[int, Question]:
    """The questions of a dialogue by the frame at which the reply begins."""
    begin = model.config.token(Special.BOS)
    frames = torch.nonzero(heard.labels == begin)[:, 0].tolist()
    replies = [
        (number, turn) for number, turn in enumerate(heard.turns) if turn.speaker == ASSISTANT and turn.kind == "turn"
    ]
    questions: dict[int, Question] = {}
    for frame, (number, turn) in zip(frames, replies, strict=False):
        users = [
            at for at in range(number) if heard.turns[at].speaker != ASSISTANT and heard.turns[at].kind != "backchannel"
        ]
        if users:
            questions[frame] = Question(
                context=context_of(heard.turns, number, tokenizer),
                reply=tokenizer.encode(turn.text),
                confidence=sure[users[-1]],
                part=part_of(heard.turns),
                asked=heard.turns[users[-1]].text,
            )
    return questions


@torch.no_grad()
def drafts_at(
    model: DraftModel, drafter: Drafter, dialogues: Sequence[Heard], frames: Sequence[set[int]]
) -> list[dict[int, Drafted]]:
    """What the model drafts once it has heard some frames of dialogues, with the true tokens as history.

    As in training, where the frame at which a turn begins is heard, and its text follows. By frame, for each dialogue.
    """
    device = next(model.parameters()).device
    state = model.fresh_state(len(dialogues))
    silence = model.config.token(Special.SIL)
    longest = max(len(heard.labels) for heard in dialogues)
    rows = len(dialogues)
    speech = torch.zeros(rows, 2 * longest, model.config.speech_size, device=device)
    previous = torch.full((rows, longest + 1), silence, device=device)
    for row, heard in enumerate(dialogues):
        speech[row, : len(heard.speech)] = heard.speech.float()
        previous[row, 1 : len(heard.labels) + 1] = heard.labels
    counts = torch.tensor([len(heard.labels) for heard in dialogues], device=device)
    places: list[tuple[int, int]] = []
    states: list[dict[str, Tensor]] = []
    for frame in range(longest):
        model.listen(speech[:, 2 * frame : 2 * frame + 2], previous[:, frame], state, counts > frame)
        wanted = [row for row in range(rows) if frame in frames[row]]
        if wanted:
            places += [(row, frame) for row in wanted]
            states.append({name: tensor[wanted] for name, tensor in state.tensors.items()})
    # All together: a draft takes as long for one stream as for a thousand.
    drafts: list[dict[int, Drafted]] = [{} for _ in dialogues]
    if places:
        waiting = StreamState({name: torch.cat([each[name] for each in states]) for name in states[0]})
        made = drafter.draft(waiting, range(len(places)))
        for (row, frame), drafted in zip(places, made, strict=True):
            drafts[row][frame] = drafted
    return drafts


def gather(
    paths: Sequence[Path],
    ears: Ears,
    model: DraftModel,
    tokenizer: ChatTokenizer,
    *,
    rows: int = 64,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Question, Drafted]]:
    """Drafts at the beginning of every reply of the shards, and what they answer."""
    device = next(model.parameters()).device
    drafter = Drafter(model, tokenizer)
    waiting: list[Spoken] = []
    for number, path in enumerate(paths, start=1):
        waiting += read_shard(path)
        # Shards are put together: a batch takes as long as its longest dialogue.
        while len(waiting) >= rows or (waiting and number == len(paths)):
            part, waiting = waiting[:rows], waiting[rows:]
            heard, sure = hear(ears.to(device), part), confidences(ears, part)
            asked = [questions_of(h, s, tokenizer, model) for h, s in zip(heard, sure, strict=True)]
            drafts = drafts_at(model, drafter, heard, [set(questions) for questions in asked])
            for questions, made in zip(asked, drafts, strict=True):
                yield from ((questions[frame], drafted) for frame, drafted in made.items())
            progress(f"{number} of {len(paths)} shards read")


def gather_part(part: int, args: argparse.Namespace) -> list[tuple[Question, Drafted]]:
    """`gather` for the shards of one process of `args.gpus`, on a device of its own."""
    device = torch.device("cuda", part) if torch.cuda.is_available() else torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    tokenizer = ChatTokenizer.load(args.brain / "tokenizer.json")
    paths = sorted(args.shards.glob("*.json"))[part :: args.gpus]
    ears, model = load_ears(args.ears).to(device), load_draft(args.draft).to(device)
    say = functools.partial(print, flush=True)
    return list(gather(paths, ears, model, tokenizer, rows=args.rows, progress=say))


def written_questions(dialogues: Sequence[Turns], tokenizer: ChatTokenizer, most: int) -> list[Question]:
    """The replies of written dialogues, after what was written before them; at most so many."""
    questions = []
    for dialogue in dialogues:
        turns = [Turn(speaker, text, 0, 0, Kind.TURN.value) for speaker, text in dialogue]
        for number, turn in enumerate(turns):
            if turn.speaker == ASSISTANT and number:
                context, reply = context_of(turns, number, tokenizer), tokenizer.encode(turn.text)
                questions.append(Question(context, reply, 0.0, part_of(turns), turns[number - 1].text))
    return questions[:most]


EXAMPLE_COLUMNS = ("asked", "drafted", "slow path", "true reply", "regret", "good words", "good", "by hand")


def write_examples(
    examples: Sequence[Example], best: Sequence[Sequence[int]], tolerance: float, tokenizer: ChatTokenizer, path: Path
) -> None:
    """A table for people who check the labels: they write y or n into its last column.

    Args:
        examples: What to check.
        best: Tokens of the slow model's own best start for each.
        tolerance: Regret that is just good enough.
        tokenizer: Of all text.
        path: Of the table.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(EXAMPLE_COLUMNS)
        for each, own in zip(examples, best, strict=True):
            question, drafted = each.question, tokenizer.decode(each.drafted.tokens)
            good = each.good_words(tolerance)
            shown = [question.asked, drafted, tokenizer.decode(own), tokenizer.decode(question.reply)]
            table.writerow([*shown, f"{max(each.regrets):.2f}", good, good == len(each.regrets), ""])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ears", type=Path, help="folder of the recogniser")
    parser.add_argument("draft", type=Path, help="folder of the draft model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=Path, required=True, help="spoken dialogues the draft model has not seen")
    parser.add_argument("--root", type=Path, required=True, help="that of `draft_data prepare`")
    parser.add_argument("--brain", type=Path, default=WEIGHTS_DIR / "brain")
    parser.add_argument("--gpus", type=int, default=1, help="processes that draft, one a GPU")
    parser.add_argument("--rows", type=int, default=192, help="dialogues at once")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = ChatTokenizer.load(args.brain / "tokenizer.json")
    brain = load_packed_decoder(args.brain).to(device)
    if args.gpus == 1:
        pairs = gather_part(0, args)
    else:
        with multiprocessing.get_context("spawn").Pool(args.gpus) as pool:
            parts_made = pool.map(functools.partial(gather_part, args=args), range(args.gpus), chunksize=1)
        pairs = [pair for made in parts_made for pair in made]
    if not pairs:
        raise SystemExit(f"{args.shards} holds no dialogues; say some with `draft_data say --held-out`")
    written = [turns for held_out, turns in dialogue_lines(args.root / "dialogues.xz") if held_out]
    found = tolerance_of(written_questions(written, tokenizer, 4000), brain, tokenizer.end, rows=args.rows)
    examples = examples_of(pairs, brain, tokenizer.end, rows=args.rows)
    write_rated(examples, args.out)
    facts = {**asdict(found), "drafts": len(pairs), "empty": len(pairs) - len(examples)}
    (args.out / "tolerance.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    judged = [example for example in examples if example.question.part == "judge"]
    shown = [judged[at] for at in np.random.default_rng(0).permutation(len(judged))[:200]]
    best = likeliest(brain, [each.question.context for each in shown], 10, tokenizer.end)
    write_examples(shown, best, found.nats, tokenizer, args.out / "examples.tsv")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
