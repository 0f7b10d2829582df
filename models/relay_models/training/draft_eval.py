"""How good a draft model is on dialogues that it was not trained on.

    python -m relay_models.training.draft_eval EARS DRAFT JUDGED --json REPORT

JUDGED holds shards of held-out dialogues (`draft_data say --held-out`). The report says what the model's signals tell
of turn ends and interruptions (`draft_turns`); `relay_models.draft_export --turn-ends REPORT` writes how much evidence
they are into the folder that ships.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from relay_models.draft import DraftConfig, DraftModel, Special, load_draft
from relay_models.drafting import MAX_TOKENS
from relay_models.ears import load_ears
from relay_models.training.draft_batches import Heard, hear, text_frames
from relay_models.training.draft_data import read_shard
from relay_models.training.draft_turns import Probabilities, TurnSignals
from relay_models.training.judging import bounded_threshold

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
        replies of which the first token, and the first four, are what the model would draft; and those of
        `draft_turns.TurnSignals.scores`.
    """
    config = model.config
    scores = {special: Score() for special in JUDGED}
    pauses: list[float] = []
    begins: list[float] = []
    taken = 0
    nats, tokens = 0.0, 0
    begun = {1: 0, 4: 0}
    replies = 0
    signals = TurnSignals()
    device = next(model.parameters()).device
    for heard in dialogues:
        labels, count = heard.labels, len(heard.labels)
        if not count:
            continue
        numbers = text_frames(labels.cpu(), config).to(device)
        logits, drafted = _logits(model, heard), _logits(model, heard, numbers > 0)
        best = logits.argmax(-1)
        for special, score in scores.items():
            token = config.token(special)
            found, true = (torch.nonzero(x == token)[:, 0].tolist() for x in (best, labels))
            score.found, score.true = score.found + len(found), score.true + len(true)
            score.right += matches(found, true)
        specials = _specials(logits, config)
        signals.add(heard.turns, heard.pauses, specials)
        probability = specials[:, Special.BOS].tolist()
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
        **signals.scores(),
    }


def _logits(model: DraftModel, heard: Heard, switched_off: Tensor | None = None) -> Tensor:
    """[frames, vocabulary] float32, with the true tokens as history; `switched_off` [frames] as in `forward`."""
    previous = functional.pad(heard.labels[:-1], (1, 0), value=model.config.token(Special.SIL))[None]
    device = heard.labels.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden = model(heard.speech.float()[None], previous, None if switched_off is None else switched_off[None])
        logits: Tensor = model.logits(hidden)[0].float()
    return logits


def _specials(logits: Tensor, config: DraftConfig) -> Probabilities:
    """[frames, vocabulary] -> [frames, 5], the probability of each `Special`."""
    probabilities = logits.softmax(-1)[:, config.text_tokens : config.text_tokens + len(Special)]
    specials: Probabilities = probabilities.double().cpu().numpy()
    return specials


@torch.no_grad()
def specials_of(model: DraftModel, heard: Heard) -> Probabilities:
    """[frames, 5], the probability of each `Special` at each frame of a dialogue, with the true tokens as history."""
    return _specials(_logits(model, heard), model.config)


def watch(model: DraftModel, dialogues: Iterable[Heard]) -> TurnSignals:
    """The model's signals on dialogues, with the true tokens as history."""
    signals = TurnSignals()
    for heard in dialogues:
        if len(heard.labels):
            signals.add(heard.turns, heard.pauses, specials_of(model, heard))
    return signals


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ears", type=Path, help="folder of the recogniser that the model hears through")
    parser.add_argument("draft", type=Path, help="folder of the model, trained or packed")
    parser.add_argument("judged", type=Path, help="folder of shards of held-out dialogues")
    parser.add_argument("--json", type=Path, help="where to write the report; it is printed anyway")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ears, model = load_ears(args.ears).to(device), load_draft(args.draft).to(device)
    shards = sorted(args.judged.glob("*.json"))
    if not shards:
        parser.error(f"no shards in {args.judged}; make some with `relay_models.training.draft_data say --held-out`")
    signals = watch(model, (heard for shard in shards for heard in hear(ears, read_shard(shard))))
    report = json.dumps(signals.report(), indent=1, allow_nan=False)
    print(report)
    if args.json:
        args.json.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
