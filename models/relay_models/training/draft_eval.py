"""How good a draft model is on dialogues that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from relay_models.draft import DraftModel, Special
from relay_models.drafting import MAX_TOKENS
from relay_models.training.draft_batches import Heard, text_frames

TOLERANCE_FRAMES = 1
"""A turn token counts as right within +-160 ms (as in RelayS2S, arXiv 2603.23346)."""
JUDGED = (Special.BOS, Special.STP, Special.BOC)


@dataclass(slots=True)
class Score:
    """Of one kind of token: found ones that are right, all found ones, all true ones."""

    right: int = 0
    found: int = 0
    true: int = 0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; nan where there is nothing to find and nothing was found."""
        return 2 * self.right / (self.found + self.true) if self.found + self.true else math.nan


def matches(found: Iterable[int], true: Iterable[int], *, tolerance: int = TOLERANCE_FRAMES) -> int:
    """How many of the true frames have a found frame of their own within the tolerance.

    Both sides are walked in order, which pairs as many as can be paired.
    """
    ahead, count = sorted(found), 0
    at = 0
    for frame in sorted(true):
        while at < len(ahead) and ahead[at] < frame - tolerance:
            at += 1
        if at < len(ahead) and ahead[at] <= frame + tolerance:
            count, at = count + 1, at + 1
    return count


@torch.no_grad()
def evaluate(model: DraftModel, dialogues: Sequence[Heard], *, takeovers: float = 0.05) -> dict[str, float]:
    """Scores on dialogues, with the true tokens as history.

    Args:
        model: In evaluation mode.
        dialogues: Held out.
        takeovers: Share of pauses inside turns at which the model may begin, for `begins_bounded`.

    Returns:
        `f1_bos`, `f1_stp`, `f1_boc` by the likeliest token; `takeover_rate`: pauses inside a turn in which the model
        begins; `begins_bounded`: share of true turn starts found within the tolerance when a probability is asked of
        `BOS` at which at most `takeovers` of the pauses are taken; `begin_threshold`: that probability; `perplexity`:
        of the first 15 tokens of replies, speech switched off, as they are drafted; `prefix_1`, `prefix_4`: share of
        replies of which the first token, and the first four, are what the model would draft.
    """
    config = model.config
    scores = {special: Score() for special in JUDGED}
    pauses: list[float] = []
    begins: list[float] = []
    taken = 0
    nats, tokens = 0.0, 0
    begun = {1: 0, 4: 0}
    replies = 0
    device = next(model.parameters()).device
    for heard in dialogues:
        labels, count = heard.labels, len(heard.labels)
        if not count:
            continue
        previous = functional.pad(labels[:-1], (1, 0), value=config.token(Special.SIL))[None]
        speech = heard.speech.float()[None]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model.logits(model(speech, previous))[0].float()
            numbers = text_frames(labels.cpu(), config).to(device)
            drafted = model.logits(model(speech, previous, (numbers > 0)[None]))[0].float()
        best = logits.argmax(-1)
        for special, score in scores.items():
            token = config.token(special)
            found, true = (torch.nonzero(x == token)[:, 0].tolist() for x in (best, labels))
            score.found, score.true = score.found + len(found), score.true + len(true)
            score.right += matches(found, true)
        probability = logits.softmax(-1)[:, config.token(Special.BOS)].tolist()
        for first, last in heard.pauses:
            inside = range(first, min(last + 1, count))
            if inside:
                pauses.append(max(probability[frame] for frame in inside))
                taken += any(int(best[frame]) == config.token(Special.BOS) for frame in inside)
        for frame in torch.nonzero(labels == config.token(Special.BOS))[:, 0].tolist():
            near = range(max(0, frame - TOLERANCE_FRAMES), min(count, frame + TOLERANCE_FRAMES + 1))
            begins.append(max(probability[each] for each in near))
        loss = functional.cross_entropy(drafted, labels, reduction="none")
        for number in range(1, int(numbers.max()) + 1):
            frames = torch.nonzero(numbers == number)[:MAX_TOKENS, 0]
            nats, tokens = nats + float(loss[frames].sum()), tokens + len(frames)
            same = (drafted[frames].argmax(-1) == labels[frames]).tolist()
            replies += 1
            for length in begun:
                begun[length] += all(same[:length])
    threshold = bounded_threshold(pauses, takeovers)
    return {
        **{f"f1_{special.name.lower()}": score.f1 for special, score in scores.items()},
        "takeover_rate": taken / len(pauses) if pauses else math.nan,
        "begin_threshold": threshold,
        "begins_bounded": sum(each > threshold for each in begins) / len(begins) if begins else math.nan,
        "perplexity": math.exp(nats / tokens) if tokens else math.nan,
        **{f"prefix_{length}": count / replies if replies else math.nan for length, count in begun.items()},
    }


def bounded_threshold(values: Sequence[float], share: float) -> float:
    """The smallest value that at most `share` of all values exceed; 0 where there are none."""
    ranked = sorted(values, reverse=True)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else 0.0
