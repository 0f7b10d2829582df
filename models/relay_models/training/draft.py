"""Trains the duplex draft model on spoken dialogues, heard through the ears' frozen encoder.

    python -m relay_models.training.draft EARS OUT --shards SHARDS --judged JUDGED --seconds 1100 --gpus 4

EARS is a recogniser's folder, trained or as it ships. SHARDS may still be growing (`draft_data say`): new ones are
taken up while training runs, by each GPU its own. The decoder begins as the brain. The loss is cross entropy of the
token of each frame, silence with weight 0.2 (RelayS2S, arXiv 2603.23346), and that of the user's words (`draft_words`);
for half of the replies speech is switched off while their text is said, as it is when a draft is made.

The learning rate falls with the time that is over, or the steps, whichever is further. A run goes on from the last
checkpoint in OUT; OUT/travel holds a small one, which `--resume` takes up elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from relay_models.decoder import load_packed_decoder
from relay_models.draft import (
    DRAFT_FRAME_MS,
    RESERVED,
    DraftConfig,
    DraftModel,
    Special,
    from_brain,
    pack_draft,
    save_draft,
)
from relay_models.ears import Ears, load_ears
from relay_models.loading import WEIGHTS_DIR
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.draft_batches import PADDING, Batch, Batches, Heard, hear
from relay_models.training.draft_data import read_shard
from relay_models.training.draft_eval import evaluate
from relay_models.training.draft_words import WordReader
from relay_models.training.ears_checkpoint import (
    TrainingState,
    load_state,
    moments,
    restore_moments,
    save_state,
)
from relay_models.training.ears_peers import Peers


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on, apart from the data.

    Attributes:
        steps: Length of the run.
        rows: Pieces of dialogues a step, of each process.
        frames: Frames of each.
        learning_rate: The highest, of the decoder.
        adapter_rate: The highest, of the adapter, which begins from nothing.
        warm_up: Steps up to it; a cosine to a twentieth follows.
        silence: Weight of frames at which nothing is to be said.
        words: Weight of the loss of the user's words.
        words_layer: Layer that they are read off, counted from 1.
        switched_off: Share of replies whose text is said without speech.
        weight_decay: Of matrices.
        dropout: Of the decoder.
        ema: Decay of the averaged weights.
        clip: Largest norm of the gradient.
        seed: Of batches.
    """

    steps: int = 100_000
    rows: int = 48
    frames: int = 256
    learning_rate: float = 4e-4
    adapter_rate: float = 1e-3
    warm_up: int = 300
    silence: float = 0.2
    words: float = 0.5
    words_layer: int = 2
    switched_off: float = 0.5
    weight_decay: float = 0.05
    dropout: float = 0.1
    ema: float = 0.998
    clip: float = 1.0
    seed: int = 0


def loss_of(logits: Tensor, labels: Tensor, silence_token: int, silence: float) -> Tensor:
    """Mean cross entropy of the frames' tokens, silence weighing `silence`.

    Args:
        logits: [rows, frames, vocabulary].
        labels: [rows, frames] int64, `PADDING` where there is no frame.
        silence_token: Which token silence is.
        silence: Weight of it.
    """
    flat = labels.flatten()
    each = functional.cross_entropy(logits.float().flatten(0, 1), flat, reduction="none", ignore_index=PADDING)
    weight = torch.where(flat == silence_token, silence, 1.0) * (flat != PADDING)
    return (each * weight).sum() / weight.sum().clamp(min=1e-6)


def rate_at(step: int, share: float, recipe: Recipe) -> float:
    """Factor of the learning rates when a share of the run is over: warm-up, then a cosine to a twentieth."""
    return min(1.0, (step + 1) / recipe.warm_up) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class Shards:
    """Takes up the shards of a folder as they come, and those that are there.

    Args:
        folder: Where they are written.
        ears: Hears them.
        peers: Who else takes of them; each takes its own.
        hours: Most sound to take up here.
    """

    def __init__(self, folder: Path, ears: Ears, peers: Peers | None = None, hours: float = math.inf) -> None:
        self._folder = folder
        self._ears = ears
        self._peers = peers or Peers()
        self._left_frames = hours * 3600e3 / DRAFT_FRAME_MS
        self._read: set[str] = set()

    def new(self, most: int | None = None) -> Iterator[list[Heard]]:
        """The dialogues of each shard that has come since; at most so many shards."""
        come = sorted(name for name in set(os.listdir(self._folder)) - self._read if name.endswith(".json"))
        for name in come[:most] if self._left_frames > 0 else ():
            self._read.add(name)
            if zlib.crc32(name.encode()) % self._peers.count == self._peers.rank:
                heard = hear(self._ears, read_shard(self._folder / name), rows=32)
                self._left_frames -= sum(len(each.labels) for each in heard)
                yield heard


class Run:
    """A run: model, optimiser, average, checkpoints.

    Args:
        model: As it begins; on its device.
        recipe: See there.
        out: Folder for checkpoints; the run goes on from one that is there. None keeps none.
        peers: Who trains the same model beside this process.
        resume: Folder of a checkpoint to go on from when there is none in `out`.

    Raises:
        WeightsError: The checkpoint cannot be read.
    """

    def __init__(
        self,
        model: DraftModel,
        recipe: Recipe,
        out: Path | None,
        peers: Peers | None = None,
        resume: Path | None = None,
    ) -> None:
        self.model = model.train()
        self.recipe = recipe
        self.peers = peers or Peers()
        self.step = 0
        self._out = out
        device = next(model.parameters()).device
        sizes = model.config.decoder
        self._reader = WordReader(sizes.hidden_size, sizes.rms_norm_eps).to(device)
        # One module, so that checkpoints hold both.
        self._whole = nn.ModuleDict({"draft": model, "reader": self._reader})
        self.peers.equalise(self._whole)
        adapter = [*model.adapter.parameters(), *self._reader.parameters()]
        matrices = [p for p in model.decoder.parameters() if p.ndim >= 2]
        vectors = [p for p in model.decoder.parameters() if p.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": adapter, "lr": recipe.adapter_rate, "weight_decay": 0.0},
                {"params": matrices, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay},
                {"params": vectors, "lr": recipe.learning_rate, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            fused=True,
        )
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._average = {name: p.detach().clone() for name, p in self._whole.named_parameters()}
        self._losses: list[Tensor] = []
        for folder in (out and out / "checkpoint", resume):
            if folder is not None and (folder / "state.json").exists():
                self._restore(load_state(folder))
                break

    def train_step(self, batch: Batch, share: float) -> None:
        """One step, when a share of the run is over."""
        recipe, device = self.recipe, batch.labels.device
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_at(self.step, share, recipe)
        torch.manual_seed((recipe.seed * 64 + self.peers.rank) * 1_000_003 + self.step)  # dropout
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            losses = self._losses_of(batch)
        (losses[0] + recipe.words * losses[1]).backward()
        self.peers.average(self._whole.parameters())
        norm = nn.utils.clip_grad_norm_(self._whole.parameters(), recipe.clip)
        # A gradient that is not finite leaves the weights alone, without asking the device about it.
        self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        kept = min(recipe.ema, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self._average.values()), [p.detach() for p in self._whole.parameters()], 1 - kept)
        self._losses.append(torch.stack([*losses, norm]).detach())
        self.step += 1

    def _losses_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses of what is to be said, and of what the user says, in nats a token."""
        model, recipe = self.model, self.recipe
        layers = model.by_layer(batch.speech, batch.previous, batch.switched_off)
        logits = model.logits(model.decoder.model.norm(layers[-1]))
        said = loss_of(logits, batch.labels, model.config.token(Special.SIL), recipe.silence)
        if batch.turns is None:
            # Every process must have gradients of the same parameters.
            return said, 0 * torch.stack([p.sum() for p in self._reader.parameters()]).sum()
        place = min(recipe.words_layer, len(layers)) - 1
        return said, self._reader(model, layers[place], batch.turns, batch.switched_off)

    def losses(self) -> list[float]:
        """Means since the last call: loss of what is to be said, of what the user says, norm of the gradient."""
        means: list[float] = torch.stack(self._losses).mean(0).tolist()
        self._losses = []
        return means

    def averaged(self) -> DraftModel:
        """A copy of the model with the averaged weights, in evaluation mode."""
        model = DraftModel(self.model.config).to(next(self.model.parameters()).device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self._average[f"draft.{name}"])
        return model.eval()

    def checkpoint(self) -> None:
        """Writes all that the run needs to go on, and a small one that can travel."""
        if self._out is None or not self.peers.first:
            return
        found = moments(self._whole, self._optimizer)
        weights = {name: p.detach() for name, p in self._whole.named_parameters()}
        state = TrainingState(self.step, 0.0, weights, self._average, *found)
        save_state(state, self._out / "travel", compact=True)
        save_state(state, self._out / "checkpoint", compact=False)

    def _restore(self, state: TrainingState) -> None:
        self.step = state.step
        with torch.no_grad():
            for name, parameter in self._whole.named_parameters():
                parameter.copy_(state.weights[name])
                self._average[name].copy_(state.average[name])
        restore_moments(self._whole, self._optimizer, state)


def train(
    run: Run,
    batches: Batches,
    shards: Shards | None,
    judged: Sequence[Heard],
    *,
    seconds: float = math.inf,
    report_steps: int = 200,
    judge_s: float = 180.0,
    checkpoint_s: float = 60.0,
) -> DraftModel:
    """Trains until the recipe's steps are done or the time is over; gives the averaged model.

    Args:
        run: The run.
        batches: What it learns from.
        shards: Where more of it comes from.
        judged: Held-out dialogues.
        seconds: Longest time, from the first batch on.
        report_steps: Steps between lines of progress.
        judge_s: Time between scores on held-out dialogues.
        checkpoint_s: Time between checkpoints.
    """
    recipe, peers = run.recipe, run.peers
    while shards is not None and not len(batches):
        for dialogues in shards.new():
            batches.add(dialogues)
        time.sleep(0.0 if len(batches) else 0.5)
    peers.agree(0.0)  # all have something to learn from
    began = saved_s = judged_s = reported_s = time.monotonic()
    while True:
        now = time.monotonic()
        share = peers.agree(max(run.step / recipe.steps, (now - began) / seconds))
        assert share is not None
        if share >= 1:
            break
        if shards is not None and run.step % 20 == 0:
            for dialogues in shards.new(most=4 * peers.count):
                batches.add(dialogues)
        run.train_step(batches.draw(run.step, recipe.rows, recipe.frames, switched_off=recipe.switched_off), share)
        if run.step % report_steps == 0:
            said, words, norm = run.losses()
            if peers.first:
                hours = batches.frames * DRAFT_FRAME_MS / 3600e3
                spent = time.monotonic() - reported_s
                print(
                    f"step {run.step} t {now - began:.0f}s {100 * share:.0f} % loss {said:.3f} words {words:.3f} "
                    f"norm {norm:.2f} | {1000 * spent / report_steps:.0f} ms a step, {hours:.1f} h here",
                    flush=True,
                )
            reported_s = time.monotonic()
        if peers.first and judged and now - judged_s > judge_s:
            print(f"step {run.step} held out {json.dumps(evaluate(run.averaged(), judged))}", flush=True)
            judged_s = time.monotonic()
        if now - saved_s > checkpoint_s:
            run.checkpoint()
            saved_s = time.monotonic()
    run.checkpoint()
    return run.averaged()


def begin(args: argparse.Namespace, ears: Ears, recipe: Recipe) -> DraftModel:
    """The model before the first step."""
    brain = load_packed_decoder(args.brain)
    torch.manual_seed(recipe.seed)
    sizes = {**asdict(brain.config), "vocab_size": brain.config.vocab_size + RESERVED}
    sizes["num_hidden_layers"] = args.layers
    config = DraftConfig(type(brain.config)(**sizes), ears.config.encoder.size, args.window)
    model = DraftModel(config, dropout=recipe.dropout)
    model.load_state_dict(from_brain(brain, config).state_dict())
    return model


def work(rank: int, args: argparse.Namespace) -> None:
    """One process of a run."""
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")
    recipe = Recipe(**{"steps": args.steps, **args.recipe})
    ears = load_ears(args.ears).to(device)
    peers = Peers(rank, args.gpus, args.out / "meeting", device=device.type)
    run = Run(begin(args, ears, recipe).to(device), recipe, args.out, peers, args.resume)
    judged = [heard for dialogues in Shards(args.judged, ears).new() for heard in dialogues] if peers.first else []
    if peers.first:
        print(f"{recipe}\n{len(judged)} dialogues to judge by; from step {run.step}", flush=True)
    tokenizer = ChatTokenizer.load(args.brain / "tokenizer.json")
    batches = Batches(run.model.config, recipe.seed * 64 + rank, tokenizer)
    shards = Shards(args.shards, ears, peers, args.hours / args.gpus)
    trained = train(run, batches, shards, judged[: args.judge_by], seconds=args.seconds)
    if peers.first:
        trained = trained.cpu()
        save_draft(trained, args.out / "weights")
        pack_draft(trained, args.out / "packed")
        print(f"averaged weights, held out {json.dumps(evaluate(trained.to(device), judged))}", flush=True)
    peers.part()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("ears", type=Path, help="folder of the recogniser")
    parser.add_argument("out", type=Path, help="folder for checkpoints, weights and packed weights")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--judged", type=Path, required=True, help="folder of shards of held-out dialogues")
    parser.add_argument("--judge-by", type=int, default=80, help="dialogues to judge by on the way; all in the end")
    parser.add_argument("--brain", type=Path, default=WEIGHTS_DIR / "brain")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--gpus", type=int, default=1, help="processes that train together, one a GPU")
    parser.add_argument("--hours", type=float, default=1200.0, help="most sound to keep, on all GPUs together")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from, such as another run's OUT/travel")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--recipe", type=json.loads, default={}, help="JSON: fields of Recipe to change")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "meeting").unlink(missing_ok=True)
    if args.gpus == 1:
        work(0, args)
    else:
        spawn(work, (args,), nprocs=args.gpus)


if __name__ == "__main__":
    main()
