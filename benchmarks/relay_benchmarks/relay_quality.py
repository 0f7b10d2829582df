"""Are replies that a draft began as good as the language model's own? Written dialogues, said and judged offline.

Each dialogue is said in two voices and laid out in time (`conversations`). At the beginning of every reply the draft
model drafts from what the microphone heard, the verifier judges, and the language model, given the true transcript,
goes on from the committed words, or answers alone: the *relay* reply and the *cascade* reply. Both take the likeliest
token. No person and no hosted judge is asked: a reply is rated by the language model's own likelihood and by the words
it shares with the reply that was really given; a draft is bad if its regret (`rating`) is more than the tolerance,
which is calibrated on true replies against replies to other questions of the same set.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from relay.audio import EARS_RATE_HZ, VOICE_RATE_HZ
from relay.brains.embedded import EmbeddedBrain
from relay.errors import UsageError
from relay_benchmarks import turn_ends
from relay_benchmarks.corpus import PITCHES, RATES, VOICES
from relay_benchmarks.espeak import Spoken, speaking
from relay_models.decoder import Decoder, load_packed_decoder
from relay_models.draft import load_draft
from relay_models.drafting import Drafted
from relay_models.ears import load_ears
from relay_models.host_verifier import load_host_verifier
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.conversations import ASSISTANT, USER, Pcm, Say
from relay_models.training.draft_batches import hear
from relay_models.training.draft_data import Turns, spoken, trimmed, write_shard
from relay_models.training.draft_eval import specials_of
from relay_models.training.drafts import gather
from relay_models.training.judging import roc
from relay_models.training.rating import (
    Question,
    examples_of,
    likeliest,
    running_scores,
    tolerance_of,
)
from relay_models.training.verifier import logits_of
from relay_models.training.verifier import report as verifier_report
from relay_models.verifier import Verifier, load_verifier

REPLY_TOKENS = 60
ROWS = 32
CURVE_POINTS = 50
_ROLES = {"user": USER, "assistant": ASSISTANT}


@dataclass(frozen=True, slots=True)
class Commitment:
    """Of a draft, the tokens that the verifier lets pass, and their regret at its worst word; None without any."""

    tokens: list[int]
    regret: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply in both ways.

    Attributes:
        question: What is answered.
        commitment: How the relay reply begins.
        relay, cascade: Tokens of the two replies.
    """

    question: Question
    commitment: Commitment
    relay: list[int]
    cascade: list[int]


def read_dialogues(path: Path, most: int | None = None) -> list[Turns]:
    """Dialogues of JSON lines {"turns": [{"role": "user"|"assistant", "text"}, ...]}.

    Raises:
        UsageError: The file is missing, or a line is something else.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: give a file of JSON lines with dialogues ({error})") from error
    dialogues: list[Turns] = []
    for number, line in enumerate(lines[:most], start=1):
        try:
            turns = [(_ROLES[turn["role"]], str(turn["text"])) for turn in json.loads(line)["turns"]]
        except (ValueError, KeyError, TypeError) as error:
            shape = '{"turns": [{"role": "user" or "assistant", "text": ...}, ...]}'
            raise UsageError(f"{path}, line {number} is no dialogue; write {shape}") from error
        dialogues.append(turns)
    return dialogues


def examine(
    dialogues: Sequence[Turns],
    folders: dict[str, Path],
    brain_folder: Path,
    *,
    device: str,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Says, drafts, judges and answers, and decides where turns end (`turn_ends`); the report's `result`.

    Args:
        dialogues: (speaker, text) in order.
        folders: Of the models `ears`, `draft` and `verifier`.
        brain_folder: Of the language model.
        device: Where the models run.
        seed: Of voices, rooms and times.
        progress: Told what has been done.

    Raises:
        UsageError: There are fewer than two replies to questions in the dialogues.
        EngineUnavailable: The synthesiser cannot run.
    """
    tokenizer = ChatTokenizer.load(brain_folder / "tokenizer.json")
    brain = load_packed_decoder(brain_folder).to(device)
    model, verifier = load_draft(folders["draft"]).to(device), load_verifier(folders["verifier"])
    with tempfile.TemporaryDirectory() as folder, speaking() as speak:
        said = (
            spoken(turns, _two_voices(speak, (seed, number)), tokenizer, (seed, number))
            for number, turns in enumerate(dialogues)
        )
        write_shard([each for each in said if each is not None], Path(folder), "said")
        late = [
            spoken(turns, _two_voices(speak, (seed, number)), tokenizer, (seed, number), turn_ends.HABITS)
            for number, turns in enumerate(dialogues)
        ]
        progress(f"{len(dialogues)} dialogues said")
        shards = sorted(Path(folder).glob("*.json"))
        pairs = list(gather(shards, load_ears(folders["ears"]), model, tokenizer)) if _any_said(shards) else []
    progress(f"{len(pairs)} drafts made")
    known = [question for question, _ in pairs if question.reply]
    if len(known) < 2:
        raise UsageError("the dialogues hold fewer than two replies to a user: give more of them")
    tolerance = tolerance_of(known, brain, tokenizer.end)
    examples = examples_of(pairs, brain, tokenizer.end)
    host = load_host_verifier(folders["verifier"])
    judged = [host.judge(drafted, question.confidence) for question, drafted in pairs]
    rated = iter(examples)  # of the drafts that are not empty, in order
    commitments = [
        _commitment(drafted, each.words, next(rated).regrets if drafted.tokens else ())
        for (_, drafted), each in zip(pairs, judged, strict=True)
    ]
    heard = hear(load_ears(folders["ears"]).to(device), [each for each in late if each is not None])
    found = [one for each in heard for one in turn_ends.silences(each, specials_of(model, each))]
    complete = asyncio.run(turn_ends.completeness(EmbeddedBrain(folder=brain_folder), found))
    progress(f"{len(found)} silences judged")
    answers = answer([question for question, _ in pairs], commitments, brain, tokenizer.end)
    progress(f"{len(answers)} replies made")
    return {
        "drafts": len(pairs),
        "empty_drafts": len(pairs) - len(examples),
        "tolerance": {"nats": tolerance.nats, "true_kept": tolerance.true_kept, "others_kept": tolerance.others_kept},
        **compare(answers, brain, tokenizer, tolerance.nats),
        "verifier": verifier_report(verifier, examples, tolerance.nats) | _curve(verifier, examples, tolerance.nats)
        if examples
        else None,
        "turn_ends": turn_ends.summarise(found, complete, model.config.turn_ends),
    }


def _any_said(shards: Sequence[Path]) -> bool:
    return any(json.loads(shard.read_text(encoding="utf-8")) for shard in shards)


def _two_voices(speak: Callable[[Spoken], Any], key: tuple[int, int]) -> Say:
    """The two voices of a dialogue: the user's drawn by its number, the assistant's always the baseline's."""
    rng = np.random.default_rng((*key, USER))
    user = (str(rng.choice(VOICES)), int(rng.choice(RATES)), int(rng.choice(PITCHES)))

    def say(text: str, speaker: int) -> Pcm | None:
        words = Spoken(text, *user) if speaker == USER else Spoken(text)
        if not re.search(r"\w", text):
            return None
        return trimmed(np.asarray(soxr.resample(speak(words), VOICE_RATE_HZ, EARS_RATE_HZ), np.int16))

    return say


def _commitment(drafted: Drafted, words: int, rated: Sequence[float]) -> Commitment:
    count = min(words, len(drafted.word_ends))
    if not count:
        return Commitment([], None)
    return Commitment(list(drafted.tokens[: drafted.word_ends[count - 1]]), max(rated[:count]))


def answer(questions: Sequence[Question], commitments: Sequence[Commitment], brain: Decoder, stop: int) -> list[Answer]:
    """Both replies to every question; where nothing is committed they are the same one."""
    answers = []
    for start in range(0, len(questions), ROWS):
        asked, begun = questions[start : start + ROWS], commitments[start : start + ROWS]
        alone = likeliest(brain, [question.context for question in asked], REPLY_TOKENS, stop)
        begun_contexts = [[*question.context, *each.tokens] for question, each in zip(asked, begun, strict=True)]
        after = likeliest(brain, begun_contexts, REPLY_TOKENS, stop)
        answers += [
            Answer(question, each, [*each.tokens, *rest], own)
            for question, each, rest, own in zip(asked, begun, after, alone, strict=True)
        ]
    return answers


def compare(answers: Sequence[Answer], brain: Decoder, tokenizer: ChatTokenizer, tolerance: float) -> dict[str, Any]:
    """Rates of commitment, and how good the replies of each kind are."""
    kept = [each for each in answers if each.commitment.tokens]
    bad = sum((each.commitment.regret or 0.0) > tolerance for each in kept)
    kinds: dict[str, Callable[[Answer], list[int]]] = {
        "relay": lambda each: each.relay,
        "cascade": lambda each: each.cascade,
        "true": lambda each: each.question.reply,
    }
    rated: dict[str, Any] = {}
    for of, some in (("all", answers), ("committed", kept)):
        rated[of] = {name: _rate(some, text, brain, tokenizer) for name, text in kinds.items()}
    return {
        "replies": len(answers),
        "commit_rate": round(len(kept) / len(answers), 4),
        "bad_commit_rate": round(bad / len(kept), 4) if kept else None,
        "ratings": rated,
    }


def _rate(
    answers: Sequence[Answer], text: Callable[[Answer], list[int]], brain: Decoder, tokenizer: ChatTokenizer
) -> dict[str, float | None]:
    """Mean log-likelihood of the replies, their ends included, in nats a token, and words shared with the true ones."""
    likelihoods, overlaps = [], []
    for start in range(0, len(answers), ROWS):
        part = answers[start : start + ROWS]
        texts = [[*text(each), tokenizer.end] for each in part]
        scores = running_scores(brain, [each.question.context for each in part], texts)
        likelihoods += [score[-1] / len(score) for score in scores]
        overlaps += [word_overlap(tokenizer.decode(text(each)), tokenizer.decode(each.question.reply)) for each in part]
    if not answers:
        return {"nats_a_token": None, "word_overlap": None}
    return {
        "nats_a_token": round(float(np.mean(likelihoods)), 4),
        "word_overlap": round(float(np.mean(overlaps)), 4),
    }


def word_overlap(text: str, reference: str) -> float:
    """F1 of the words that two texts share, each as often as it occurs in both; case and punctuation do not count."""
    ours, theirs = (Counter(re.findall(r"[\w']+", each.lower())) for each in (text, reference))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


def _curve(verifier: Verifier, examples: Sequence[Any], tolerance: float) -> dict[str, Any]:
    """The ROC in at most 50 points; None where all drafts are good, or all bad."""
    good = np.array([example.is_good(tolerance) for example in examples])
    if good.all() or not good.any():
        return {"roc": None}
    curve = roc(logits_of(verifier, examples), good)
    points = np.unique(np.linspace(0, len(curve.kept_good) - 1, CURVE_POINTS).round().astype(int))
    return {"roc": {"kept_bad": curve.kept_bad[points].tolist(), "kept_good": curve.kept_good[points].tolist()}}


def resolve_device(device: str) -> str:
    """`auto` is the GPU where there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
