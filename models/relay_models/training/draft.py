"""Trains the duplex draft model on spoken dialogues, heard through the ears' frozen encoder.

    python -m relay_models.training.draft EARS OUT --shards SHARDS --judged JUDGED --steps 12000

EARS is a recogniser's folder, trained or as it ships. SHARDS may still be growing (`draft_data say`): new ones are
taken up while training runs. The decoder begins as the brain. The loss is cross entropy of the token of each frame,
silence with weight 0.2 (RelayS2S, arXiv 2603.23346); for half of the replies speech is switched off while their text is
said, as it is when a draft is made. A run goes on from the last checkpoint in OUT.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from relay_models.decoder import load_packed_decoder
from relay_models.draft import RESERVED, DraftConfig, DraftModel, Special, from_brain, pack_draft, save_draft
from relay_models.ears import Ears, load_ears
from relay_models.loading import WEIGHTS_DIR
from relay_models.training.draft_batches import PADDING, Batch, Batches, Heard, hear
from relay_models.training.draft_data import read_shard
from relay_models.training.draft_eval import evaluate
from relay_models.training.ears_checkpoint import (
    TrainingState,
    load_state,
    moments,
    restore_moments,
    save_state,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on, apart from the data.

    Attributes:
        steps: Length of the run.
        rows: Pieces of dialogues a step.
        frames: Frames of each.
        learning_rate: The highest, of the decoder.
        adapter_rate: The highest, of the adapter, which begins from nothing.
        warm_up: Steps up to it; a cosine to a twentieth follows.
        silence: Weight of frames at which nothing is to be said.
        switched_off: Share of replies whose text is said without speech.
        weight_decay: Of matrices.
        dropout: Of the decoder.
        ema: Decay of the averaged weights.
        clip: Largest norm of the gradient.
        seed: Of batches.
    """

    steps: int = 12_000
    rows: int = 48
    frames: int = 256
    learning_rate: float = 4e-4
    adapter_rate: float = 1e-3
    warm_up: int = 300
    silence: float = 0.2
    switched_off: float = 0.5
    weight_decay: float = 0.05
    dropout: float = 0.1
    ema: float = 0.998
    clip: float = 1.0
    seed: int = 0


def loss_of(model: DraftModel, batch: Batch, silence: float) -> Tensor:
    """Mean cross entropy of the frames' tokens, silence weighing `silence`."""
    logits = model.logits(model(batch.speech, batch.previous, batch.switched_off)).float()
    each = functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), reduction="none", ignore_index=PADDING
    )
    labels = batch.labels.flatten()
    weight = torch.where(labels == model.config.token(Special.SIL), silence, 1.0) * (labels != PADDING)
    return (each * weight).sum() / weight.sum().clamp(min=1e-6)


def rate_at(step: int, recipe: Recipe) -> float:
    """Factor of the learning rates at a step."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = min(1.0, (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up))
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


class Shards:
    """Takes up the shards of a folder as they come, and those that are there.

    Args:
        folder: Where they are written.
        ears: Hears them.
    """

    def __init__(self, folder: Path, ears: Ears) -> None:
        self._folder = folder
        self._ears = ears
        self._read: set[Path] = set()

    def new(self) -> Iterator[list[Heard]]:
        """The dialogues of each shard that has come since."""
        for path in sorted(self._folder.glob("*.json")):
            if path not in self._read:
                self._read.add(path)
                yield hear(self._ears, read_shard(path))


class Run:
    """A run: model, optimiser, average, checkpoints.

    Args:
        model: As it begins; on its device.
        recipe: See there.
        out: Folder for checkpoints; the run goes on from one that is there. None keeps none.

    Raises:
        WeightsError: The checkpoint cannot be read.
    """

    def __init__(self, model: DraftModel, recipe: Recipe, out: Path | None) -> None:
        self.model = model.train()
        self.recipe = recipe
        self.step = 0
        self._out = out
        adapter = list(model.adapter.parameters())
        matrices = [p for p in model.decoder.parameters() if p.ndim >= 2]
        vectors = [p for p in model.decoder.parameters() if p.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": adapter, "lr": recipe.adapter_rate, "weight_decay": 0.0},
                {"params": matrices, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay},
                {"params": vectors, "lr": recipe.learning_rate, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
        )
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._average = {name: p.detach().clone() for name, p in model.named_parameters()}
        if out is not None and (out / "state.json").exists():
            self._restore(load_state(out))

    def train_step(self, batch: Batch) -> float:
        """One step; gives its loss in nats."""
        recipe, device = self.recipe, batch.labels.device
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_at(self.step, recipe)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_of(self.model, batch, recipe.silence)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        kept = min(recipe.ema, (self.step + 1) / (self.step + 10))
        parameters = dict(self.model.named_parameters())
        torch._foreach_lerp_(
            list(self._average.values()), [parameters[name].detach() for name in self._average], 1 - kept
        )
        self.step += 1
        return float(loss.detach())

    def averaged(self) -> DraftModel:
        """A copy of the model with the averaged weights, in evaluation mode."""
        model = DraftModel(self.model.config).to(next(self.model.parameters()).device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self._average[name])
        return model.eval()

    def checkpoint(self) -> None:
        """Writes all that the run needs to go on."""
        if self._out is None:
            return
        found = moments(self.model, self._optimizer)
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        save_state(TrainingState(self.step, 0.0, weights, self._average, *found), self._out, compact=False)

    def _restore(self, state: TrainingState) -> None:
        self.step = state.step
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state.weights[name])
                self._average[name].copy_(state.average[name])
        restore_moments(self.model, self._optimizer, state)


def train(
    run: Run,
    batches: Batches,
    shards: Shards | None,
    judged: Sequence[Heard],
    *,
    seconds: float = math.inf,
    report_steps: int = 200,
    checkpoint_s: float = 200.0,
) -> DraftModel:
    """Trains until the recipe's steps are done or the time is over; gives the averaged model.

    Args:
        run: The run.
        batches: What it learns from.
        shards: Where more of it comes from.
        judged: Held-out dialogues.
        seconds: Longest time.
        report_steps: Steps between lines of progress; held-out scores are taken at every tenth of them.
        checkpoint_s: Time between checkpoints.
    """
    recipe, began = run.recipe, time.monotonic()
    saved_s, loss_sum, count = began, 0.0, 0
    while run.step < recipe.steps and time.monotonic() - began < seconds:
        if shards is not None and (not len(batches) or run.step % report_steps == 0):
            for dialogues in shards.new():
                batches.add(dialogues)
            if not len(batches):
                time.sleep(0.5)
                continue
        batch = batches.draw(run.step, recipe.rows, recipe.frames, switched_off=recipe.switched_off)
        loss_sum, count = loss_sum + run.train_step(batch), count + 1
        if run.step % report_steps == 0:
            hours = batches.frames * 0.16 / 3600
            speed = count / (time.monotonic() - began)
            line = f"step {run.step}/{recipe.steps} loss {loss_sum / report_steps:.3f} {hours:.1f} h {speed:.1f} step/s"
            print(line, flush=True)
            loss_sum = 0.0
            if judged and run.step % (10 * report_steps) == 0:
                print(f"step {run.step} held out {json.dumps(evaluate(run.averaged(), judged))}", flush=True)
        if time.monotonic() - saved_s > checkpoint_s:
            run.checkpoint()
            saved_s = time.monotonic()
    run.checkpoint()
    return run.averaged()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ears", type=Path, help="folder of the recogniser")
    parser.add_argument("out", type=Path, help="folder for checkpoints, weights and packed weights")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--judged", type=Path, required=True, help="folder of shards of held-out dialogues")
    parser.add_argument("--brain", type=Path, default=WEIGHTS_DIR / "brain")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--recipe", type=json.loads, default={}, help="JSON: fields of Recipe to change")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    recipe = Recipe(**{"steps": args.steps, **args.recipe})
    ears = load_ears(args.ears).to(device)
    brain = load_packed_decoder(args.brain)
    torch.manual_seed(recipe.seed)
    sizes = {**asdict(brain.config), "vocab_size": brain.config.vocab_size + RESERVED}
    sizes["num_hidden_layers"] = args.layers
    config = DraftConfig(type(brain.config)(**sizes), ears.config.encoder.size, args.window)
    begun = from_brain(brain, config)
    model = DraftModel(config, dropout=recipe.dropout)
    model.load_state_dict(begun.state_dict())
    run = Run(model.to(device), recipe, args.out / "checkpoint")
    judged = [heard for dialogues in Shards(args.judged, ears).new() for heard in dialogues]
    print(f"{recipe}\n{len(judged)} dialogues to judge by; from step {run.step}", flush=True)
    batches = Batches(config, recipe.seed)
    trained = train(run, batches, Shards(args.shards, ears), judged, seconds=args.seconds)
    print(f"averaged weights, held out {json.dumps(evaluate(trained, judged))}", flush=True)
    trained = trained.cpu()
    save_draft(trained, args.out / "weights")
    pack_draft(trained, args.out / "packed")


if __name__ == "__main__":
    main()
