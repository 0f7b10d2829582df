"""Trains the ears: `python -m relay_models.training.ears ROOT OUT --shards SHARDS --seconds 500`.

ROOT is what `ears_data` prepared (and `ears_pseudo`, `ears_natural` added to); SHARDS a folder that `ears_synthesis`
workers are filling, or have filled. The run ends when its time is over, always with a checkpoint, an averaged model and
its word error rates; `--resume` goes on, `--weights` begins with a finished model. With `--gpus 2`, two processes train
one model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from relay_models.ears import Ears, EarsConfig, save_ears
from relay_models.encoder import EncoderConfig
from relay_models.training.ears_augment import room_bank
from relay_models.training.ears_batches import (
    BUCKETS_S,
    Mix,
    MixSchedule,
    Planner,
    ShardReader,
    Store,
    carry_out,
    group_of,
    load_shards,
    plan_batch,
)  # fmt: skip
from relay_models.training.ears_checkpoint import load_state, save_state, state_of_model
from relay_models.training.ears_data import FEATURES, Clips
from relay_models.training.ears_eval import evaluate, table
from relay_models.training.ears_peers import Peers
from relay_models.training.ears_trainer import Hearing, Recipe, Trainer, settle
from relay_models.transducer import TransducerConfig

SHARES = {
    "espeak": 0.20, "flite": 0.22, "kal16": 0.02, "kathleen": 0.05, "speakers": 0.02, "librispeech_train_clean_5": 0.12,
    "librispeech_dev_clean_part": 0.06, "librispeech_samples": 0.02, "common_voice_v1_valid_test": 0.10,
    "common_voice_v1_valid_dev": 0.15, "common_voice_small": 0.01, "speechocean762": 0.03, "an4": 0.01,
    "ljspeech_part": 0.02, "vctk_p239": 0.01,
}  # fmt: skip
"""Of the clips of a batch; groups that the store does not have are left out."""
LATE_SHARES = {name: share * (0.75 if name in ("espeak", "flite", "kal16") else 1.2) for name, share in SHARES.items()}
"""From `--late-from` on: people above all, whom the model is for."""
JUDGED = ("slt", "slt_hts", "klatt", "kathleen", "strangers")
"""Sets that a run is judged by: voices left out of the synthesis, prompts left out, speakers left out."""


def shape(pieces: int) -> EarsConfig:
    """The model that is trained: 14 M parameters, so that int8 weights fit into 16 MB."""
    return EarsConfig(
        features=FEATURES,
        encoder=EncoderConfig(channels=192, size=256, layers=10, heads=4, inner=768),
        transducer=TransducerConfig(vocabulary=pieces + 1, size=256, layers=0, context=2, joint=320),
        middle=6,
    )


class Report:
    """Log lines with means over the steps since the last one.

    Args:
        path: File that lines are appended to; they are printed as well.
        every_s: Time between lines of progress.
        silent: Say nothing.
    """

    def __init__(self, path: Path, every_s: float, *, silent: bool = False) -> None:
        self._path, self._every_s, self._silent = path, every_s, silent
        self._losses: dict[str, list[Tensor]] = {}
        self._since, self._audio_s, self._steps = time.monotonic(), 0.0, 0

    def say(self, line: str) -> None:
        """One line, whatever it is."""
        if self._silent:
            return
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def count(self, losses: Mapping[str, Tensor], audio_s: float) -> bool:
        """Takes a step's losses; true when a line is due."""
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss)
        self._audio_s += audio_s
        self._steps += 1
        return time.monotonic() - self._since >= self._every_s

    def progress(self, step: int, elapsed_s: float, hours: Mapping[str, float]) -> None:
        """The line that is due."""
        means = " ".join(f"{k} {torch.stack(v).float().mean().item():.3f}" for k, v in self._losses.items())
        now = time.monotonic()
        spent = now - self._since
        stored = " ".join(f"{name} {value:.1f}" for name, value in hours.items())
        self.say(
            f"step {step} t {elapsed_s:.0f}s {means} | {1000 * spent / self._steps:.0f} ms a step, "
            f"{self._audio_s / spent / 3600:.2f} h/s | stored h: {stored}"
        )
        self._losses, self._since, self._audio_s, self._steps = {}, now, 0.0, 0


def rehearse(trainer: Trainer, store: Store, mix: Mix, report: Report) -> None:
    """Tries the dearest step of every kind of row, and says where the time of three of them goes (CUDA only)."""
    for bucket in range(len(BUCKETS_S)):
        for seed in range(2):
            plan = plan_batch(store, replace(mix, only=bucket), seed, 0)
            losses = trainer.rehearse(carry_out(plan, store))
        report.say(f"rows of {BUCKETS_S[bucket]} s: " + " ".join(f"{k} {v.item():.2f}" for k, v in losses.items()))
    report.say(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of memory at most")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for step in range(3):
            trainer.rehearse(carry_out(plan_batch(store, mix, 2, step), store))
        torch.cuda.synchronize()
    report.say(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=90))


def cosine(share: float) -> float:
    """Factor of the learning rate after a share of the whole training's time: from 1 to 0.01 along a cosine."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))


def run(
    trainer: Trainer,
    planner: Planner,
    store: Store,
    report: Report,
    rate_at: Callable[[int, float], float | None],
    save: Callable[[], None],
    *,
    save_every_s: float,
) -> None:
    """Trains until `rate_at` gives None.

    Args:
        trainer, planner, store, report: Parts of the run.
        rate_at: Step and seconds since the beginning -> factor of the learning rate.
        save: Writes a checkpoint.
        save_every_s: How often.
    """
    began = saved = time.monotonic()
    while (rate := rate_at(trainer.step, time.monotonic() - began)) is not None:
        batch = carry_out(planner.next(), store)
        losses = trainer.train_step(batch, rate)
        if report.count(losses, batch.audio.numel() / 16_000):
            report.progress(trainer.step, time.monotonic() - began, store.hours())
            report.say(f"rate {rate * trainer.recipe.learning_rate:.2e}, block 0: {first_block(trainer.model)}")
        if time.monotonic() - saved > save_every_s:
            save()
            saved = time.monotonic()


def first_block(model: Ears) -> str:
    """Deviation of the weights of the first block's attention, which grow without bound when the features are off."""
    attention = model.encoder.blocks[0].get_submodule("attention")
    return " ".join(
        f"{n.partition('.')[0]} {p.std().item():.3f}" for n, p in attention.named_parameters() if p.ndim > 1
    )


def fill(store: Store, args: argparse.Namespace, report: Report) -> ShardReader | None:
    """Recordings, then shards: those that are there (--finished), or a reader that goes on taking them in."""
    for path in sorted((args.root / "clips").glob("train_*.json")):
        store.add(Clips.load(path.with_suffix("")), group_of(path.stem.removeprefix("train_")))
    recorded = sum(store.hours().values())
    if args.finished:
        load_shards(store, sorted(args.shards.glob("*.json")))
        return None
    reader = ShardReader(store, args.shards)
    while sum(store.hours().values()) < args.first_hours + recorded:
        if not reader.read_new():
            time.sleep(0.5)
    report.say(f"starting with {store.hours()} h")
    reader.start()
    return reader


def train(rank: int, args: argparse.Namespace) -> None:
    """One process of the run."""
    name = f"cuda:{rank}" if args.device == "cuda" else args.device
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    peers = Peers(rank, args.gpus, args.out / "meeting", name)
    report = Report(args.out / "log.txt", args.report_s, silent=not peers.first)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True  # rows come in a few shapes only
    recipe = Recipe(batch_s=args.batch_s, learning_rate=args.rate, fastemit=args.fastemit)
    tokenizer = Tokenizer.from_file(str(args.root / "tokenizer.json"))
    torch.manual_seed(recipe.seed)
    model = Ears(shape(tokenizer.get_vocab_size())).to(device)
    report.say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters; {asdict(recipe)}")
    clips = {name: Clips.load(args.root / "clips" / name) for name in (*JUDGED, "rooms")}
    styles = load_file(args.root / "styles.safetensors")["styles"]
    hearing = Hearing(model.config.features, room_bank([a for a, _ in clips["rooms"]]), styles, device)
    store = Store(int(args.store_hours * 3600 * 16_000), tokenizer, device)
    reader = fill(store, args, report)
    schedule = MixSchedule(Mix(recipe.batch_s, SHARES), recipe.clean_steps, LATE_SHARES, args.late_from)
    batch = carry_out(plan_batch(store, Mix(200.0, SHARES, only=0), recipe.seed, 0), store)
    settle(model, *hearing(batch, 0.0, recipe.seed))
    trainer = Trainer(model, recipe, hearing, peers)
    if args.resume:
        trainer.restore(load_state(args.resume))
    elif args.weights:
        trainer.restore(state_of_model(args.weights, model, recipe.clean_steps + recipe.ramp_steps))
    if args.rehearse:
        rehearse(trainer, store, Mix(recipe.batch_s, SHARES), report)
    planner = Planner(store, schedule, recipe.seed, trainer.step, peers.rank)
    planner.start()

    def rate_at(step: int, elapsed_s: float) -> float | None:
        over = step >= args.steps or elapsed_s >= args.seconds
        return peers.agree(None if over else cosine((args.spent_s + elapsed_s) / (args.spent_s + args.seconds)))

    def save() -> None:
        if peers.first:
            save_state(trainer.state(), args.out / "checkpoint", compact=True)

    run(trainer, planner, store, report, rate_at, save, save_every_s=args.save_s)
    planner.close()
    if reader is not None:
        reader.close()
    save()
    if args.exact and peers.first:
        save_state(trainer.state(), args.exact, compact=False)
    peers.part()
    if peers.first:
        judge(trainer, tokenizer, {name: clips[name] for name in JUDGED}, args.out, report)


def judge(trainer: Trainer, tokenizer: Tokenizer, clips: Mapping[str, Clips], out: Path, report: Report) -> None:
    """Saves the averaged model and its word error rates. Raises SystemExit when these are not finite."""
    averaged, recipe = trainer.averaged(), trainer.recipe
    save_ears(averaged.half(), out / "model")
    rates = evaluate(
        averaged.float(), tokenizer, clips, rights=tuple(recipe.rights),
        transducer=recipe.transducer_weight(trainer.step) > 0, show=3,
    )  # fmt: skip
    (out / "rates.json").write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")
    report.say(f"step {trainer.step}, {trainer.audio_s / 3600:.0f} h heard; word error rates in %:\n{table(rates)}")
    if not math.isfinite(sum(sum(row.values()) for row in rates.values())):
        raise SystemExit("the rates are not finite")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--finished", action="store_true", help="the shards are complete: read all, then train")
    parser.add_argument("--seconds", type=float, default=500.0, help="time for training; judging comes on top")
    parser.add_argument("--spent-s", type=float, default=0.0, help="what earlier runs of this training have had")
    parser.add_argument("--save-s", type=float, default=150.0, help="time between checkpoints")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--late-from", type=int, default=10**9, help="step from which on people are heard most")
    parser.add_argument("--resume", type=Path, help="folder of a checkpoint")
    parser.add_argument("--weights", type=Path, help="folder of a recogniser to go on from instead, of the same pieces")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--store-hours", type=float, default=500.0)
    parser.add_argument("--first-hours", type=float, default=3.0, help="synthetic speech to wait for")
    parser.add_argument("--batch-s", type=float, default=Recipe().batch_s)
    parser.add_argument("--rate", type=float, default=Recipe().learning_rate, help="highest learning rate")
    parser.add_argument("--fastemit", type=float, default=Recipe().fastemit, help="see rnnt_loss.py")
    parser.add_argument("--report-s", type=float, default=10.0)
    parser.add_argument("--rehearse", action="store_true", help="try the dearest steps first, and say where time goes")
    parser.add_argument("--exact", type=Path, help="folder for an exact checkpoint, 16 bytes a parameter, as well")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.gpus > 1:
        (args.out / "meeting").unlink(missing_ok=True)
        spawn(train, (args,), nprocs=args.gpus)
    else:
        train(0, args)


if __name__ == "__main__":
    main()
