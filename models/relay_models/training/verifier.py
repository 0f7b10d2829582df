"""Trains the verifier on what the draft model really drafts (`drafts`), on the CPU.

    python -m relay_models.training.verifier OUT DRAFTS ...

DRAFTS are folders of `drafts`. Three parts by text, so that no dialogue is in two: 70 % train, 15 % stop the training,
calibrate and choose the threshold, 15 % judge.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from relay_models.training.judging import calibration_error, caught, fit_platt, roc, threshold_keeping
from relay_models.training.rated import PARTS, read_rated
from relay_models.training.rating import Example
from relay_models.verifier import DraftBatch, Verifier, VerifierConfig, count_loss, regret_loss, save_verifier

GOOD_KEPT = 0.96


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the verifier is trained.

    Attributes:
        steps, rows: Length of the run and size of a batch.
        learning_rate, weight_decay: Of AdamW; the rate falls to zero along a line.
        bad_share: Share of bad drafts in a batch.
        softness: Of the labels, in nats; see `regret_loss`.
        counting: Weight of the second head's loss.
        dropout: See `Verifier`.
        hidden_dropout: Of the hidden states: there are few bad drafts, and their states are learned by heart otherwise.
        judged_every: Steps between looks at the drafts held out; the network that judges those best is kept.
        seed: Of weights and batches.
    """

    steps: int = 8000
    rows: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    bad_share: float = 0.2
    softness: float = 1.0
    counting: float = 0.2
    dropout: float = 0.3
    hidden_dropout: float = 0.3
    judged_every: int = 500
    seed: int = 0


def fit(
    examples: Sequence[Example], held: Sequence[Example], config: VerifierConfig, tolerance: float, recipe: Recipe
) -> Verifier:
    """Trains a verifier on the CPU.

    Args:
        examples: Drafts to learn from.
        held: Drafts that decide when to stop; `calibrated` may use them as well, `report` may not.
        config: Sizes.
        tolerance: Regret that is just good enough.
        recipe: See there.

    Raises:
        ValueError: There are not good and bad ones in both.
    """
    good, judged = good_ones(examples, tolerance), good_ones(held, tolerance)
    if any(not each.any() or each.all() for each in (good, judged)):
        raise ValueError("a verifier needs drafts that are good and drafts that are not; there is only one kind")
    worst = torch.tensor([max(example.regrets) for example in examples])
    words = torch.tensor([example.good_words(tolerance) for example in examples])
    whole = join(examples)
    torch.manual_seed(recipe.seed)
    model = Verifier(config, dropout=recipe.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    kinds = [torch.from_numpy(np.flatnonzero(kind)) for kind in (good, ~good)]
    bad_rows = max(1, round(recipe.bad_share * recipe.rows))
    best, kept = -1.0, model.state_dict()
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - (step - 1) / recipe.steps)
        picked = torch.cat(
            [
                kind[torch.randint(len(kind), (rows,))]
                for kind, rows in zip(kinds, (recipe.rows - bad_rows, bad_rows), strict=True)
            ]
        )
        hidden = functional.dropout(whole.hidden[picked], recipe.hidden_dropout)
        batch = DraftBatch(hidden, whole.scalars[picked], whole.counts[picked], whole.words[picked])
        logits, counts = model.train()(batch)
        loss = regret_loss(logits, worst[picked], tolerance, softness=recipe.softness)
        loss = loss + recipe.counting * count_loss(counts, words[picked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % recipe.judged_every == 0 or step == recipe.steps:
            area = roc(logits_of(model.eval(), held), judged).area
            if area > best:
                best, kept = area, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(kept)
    return model.eval()


def good_ones(examples: Sequence[Example], tolerance: float) -> NDArray[np.bool_]:
    """Which drafts are good: [examples]."""
    return np.array([example.is_good(tolerance) for example in examples], dtype=bool)


def join(examples: Sequence[Example]) -> DraftBatch:
    """All examples as one batch."""
    return DraftBatch.join([each.drafted for each in examples], [each.question.confidence for each in examples])


@torch.no_grad()
def logits_of(model: Verifier, examples: Sequence[Example]) -> NDArray[np.float64]:
    """Commit logits, before calibration: [examples]."""
    return model(join(examples))[0].double().numpy()


def calibrated(model: Verifier, examples: Sequence[Example], tolerance: float) -> Verifier:
    """The same network, its probability and its threshold set on these examples.

    Raises:
        ValueError: They are all good, all bad, or none.
    """
    good = good_ones(examples, tolerance)
    if not good.any() or good.all():
        raise ValueError(f"{len(examples)} drafts to calibrate on are all good or all bad; say more dialogues")
    logits = logits_of(model, examples)
    scale, shift = fit_platt(logits, good)
    threshold = threshold_keeping(1 / (1 + np.exp(-(scale * logits + shift))), good, GOOD_KEPT)
    made = Verifier(replace(model.config, scale=scale, shift=shift, threshold=threshold))
    made.load_state_dict(model.state_dict())
    return made.eval()


def report(model: Verifier, examples: Sequence[Example], tolerance: float) -> dict[str, float]:
    """How well it judges these examples; nan where there is only one kind of them.

    `bad_caught` is by the probability alone, of whole drafts. Of the bad ones, `bad_heard` are those whose bad words
    are spoken: others are cut before them by the second head. Of the good ones, `good_silent` are not spoken at all.
    """
    good = good_ones(examples, tolerance)
    config = model.config
    probabilities = 1 / (1 + np.exp(-(config.scale * logits_of(model, examples) + config.shift)))
    with torch.no_grad():
        words = model(join(examples))[1].argmax(-1).numpy()
    wanted = np.array([example.good_words(tolerance) for example in examples])
    both = bool(good.any() and not good.all())
    spoken = np.where(probabilities >= config.threshold, words, 0)
    return {
        "examples": len(examples),
        "good": float(good.mean()),
        "threshold": config.threshold,
        "good_kept": float((probabilities[good] >= config.threshold).mean()) if good.any() else float("nan"),
        "bad_caught": caught(probabilities, good, config.threshold),
        "bad_heard": float((spoken[~good] > wanted[~good]).mean()) if both else float("nan"),
        "good_silent": float((spoken[good] == 0).mean()) if both else float("nan"),
        "auc": roc(probabilities, good).area if both else float("nan"),
        "calibration_error": calibration_error(probabilities, good),
        "words_right": float((words == wanted).mean()),
        "words_too_many": float((words > wanted).mean()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("drafts", type=Path, nargs="+", help="folders of rated drafts")
    parser.add_argument(
        "--tolerance", type=float, help="regret in nats a token; default: that of the first folder, tolerance.json"
    )
    parser.add_argument("--recipe", type=json.loads, default={}, help="JSON: fields of Recipe to change")
    args = parser.parse_args()
    recipe = Recipe(**args.recipe)
    tolerance: float = args.tolerance or json.loads((args.drafts[0] / "tolerance.json").read_text("utf-8"))["nats"]
    examples = read_rated(args.drafts)
    if not examples:
        raise SystemExit(f"there are no rated drafts in {args.drafts[0]}; make some with `drafts`")
    parts = {name: [e for e in examples if e.question.part == name] for name in PARTS}
    config = VerifierConfig(hidden_size=examples[0].drafted.hidden.shape[1])
    fitted = fit(parts["train"], parts["calibrate"], config, tolerance, recipe)
    verifier = calibrated(fitted, parts["calibrate"], tolerance)
    scores = {name: report(verifier, part, tolerance) for name, part in parts.items()}
    save_verifier(verifier, args.out)
    facts = {"tolerance": tolerance, "recipe": asdict(recipe), **scores}
    (args.out / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
