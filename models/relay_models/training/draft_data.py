"""Spoken dialogues to train the draft model on, made from text by synthesis, on as many cores as there are.

    python -m relay_models.training.draft_data prepare DATA ROOT
    python -m relay_models.training.draft_data say ROOT OUT --kind espeak --worker 0 --seconds 600

`prepare` writes ROOT/dialogues.xz: dialogues by rule and of people (`brain_data`), in pieces of a few turns. `say` lays
them out in time (`conversations`) with two voices, rooms, noise and echo, and writes shards: what the microphone hears,
and what the model should say at each frame of 160 ms. What dialogue number n of a worker is follows from (seed, worker,
n), so that nothing needs to be kept (but for eSpeak's noise, which goes on from clip to clip). ROOT/tts holds the
synthesisers' libraries, see `ears_synthesis`. The user speaks in the voice of `--kind`, the assistant in eSpeak's.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from relay_models.draft import DRAFT_FRAME_MS, Special
from relay_models.loading import WEIGHTS_DIR
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.brain_data import Dialogue, Generator, read_dialogues, read_prompts
from relay_models.training.conversations import (
    ASSISTANT,
    RATE_HZ,
    USER,
    Habits,
    Kind,
    Label,
    Pcm,
    Say,
    Score,
    Surroundings,
    arrange,
    frame_labels,
    microphone,
)
from relay_models.training.ears_augment import Dice, coloured_noise, simulated_rooms
from relay_models.training.ears_data import sayable
from relay_models.training.ears_synthesis import KINDS, Espeak, Flite, Synthesiser, finish

FRAME_SAMPLES = RATE_HZ * DRAFT_FRAME_MS // 1000
PEOPLE = ("self_dialogue_corpus", "taskmaster3", "taskmaster4")
LONGEST_S = 60.0
_TURNS = (4, 10)
_LONGEST_REPLY_WORDS = 32
_NOISE_S = 8
_QUIET = 150

Turns = Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as it was laid out: who, what, its frames, the last one included, and the text before a pause in it."""

    speaker: int
    text: str
    first: int
    last: int
    kind: str
    before_pause: str = ""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One spoken dialogue.

    Attributes:
        pcm: [samples] int16, what the microphone hears.
        labels: Token to say at each frame.
        turns: In the order in which they begin, backchannels among them.
        pauses: First and last frame of each pause inside a user's turn.
    """

    pcm: Pcm
    labels: list[int]
    turns: list[Turn]
    pauses: list[tuple[int, int]]


# ------------------------------------------------------------------------------------------------------------- the text


def pieces_of(dialogue: Dialogue, chance: random.Random) -> Iterator[list[tuple[int, str]]]:
    """A dialogue in pieces of a few turns that begin with the user; replies too long to be spoken end a piece."""
    turns = [(USER if role == "user" else ASSISTANT, text) for role, text in dialogue.turns]
    piece: list[tuple[int, str]] = []
    wanted = chance.randint(*_TURNS)
    for speaker, text in turns:
        too_long = speaker == ASSISTANT and len(text.split()) > _LONGEST_REPLY_WORDS
        if too_long or (len(piece) >= wanted and speaker == USER):
            if any(who == ASSISTANT for who, _ in piece):
                yield piece
            piece, wanted = [], chance.randint(*_TURNS)
        if not too_long and (piece or speaker == USER):
            if piece and piece[-1][0] == speaker:
                piece[-1] = (speaker, f"{piece[-1][1]} {text}")
            else:
                piece.append((speaker, text))
    if any(who == ASSISTANT for who, _ in piece):
        yield piece


def prepare(data: Path, root: Path, *, by_rule: int, people: int, held_out: int = 0, seed: int = 0) -> dict[str, int]:
    """Writes ROOT/dialogues.xz, one a line as JSON: `{"held_out": bool, "turns": [[speaker, text], ...]}`.

    Args:
        data: Folder with dialogues.jsonl.gz and prompts.txt.gz.
        root: Made if need be.
        by_rule: Dialogues to make by rule.
        people: Most pieces of people's dialogues to train on.
        held_out: About how many dialogues by rule to make beside them that are held out.
        seed: Of everything.

    Returns:
        How many pieces there are of each kind.
    """
    chance = random.Random(seed)
    generator = Generator(read_prompts(data, PEOPLE), seed=seed)
    made = [(d.held_out, piece) for d in map(generator.dialogue, range(by_rule)) for piece in pieces_of(d, chance)]
    # The verifier learns from what nothing else has seen, and needs more of it than a fiftieth.
    further = filter(lambda d: d.held_out, map(generator.dialogue, range(by_rule, by_rule + 50 * held_out)))
    made += [(True, piece) for d in further for piece in pieces_of(d, chance)]
    told = [(d.held_out, piece) for d in read_dialogues(data, PEOPLE) for piece in pieces_of(d, chance)]
    chance.shuffle(told)
    kept = [each for each in told if each[0]]
    told = [*[each for each in told if not each[0]][:people], *kept]
    every = [*made, *told]
    chance.shuffle(every)
    root.mkdir(parents=True, exist_ok=True)
    write_dialogues(every, root / "dialogues.xz")
    return {"by rule": len(made), "people": len(told), "held out": sum(held for held, _ in every)}


def write_dialogues(dialogues: Iterable[tuple[bool, Turns]], path: Path) -> None:
    """Writes (held out, turns), one a line as JSON; the file appears when it is whole."""
    lines = [json.dumps({"held_out": held, "turns": turns}) for held, turns in dialogues]
    part = path.with_suffix(".part")
    part.write_bytes(lzma.compress("\n".join(lines).encode()))
    part.rename(path)


def dialogue_lines(path: Path) -> list[tuple[bool, list[tuple[int, str]]]]:
    """What `write_dialogues` wrote."""
    entries = map(json.loads, lzma.decompress(path.read_bytes()).decode().split("\n"))
    return [(e["held_out"], [(who, text) for who, text in e["turns"]]) for e in entries]


def load_dialogues(root: Path, *, held_out: bool) -> list[list[tuple[int, str]]]:
    """The dialogues of ROOT that are, or are not, for judging only; as the brain answers them where it has."""
    paths = sorted(root.glob("answered-*.xz")) or [root / "dialogues.xz"]
    return [turns for path in paths for held, turns in dialogue_lines(path) if held == held_out]


# ------------------------------------------------------------------------------------------------------------ the sound


class Voices:
    """Says texts in two voices that stay the same throughout a dialogue; see `conversations.Say`.

    Args:
        user, assistant: Their synthesisers.
        key: Whatever it is, it decides the voices.
    """

    def __init__(self, user: Synthesiser, assistant: Synthesiser, key: tuple[int, ...]) -> None:
        self._synthesisers = {USER: user, ASSISTANT: assistant}
        self._key = key

    def __call__(self, text: str, speaker: int) -> Pcm | None:
        """[samples] int16 at 16 kHz without silence around them; None when it cannot be said."""
        said = sayable(text, shortest=1, longest=40)
        if said is None:
            return None
        # The same chance each time draws the same voice, rate and pitch.
        samples, rate_hz, _ = self._synthesisers[speaker].say(said, np.random.default_rng((*self._key, speaker)))
        clip = finish(samples, rate_hz)
        return None if clip is None else trimmed(clip)


def trimmed(pcm: Pcm) -> Pcm | None:
    """Without the silence before and after; None when there is nothing else."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _QUIET)
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else None


def surroundings(seed: int) -> Surroundings:
    """A place to talk in: noise 10 to 45 dB below speech; a room; for seven in ten, echo 20 to 50 dB below speech."""
    dice, chance = Dice(seed, torch.device("cpu")), random.Random(seed)
    noise = coloured_noise(1, _NOISE_S * RATE_HZ, dice)[0].numpy()

    def room() -> NDArray[np.float32]:
        response = simulated_rooms(1, dice)[0].numpy().astype(np.float32)
        response[1:] *= 10 ** (-chance.uniform(0, 20) / 20)
        return response

    echo_db = chance.uniform(20, 50) if chance.random() < 0.7 else None
    return Surroundings(noise, chance.uniform(10, 45), room(), room(), echo_db)


def tokens_of(labels: Iterable[Label | int], text_tokens: int) -> list[int]:
    """Labels as ids of the draft model."""
    return [text_tokens + Special[each.value[1:-1]] if isinstance(each, Label) else each for each in labels]


def spoken(
    turns: Turns, say: Say, tokenizer: ChatTokenizer, key: tuple[int, ...], habits: Habits | None = None
) -> Spoken | None:
    """A dialogue, said. None when nothing of use is left: no reply, or more than `LONGEST_S`.

    Args:
        turns: (speaker, text), in order.
        say: The two voices.
        tokenizer: Of the model's text.
        key: Decides all that is drawn.
        habits: How they converse.
    """
    chance = np.random.default_rng(key)
    score = arrange(turns, say, habits or Habits(), chance, lead_s=float(chance.uniform(0.3, 1.5)))
    if score.samples > LONGEST_S * RATE_HZ or not any(
        u.speaker == ASSISTANT and u.kind is Kind.TURN for u in score.utterances
    ):
        return None
    pcm = microphone(score, surroundings(int(chance.integers(1 << 31))), peak=float(chance.uniform(0.1, 0.9)))
    labels = tokens_of(frame_labels(score, tokenizer.encode, frame_samples=FRAME_SAMPLES), tokenizer.size)
    return Spoken(pcm, labels, turns_of(score), pauses_of(score))


def turns_of(score: Score) -> list[Turn]:
    """All utterances; of one that was broken off, the text that was heard."""
    turns = []
    for u in score.utterances:
        before_pause = u.phrases[0].text if len(u.phrases) > 1 else ""
        frames = u.first // FRAME_SAMPLES, (u.last - 1) // FRAME_SAMPLES
        turns.append(Turn(u.speaker, u.text, *frames, u.kind.value, before_pause))
    return turns


def pauses_of(score: Score) -> list[tuple[int, int]]:
    """Frames of the pauses inside the user's turns."""
    return [
        (u.phrases[0].last // FRAME_SAMPLES, (u.phrases[1].first - 1) // FRAME_SAMPLES)
        for u in score.utterances
        if u.speaker == USER and len(u.phrases) > 1
    ]


# --------------------------------------------------------------------------------------------------------------- shards


def write_shard(dialogues: Sequence[Spoken], out: Path, name: str) -> None:
    """Writes NAME.npy and NAME.json; a reader that sees the second finds both whole."""
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / f"{name}.npy", np.concatenate([d.pcm for d in dialogues]) if dialogues else np.zeros(0, np.int16))
    index = [
        {
            "samples": len(d.pcm),
            "labels": d.labels,
            "turns": [[t.speaker, t.text, t.first, t.last, t.kind, t.before_pause] for t in d.turns],
            "pauses": d.pauses,
        }
        for d in dialogues
    ]
    (out / f"{name}.part").write_text(json.dumps(index), encoding="utf-8")
    (out / f"{name}.part").rename(out / f"{name}.json")


def read_shard(index: Path) -> list[Spoken]:
    """Reads a shard by its .json file."""
    audio, at, dialogues = np.load(index.with_suffix(".npy")), 0, []
    for entry in json.loads(index.read_text(encoding="utf-8")):
        pcm = audio[at : at + entry["samples"]]
        at += entry["samples"]
        turns = [Turn(*turn) for turn in entry["turns"]]
        dialogues.append(Spoken(pcm, entry["labels"], turns, [(a, b) for a, b in entry["pauses"]]))
    return dialogues


def synthesisers(kind: str, root: Path) -> tuple[Synthesiser, Synthesiser]:
    """The user's and the assistant's. Raises SynthesisError when a library is missing."""
    espeak = Espeak(root)
    return (espeak if kind == "espeak" else Flite(root, kind)), espeak


def say_shards(
    dialogues: Sequence[Turns],
    voices: Callable[[tuple[int, ...]], Say],
    tokenizer: ChatTokenizer,
    out: Path,
    name: str,
    *,
    key: tuple[int, ...],
    seconds: float,
    most: int | None = None,
    shard_s: float = 600.0,
) -> int:
    """Writes shards of about `shard_s` of sound each until the time is over, or `most` dialogues are said.

    Returns:
        How many dialogues were said.
    """
    end = time.monotonic() + seconds
    order = np.random.default_rng(key).permutation(len(dialogues))
    number = shard = count = 0
    while time.monotonic() < end and (most is None or count < most):
        said: list[Spoken] = []
        wanted_s = shard_s if shard else shard_s / 8  # the first one comes early
        while sum(len(d.pcm) for d in said) < wanted_s * RATE_HZ and (most is None or count + len(said) < most):
            if time.monotonic() >= end or (most is not None and number >= 2 * most + len(dialogues)):
                break
            one = (*key, number)
            dialogue = spoken(dialogues[order[number % len(order)]], voices(one), tokenizer, one)
            number += 1
            if dialogue is not None:
                said.append(dialogue)
        if not said:
            break
        write_shard(said, out, f"{name}-{shard:04}")
        shard, count = shard + 1, count + len(said)
    return count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    preparing = verbs.add_parser("prepare", help="texts of dialogues -> ROOT")
    preparing.add_argument("data", type=Path, help="folder with dialogues.jsonl.gz and prompts.txt.gz")
    preparing.add_argument("root", type=Path)
    preparing.add_argument("--by-rule", type=int, default=60_000)
    preparing.add_argument("--people", type=int, default=20_000)
    preparing.add_argument("--held-out", type=int, default=1500)
    saying = verbs.add_parser("say", help="one worker: ROOT -> shards")
    saying.add_argument("root", type=Path)
    saying.add_argument("out", type=Path)
    saying.add_argument("--kind", choices=(*KINDS, "slt"), required=True)
    saying.add_argument("--worker", type=int, default=0)
    saying.add_argument("--seed", type=int, default=0)
    saying.add_argument("--seconds", type=float, default=60.0)
    saying.add_argument("--held-out", type=int, metavar="N", help="say N dialogues that nothing is trained on instead")
    saying.add_argument("--tokenizer", type=Path, default=WEIGHTS_DIR / "brain/tokenizer.json")
    args = parser.parse_args()
    if args.verb == "prepare":
        counts = prepare(args.data, args.root, by_rule=args.by_rule, people=args.people, held_out=args.held_out)
        print(json.dumps(counts))
        return
    torch.set_num_threads(1)
    user, assistant = synthesisers(args.kind, args.root / "tts")
    count = say_shards(
        load_dialogues(args.root, held_out=args.held_out is not None),
        lambda key: Voices(user, assistant, key),
        ChatTokenizer.load(args.tokenizer),
        args.out,
        f"{args.kind}-{args.worker:02}",
        key=(args.seed, args.worker),
        seconds=args.seconds,
        most=args.held_out,
    )
    print(f"{args.kind} {args.worker}: {count} dialogues")


if __name__ == "__main__":
    main()
