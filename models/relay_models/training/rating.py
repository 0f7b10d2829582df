"""How the slow model rates a draft, given the true transcript: the labels that the verifier learns.

A draft's *regret* is how much less likely the slow model finds its words than its own best start of the same length, in
nats a token, at its worst beginning. No person and no hosted judge is asked. What regret is too much is calibrated on
replies that are known: those that were given, against those that were given to something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relay_models.decoder import Decoder
from relay_models.drafting import Drafted
from relay_models.state import StreamState
from relay_models.training.judging import roc


@dataclass(frozen=True, slots=True)
class Question:
    """A place where a reply begins.

    Attributes:
        context: Tokens of the true transcript up to the assistant's opener.
        reply: Tokens of the true reply.
        confidence: How sure the recogniser was of the user's last turn, 0 to 1.
        part: Which part of the data the dialogue belongs to: `train`, `calibrate` or `judge`.
        asked: The user's last words, for people who look at examples.
    """

    context: list[int]
    reply: list[int]
    confidence: float
    part: str
    asked: str


@dataclass(frozen=True, slots=True)
class Example:
    """A draft and what the slow model thinks of it.

    Attributes:
        drafted: The draft.
        question: What it answers.
        regrets: Of its first word, its first two, and so on: nats a token behind the slow model's own best start.
    """

    drafted: Drafted
    question: Question
    regrets: tuple[float, ...]

    def good_words(self, tolerance: float) -> int:
        """How many of its first words are good: no beginning up to there regrets more than `tolerance`."""
        count = 0
        for regret in self.regrets:
            if regret > tolerance:
                break
            count += 1
        return count

    def is_good(self, tolerance: float) -> bool:
        """Whether all of it is."""
        return self.good_words(tolerance) == len(self.regrets)


@torch.no_grad()
def running_scores(brain: Decoder, contexts: Sequence[list[int]], texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Log-likelihood of each beginning of each text after its context, in nats: one number a token."""
    logits, state = _read(brain, contexts)
    device, width = logits.device, max((len(text) for text in texts), default=0)
    scores: list[list[float]] = [[] for _ in texts]
    for place in range(width):
        log_probabilities = logits.float().log_softmax(-1)
        tokens = torch.tensor([text[place] if place < len(text) else 0 for text in texts], device=device)
        each = log_probabilities.gather(1, tokens[:, None])[:, 0].tolist()
        for row, text in enumerate(texts):
            if place < len(text):
                scores[row].append((scores[row][-1] if scores[row] else 0.0) + each[row])
        counts = torch.tensor([int(place < len(text)) for text in texts], device=device)
        logits, _ = brain.step(tokens[:, None], state, counts)
    return scores


@torch.no_grad()
def best_scores(brain: Decoder, contexts: Sequence[list[int]], length: int, stop: int) -> list[list[float]]:
    """The same of the model's own likeliest text, token by token, `length` tokens; after its end nothing is added."""
    logits, state = _read(brain, contexts)
    scores: list[list[float]] = [[] for _ in contexts]
    going = torch.ones(len(contexts), dtype=torch.bool, device=logits.device)
    for _ in range(length):
        value, token = logits.float().log_softmax(-1).max(-1)
        for row, each in enumerate((value * going).tolist()):
            scores[row].append((scores[row][-1] if scores[row] else 0.0) + each)
        going = going & (token != stop)
        logits, _ = brain.step(token[:, None], state, going.long())
    return scores


@torch.no_grad()
def likeliest(brain: Decoder, contexts: Sequence[list[int]], length: int, stop: int) -> list[list[int]]:
    """The model's own text after each context, token by token the likeliest, up to its end or `length` tokens.

    Args:
        brain: The model.
        contexts: Tokens before the text.
        length: At most 64.
        stop: Token that ends a text; it is not in it.
    """
    logits, state = _read(brain, contexts)
    texts: list[list[int]] = [[] for _ in contexts]
    going = torch.ones(len(contexts), dtype=torch.bool, device=logits.device)
    for _ in range(length):
        token = logits.argmax(-1)
        going = going & (token != stop)
        if not going.any():
            break
        for row, (each, goes) in enumerate(zip(token.tolist(), going.tolist(), strict=True)):
            texts[row] += [each] if goes else []
        logits, _ = brain.step(token[:, None], state, going.long())
    return texts


def _read(brain: Decoder, contexts: Sequence[list[int]]) -> tuple[Tensor, StreamState]:
    device = next(brain.parameters()).device
    width = max(map(len, contexts))
    tokens = torch.zeros(len(contexts), width, dtype=torch.int64)
    for row, context in enumerate(contexts):
        tokens[row, : len(context)] = torch.tensor(context)
    state = brain.fresh_state(len(contexts), context=width + 64)
    counts = torch.tensor([len(context) for context in contexts])
    logits, _ = brain.step(tokens.to(device), state, counts.to(device))
    return logits, state


def regrets(
    brain: Decoder, contexts: Sequence[list[int]], texts: Sequence[Sequence[int]], stop: int
) -> list[list[float]]:
    """How far each beginning of each text lies behind the model's best one of that length, in nats a token."""
    longest = max((len(text) for text in texts), default=0)
    own, best = running_scores(brain, contexts, texts), best_scores(brain, contexts, longest, stop)
    return [
        [(top - score) / place for place, (score, top) in enumerate(zip(scores, tops, strict=False), start=1)]
        for scores, tops in zip(own, best, strict=True)
    ]


def examples_of(
    pairs: Sequence[tuple[Question, Drafted]], brain: Decoder, stop: int, *, rows: int = 64
) -> list[Example]:
    """Rates drafts. Empty ones are left out: nobody can judge them, and nobody needs to."""
    kept = [(question, drafted) for question, drafted in pairs if drafted.tokens]
    found: list[Example] = []
    for start in range(0, len(kept), rows):
        part = kept[start : start + rows]
        rated = regrets(brain, [q.context for q, _ in part], [d.tokens for _, d in part], stop)
        for (question, drafted), each in zip(part, rated, strict=True):
            found.append(Example(drafted, question, tuple(each[end - 1] for end in drafted.word_ends)))
    return found


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The regret that is just good enough.

    Attributes:
        nats: A token.
        true_kept: Share of true replies' beginnings that it lets pass.
        others_kept: Share of the beginnings of replies to other questions that it lets pass.
        area: Under the curve of the two shares: how well regret tells them apart at all.
    """

    nats: float
    true_kept: float
    others_kept: float
    area: float


def tolerance_of(
    questions: Sequence[Question], brain: Decoder, stop: int, *, tokens: int = 8, rows: int = 64
) -> Tolerance:
    """What best separates true replies' beginnings of `tokens` tokens from those of replies to other questions.

    "Best" is the largest difference of the two shares (Youden 1950). Raises ValueError for fewer than two replies.
    """
    known = [question for question in questions if question.reply]
    if len(known) < 2:
        raise ValueError("a tolerance needs two true replies at least")
    contexts, texts = [q.context for q in known], [q.reply[:tokens] for q in known]
    worst = [
        [
            max(each)
            for start in range(0, len(known), rows)
            for each in regrets(brain, contexts[start : start + rows], said[start : start + rows], stop)
        ]
        for said in (texts, [*texts[1:], texts[0]])
    ]
    curve = roc(-np.array([*worst[0], *worst[1]]), np.arange(2 * len(known)) < len(known))
    best = int(np.argmax(curve.kept_good - curve.kept_bad))
    return Tolerance(
        max(0.0, -float(curve.thresholds[best])), float(curve.kept_good[best]), float(curve.kept_bad[best]), curve.area
    )
