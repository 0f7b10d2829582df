"""Text for the embedded language model: books, dialogues of people, dialogues by rule -> token sequences with weights.

The corpora are those of the data folder's README (`books.txt.gz`, `dialogues.jsonl.gz`, `prompts.txt.gz`).
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relay_models.tokenizer import ChatTokenizer
from relay_models.training import brain_facts
from relay_models.training.brain_dialogues import Turn, proper, read_blocks, read_services
from relay_models.training.spoken import misheard, spoken, tidy

HELD_OUT_PERMILLE = 20
CONTEXT = 512
_LONG_REPLY_WORDS = 32
_MANY_SENTENCES = 3
_A_BODY = re.compile(
    r"\b(?:my (?:wife|husband|kids?|sons?|daughters?|mom|mum|dad|mother|father|parents|brother|sister|family|friends?|"
    r"girlfriend|boyfriend|house|car|job|school|town|city|neighbors?|cousin|uncle|aunt|grand\w+|boss|roommate|dogs?|cats?)|"
    r"i(?:'ve| have)? (?:just |also |never |\w+ly )?(?:grew up|grown|went|gone|been to|was born|live|lived|work|worked|"
    r"bought|ate|eaten|drove|drive|used to|own|owned|married|saw|seen|watch|watched|read|heard|met|play|played|tried|"
    r"visited|remember|cried|laughed|slept|took|drank|had)|we (?:went|saw|watched|had|used to)|when i was|"
    r"as a (?:kid|child)|mturk|turker|(?:the|this) hit)\b",
    re.I,
)
_RUDE = re.compile(
    r"\b(?:fuck\w*|shit\w*|bitch\w*|asshole\w*|cunt\w*|dick|pussy|nigg\w+|fag\w*|slut\w*|whore\w*|rape\w*|porn\w*)\b",
    re.I,
)

_REMARK = re.compile(r"(?:[\w'.,!?-]+ ){2,18}[\w'.,!?-]+")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue.

    Attributes:
        source: Where it comes from.
        key: Its name within the source; decides whether it is held out.
        turns: (role, text).
    """

    source: str
    key: str
    turns: tuple[Turn, ...]

    @property
    def held_out(self) -> bool:
        """Whether it is kept for evaluation: the same dialogues in every run."""
        return zlib.crc32(f"{self.source}/{self.key}".encode()) % 1000 < HELD_OUT_PERMILLE


def read_dialogues(folder: Path, sources: Sequence[str]) -> Iterator[Dialogue]:
    """Dialogues of people in spoken form, tidied; those with rude words are left out."""
    return map(_read_line, _lines_of(folder, sources, 1.0))


def read_books(folder: Path) -> Iterator[tuple[str, bool]]:
    """Chunks of 40 paragraphs of the books, and whether each is held out."""
    with gzip.open(folder / "books.txt.gz", "rt", encoding="utf-8") as file:
        paragraphs = re.split(r"\n\s*\n", file.read())
    for start in range(0, len(paragraphs), 40):
        text = "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs[start : start + 40])
        yield text, zlib.crc32(text.encode()) % 1000 < HELD_OUT_PERMILLE // 2


@dataclass(frozen=True, slots=True)
class Prompts:
    """Single turns of people, for the dialogues by rule to answer.

    Attributes:
        commands: What people say to voice assistants (SLURP), lower case without punctuation.
        remarks: What people say to each other, from the sources trained on.
    """

    commands: Sequence[str] = ()
    remarks: Sequence[str] = ()


def read_prompts(folder: Path, sources: Sequence[str]) -> Prompts:
    """Reads prompts.txt.gz."""
    with gzip.open(folder / "prompts.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    wanted = {f"user_{source}" for source in sources}
    return Prompts(
        commands=[re.sub(r"\bolly\b", "relay", text) for source, text in lines if source == "slurp"],
        remarks=[
            tidy(spoken(text))
            for source, text in lines
            if source in wanted and _REMARK.fullmatch(text) and not _RUDE.search(text)
        ],
    )


class Generator:
    """Dialogues by rule: exchanges, tasks, questions and commands one after the other.

    Args:
        prompts: Single turns of people.
        seed: The n-th dialogue of a seed is always the same.
    """

    def __init__(self, prompts: Prompts, *, seed: int) -> None:
        self._blocks = read_blocks()
        self._services = read_services()
        self._service_weights = [service.weight for service in self._services]
        self._block_weights = [block.weight for block in self._blocks]
        self._prompts = prompts
        self._seed = seed
        self._by_name = {block.name: block for block in self._blocks}

    def dialogue(self, index: int) -> Dialogue:
        """The dialogue of this number."""
        chance = random.Random(f"{self._seed}/{index}")
        turns: list[Turn] = []
        if chance.random() < 0.05:
            hello = ("Hello, I'm Relay. How can I help you?", "Hi, this is Relay. What can I do for you?")
            turns.append(("assistant", chance.choice(hello)))
        elif chance.random() < 0.3:
            turns += self._by_name[chance.choice(("greeting", "greeting", "how_are_you", "my_name"))].play(chance)
        for _ in range(chance.choice((1, 1, 2, 2, 3, 4))):
            turns += self._exchange(chance)
        if chance.random() < 0.4:
            turns += self._by_name[chance.choice(("thanks", "goodbye", "no_more", "thanks"))].play(chance)
        return Dialogue("relay_rules", f"{self._seed}/{index}", tuple(turns))

    def _exchange(self, chance: random.Random) -> list[Turn]:
        kind = chance.random()
        if kind < 0.24:
            turns = chance.choices(self._services, self._service_weights)[0].play(chance)
            if chance.random() < 0.15:
                turns += self._by_name["really_booked"].play(chance)
            return turns
        if kind < 0.71:
            return chance.choices(self._blocks, self._block_weights)[0].play(chance)
        if kind < 0.81 and self._prompts.remarks:
            turns = []
            for _ in range(chance.choice((1, 1, 2, 3))):
                remark = chance.choice(self._prompts.remarks)
                turns += [("user", remark), ("assistant", brain_facts.listen(remark, chance))]
            return turns
        command = chance.choice(self._prompts.commands) if self._prompts.commands and kind > 0.93 else ""
        reply = brain_facts.cannot(command, chance)
        if reply is not None:
            return [("user", proper(command, "user")), ("assistant", reply)]
        asked, told = brain_facts.question(chance)
        return [("user", proper(asked, "user")), ("assistant", told)]


# What a token is, for the weight of predicting it.
PADDING, USER, ASSISTANT, UNFIT = range(4)
"""`UNFIT` is an assistant's turn that a short, honest reply should not be like: too long, or of someone with a body."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed training rows; documents never look at each other.

    Attributes:
        tokens: [rows, context] uint16.
        kinds: [rows, context] uint8, what each token is.
        documents: [rows, context] uint8, number of the token's document within its row, from 1; 0 is padding.
    """

    tokens: npt.NDArray[np.uint16]
    kinds: npt.NDArray[np.uint8]
    documents: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.tokens)


def encode(dialogue: Dialogue, tokenizer: ChatTokenizer, chance: random.Random) -> list[tuple[list[int], list[int]]]:
    """Tokens and kinds of a dialogue, in pieces of at most `CONTEXT` tokens that begin with a turn.

    With probability 0.6 all user turns are as a recogniser would give them.
    """
    heard = chance.random() < 0.6
    pieces: list[tuple[list[int], list[int]]] = []
    tokens: list[int] = []
    kinds: list[int] = []
    for role, text in dialogue.turns:
        turn = tokenizer.turn(role, misheard(text, chance) if heard and role == "user" else text)
        if len(turn) > CONTEXT // 2:
            continue
        if len(tokens) + len(turn) > CONTEXT:
            pieces.append((tokens, kinds))
            tokens, kinds = [], []
        kind = USER if role == "user" else UNFIT if _unfit(text) else ASSISTANT
        tokens += turn
        kinds += [USER, *[kind] * (len(turn) - 1)]  # the role token follows from the turn before
    return [*pieces, (tokens, kinds)] if len(tokens) > 8 else pieces


def _unfit(text: str) -> bool:
    sentences = len(re.findall(r"[.!?](?:\s|$)", text))
    return len(text.split()) > _LONG_REPLY_WORDS or sentences > _MANY_SENTENCES or bool(_A_BODY.search(text))


def pack(pieces: Sequence[tuple[list[int], list[int]]]) -> Rows:
    """Puts pieces into rows one after the other, a new row where one does not fit."""
    tokens: list[npt.NDArray[np.uint16]] = []
    kinds: list[npt.NDArray[np.uint8]] = []
    documents: list[npt.NDArray[np.uint8]] = []
    used, number = CONTEXT, 0
    for piece_tokens, piece_kinds in pieces:
        length = len(piece_tokens)
        if used + length > CONTEXT or number == 255:
            tokens.append(np.zeros(CONTEXT, dtype=np.uint16))
            kinds.append(np.zeros(CONTEXT, dtype=np.uint8))
            documents.append(np.zeros(CONTEXT, dtype=np.uint8))
            used, number = 0, 0
        number += 1
        tokens[-1][used : used + length] = piece_tokens
        kinds[-1][used : used + length] = piece_kinds
        documents[-1][used : used + length] = number
        used += length
    shape = (0, CONTEXT)
    if not tokens:
        return Rows(np.zeros(shape, np.uint16), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    return Rows(np.stack(tokens), np.stack(kinds), np.stack(documents))


def book_rows(tokens: Sequence[int]) -> Rows:
    """Running text cut into whole rows; all of it counts as the assistant's."""
    count = len(tokens) // CONTEXT
    table = np.array(tokens[: count * CONTEXT], dtype=np.uint16).reshape(count, CONTEXT)
    return Rows(table, np.full(table.shape, ASSISTANT, np.uint8), np.ones(table.shape, np.uint8))


_worker: dict[str, object] = {}


def _start_worker(tokenizer_path: Path, prompts: Prompts, seed: int) -> None:
    _worker["tokenizer"] = ChatTokenizer.load(tokenizer_path)
    _worker["generator"] = Generator(prompts, seed=seed)


def _encode_one(job: tuple[Dialogue | int, int]) -> list[tuple[list[int], list[int]]]:
    dialogue, copy = job
    tokenizer, generator = _worker["tokenizer"], _worker["generator"]
    assert isinstance(tokenizer, ChatTokenizer)
    assert isinstance(generator, Generator)
    if isinstance(dialogue, int):
        dialogue = generator.dialogue(dialogue)
    return encode(dialogue, tokenizer, random.Random(f"{dialogue.source}/{dialogue.key}/{copy}"))


def _encode_text(text: str) -> list[int]:
    tokenizer = _worker["tokenizer"]
    assert isinstance(tokenizer, ChatTokenizer)
    return [*tokenizer.encode(spoken(text)), tokenizer.end]


def _read_line(line: str) -> Dialogue:
    entry = json.loads(line)
    turns = ((turn["speaker"], tidy(spoken(turn["text"]))) for turn in entry["turns"])
    return Dialogue(entry["source"], entry["id"], tuple(turn for turn in turns if turn[1]))


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything a run reads: rows by source, for training and for evaluation."""

    training: dict[str, Rows]
    held_out: dict[str, Rows]


def build(
    folder: Path,
    tokenizer_path: Path,
    *,
    sources: Sequence[str],
    measured: Sequence[str] = (),
    by_rule: int,
    copies: int,
    seed: int = 0,
    share: float = 1.0,
    processes: int | None = None,
) -> Corpus:
    """Reads and encodes all text.

    Args:
        folder: The data folder.
        tokenizer_path: The tokenizer.json to encode with.
        sources: Sources of `dialogues.jsonl.gz` to train on.
        measured: Further sources that are only held out.
        by_rule: How many dialogues to make by rule.
        copies: How many readings of each dialogue to encode; they differ in what the recogniser would mishear.
        seed: Of the dialogues by rule.
        share: Share of books and dialogues to read; below 1 for trials.
        processes: Workers; None takes all cores.
    """
    prompts = read_prompts(folder, sources)
    with multiprocessing.Pool(processes, _start_worker, (tokenizer_path, prompts, seed)) as pool:
        chunks = list(read_books(folder))
        chunks = chunks[: int(len(chunks) * share)]
        encoded = pool.map(_encode_text, [text for text, _ in chunks], chunksize=32)
        books = ([], []) if not chunks else _split(encoded, [held for _, held in chunks])
        training = {"books": book_rows(books[0])}
        held_out = {"books": book_rows(books[1])}
        dialogues = pool.map(_read_line, _lines_of(folder, [*sources, *measured], share), chunksize=256)
        made = [Dialogue("relay_rules", f"{seed}/{index}", ()) for index in range(by_rule)]
        for source in [*sources, *measured, "relay_rules"]:
            own = made if source == "relay_rules" else [d for d in dialogues if d.source == source]
            own = sorted(own, key=lambda d: zlib.crc32(f"shuffle/{d.key}".encode()))
            handed: list[Dialogue | int] = [int(d.key.split("/")[1]) if source == "relay_rules" else d for d in own]
            jobs = [(d, 0) for d, dialogue in zip(handed, own, strict=True) if dialogue.held_out]
            held_out[source] = pack(_flat(pool.map(_encode_one, jobs, chunksize=64)))
            if source in measured:
                continue
            kept = [d for d, dialogue in zip(handed, own, strict=True) if not dialogue.held_out]
            rounds = 1 if source == "relay_rules" else copies
            jobs = [(d, copy) for copy in range(rounds) for d in kept]
            training[source] = pack(_flat(pool.map(_encode_one, jobs, chunksize=64)))
    return Corpus(training, held_out)


def _lines_of(folder: Path, sources: Sequence[str], share: float) -> list[str]:
    with gzip.open(folder / "dialogues.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [line for line in file if json.loads(line)["source"] in sources and not _RUDE.search(line)]
    return lines[:: max(1, round(1 / share))]


def _split(encoded: Sequence[list[int]], held: Sequence[bool]) -> tuple[list[int], list[int]]:
    training: list[int] = []
    held_out: list[int] = []
    for tokens, out in zip(encoded, held, strict=True):
        (held_out if out else training).extend(tokens)
    return training, held_out


def _flat(pieces: Sequence[list[tuple[list[int], list[int]]]]) -> list[tuple[list[int], list[int]]]:
    return [piece for group in pieces for piece in group]
