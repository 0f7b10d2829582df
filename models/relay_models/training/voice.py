"""Trains the voice: `python -m relay_models.training.voice ROOT OUT --stages vocoder=500 --shards SHARDS`.

ROOT is what `voice_data` prepared, SHARDS what `voice_synthesis` workers made. Stages (`voice_trainer`) are given with
their seconds, in the order in which they run: `vocoder=500 align=80 acoustic=240 joint=300`. Every stage goes on from
what OUT holds and leaves there averaged weights, figures on recordings left out, and samples; so a run can be cut
between stages, and a stage can be run again. The vocoder needs neither alignment nor text: two GPUs can train it and
them at once, and `--join` puts both together for the last stage.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from relay_models.loading import WeightsError
from relay_models.phonemes import SYMBOLS
from relay_models.training.ears_checkpoint import TrainingState, load_state, save_state
from relay_models.training.voice_adversary import Adversary
from relay_models.training.voice_align import Aligner
from relay_models.training.voice_batches import Corpus
from relay_models.training.voice_data import KATHLEEN, SPEAKERS, STRANGERS, Recordings
from relay_models.training.voice_eval import judge, save_samples
from relay_models.training.voice_trainer import (
    AcousticStage,
    AlignStage,
    JointStage,
    Recipe,
    Stage,
    VocoderStage,
    align,
)  # fmt: skip
from relay_models.voice import Voice, VoiceConfig

STAGES = ("vocoder", "align", "acoustic", "joint")
_LOWEST_RATE = 0.05


class Report:
    """Log lines with means over the steps since the last one.

    Args:
        path: File that lines are appended to; they are printed as well.
        every_s: Time between lines of progress.
    """

    def __init__(self, path: Path, every_s: float) -> None:
        self._path, self._every_s = path, every_s
        self._losses: dict[str, list[Tensor]] = {}
        self._since, self._steps = time.monotonic(), 0

    def say(self, line: str) -> None:
        """One line, whatever it is."""
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def count(self, stage: str, step: int, elapsed_s: float, losses: Mapping[str, Tensor]) -> None:
        """Takes a step's losses, and says where the stage stands when a line is due."""
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss)
        self._steps += 1
        spent = time.monotonic() - self._since
        if spent >= self._every_s:
            means = " ".join(f"{k} {torch.stack(v).float().mean().item():.3f}" for k, v in self._losses.items())
            self.say(f"{stage} {step} t {elapsed_s:.0f}s {means} | {1000 * spent / self._steps:.0f} ms a step")
            self._losses, self._since, self._steps = {}, time.monotonic(), 0


def cosine(share: float) -> float:
    """Factor of the learning rate when a share of a stage is over: from 1 down to `_LOWEST_RATE`."""
    return _LOWEST_RATE + (1 - _LOWEST_RATE) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def run(name: str, stage: Stage, seconds: float, steps: int, report: Report) -> None:
    """Steps a stage until its time, or its number of steps, is over."""
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds and stage.step < steps:
        losses = stage.train_step(cosine(max(elapsed / seconds, stage.step / steps)))
        report.count(name, stage.step, elapsed, losses)
    stage.finish()
    report.say(f"{name}: {stage.step} steps in {time.monotonic() - began:.0f} s")


def keep(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Writes each module's weights as float16, in shards of 15 MiB."""
    for name, module in modules.items():
        weights = {key: p.detach() for key, p in module.named_parameters()}
        save_state(TrainingState(0, 0.0, {}, weights, {}, {}, {}), folder / name, compact=True)


@torch.no_grad()
def join(vocoder: Path, text: Path, out: Path, config: VoiceConfig) -> None:
    """Puts together what two runs left, one of the vocoder and one of alignment and text, which do not need each other.

    Raises:
        WeightsError: One of them did not get that far.
    """
    one, other = Voice(config), Voice(config)
    adversary, aligner = Adversary(), Aligner(len(SYMBOLS), len(SPEAKERS))
    for folder, modules in (
        (vocoder, {"voice": one, "adversary": adversary}),
        (text, {"voice": other, "aligner": aligner}),
    ):
        if take_up(modules, folder) != list(modules):
            raise WeightsError(f"{folder.name} does not hold {' and '.join(modules)}; train it first")
    other.vocoder.load_state_dict(one.vocoder.state_dict())
    keep({"voice": other, "adversary": adversary, "aligner": aligner}, out)


@torch.no_grad()
def take_up(modules: Mapping[str, nn.Module], folder: Path) -> list[str]:
    """Reads what `keep` wrote, as far as it is there; returns the names of what was."""
    found = [name for name in modules if (folder / name / "state.json").exists()]
    for name in found:
        weights = load_state(folder / name).average
        for key, parameter in modules[name].named_parameters():
            parameter.copy_(weights[key])
    return found


def gather(root: Path, shards: Path | None, device: torch.device) -> tuple[Corpus, Corpus]:
    """All that is trained on, and the speaker's recordings that are left out."""
    recordings = [Recordings.load(root / KATHLEEN), Recordings.load(root / STRANGERS)]
    if shards is not None:
        recordings += [Recordings.load_raw(index.with_suffix("")) for index in sorted(shards.glob("*.json"))]
    return Corpus(recordings, device), Corpus([Recordings.load(root / f"{KATHLEEN}_held_out")], device)


def parse_stages(texts: list[str]) -> list[tuple[str, float]]:
    """Stages with their seconds from `name=seconds`. Raises ValueError for other words."""
    stages = []
    for text in texts:
        name, _, seconds = text.partition("=")
        if name not in STAGES:
            raise ValueError(f"{name!r} is no stage; there are {', '.join(STAGES)}")
        stages.append((name, float(seconds)))
    return stages


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stages", nargs="+", required=True, help="vocoder=S align=S acoustic=S joint=S, S in seconds")
    parser.add_argument("--shards", type=Path, help="folder of synthetic speech")
    parser.add_argument("--resume", type=Path, help="folder of weights to begin with; OUT's own otherwise")
    parser.add_argument(
        "--join", type=Path, nargs=2, metavar=("VOCODER", "TEXT"), help="begin with two runs' folders put together"
    )
    parser.add_argument("--steps", type=int, default=10**9, help="most steps of a stage")
    parser.add_argument("--rows", type=int, default=Recipe().rows)
    parser.add_argument("--clips", type=int, default=Recipe().clips)
    parser.add_argument("--judged-from", type=int, default=Recipe().judged_from)
    parser.add_argument("--config", default="{}", help="JSON of what differs from the shipped voice's shape")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--report-s", type=float, default=10.0)
    args = parser.parse_args()
    stages = parse_stages(args.stages)
    args.out.mkdir(parents=True, exist_ok=True)
    report = Report(args.out / "log.txt", args.report_s)
    device = torch.device(args.device)
    torch.set_float32_matmul_precision("high")
    recipe = replace(Recipe(), rows=args.rows, clips=args.clips, judged_from=args.judged_from)
    torch.manual_seed(recipe.seed)
    config = VoiceConfig.from_dict({"speakers": len(SPEAKERS), **json.loads(args.config)})
    if args.join:
        join(args.join[0], args.join[1], args.out, config)
    voice, adversary = Voice(config).to(device), Adversary().to(device)
    aligner = Aligner(len(SYMBOLS), len(SPEAKERS)).to(device)
    modules = {"voice": voice, "adversary": adversary, "aligner": aligner}
    report.say(f"{ {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()} }; {recipe}")
    report.say(f"going on with {take_up(modules, args.resume or args.out)}")
    began = time.monotonic()
    corpus, held_out = gather(args.root, args.shards, device)
    report.say(f"{len(corpus.hops)} clips, {corpus.hops.sum() / 360_000:.2f} h, in {time.monotonic() - began:.0f} s")
    figures = {}
    for name, seconds in stages:
        if name in ("acoustic", "joint"):
            for clips in (corpus, held_out):
                if not clips.lengths:
                    align(clips, aligner.eval())
        voice.train()
        stage: Stage = (
            VocoderStage(corpus, voice, adversary, recipe) if name == "vocoder"
            else AlignStage(corpus, aligner.train(), recipe) if name == "align"
            else AcousticStage(corpus, voice, recipe) if name == "acoustic"
            else JointStage(corpus, voice, adversary, replace(recipe, judged_from=0))
        )  # fmt: skip
        # Of one shape in every step: worth trying out which convolution is fastest.
        torch.backends.cudnn.benchmark = name == "vocoder"
        run(name, stage, seconds, args.steps, report)
        keep(modules, args.out)
        figures[name] = judge(held_out, voice)
        report.say(f"{name}: " + " ".join(f"{key} {value:.2f}" for key, value in figures[name].items()))
    if device.type == "cuda":
        report.say(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of memory at most")
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    save_samples(held_out, voice, args.out / "samples", range(min(6, len(held_out.hops))))


if __name__ == "__main__":
    main()
