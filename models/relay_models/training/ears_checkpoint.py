"""Checkpoints of the ears' training: safetensors in shards, exact or small enough to travel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from relay_models.ears import load_ears
from relay_models.loading import WeightsError

SHARD_BYTES = 15 << 20
"""Most bytes of tensors in a shard."""


@dataclass(slots=True)
class TrainingState:
    """All that a run needs to go on.

    Attributes:
        step: Steps done.
        audio_s: Audio heard, in seconds.
        weights, average: By name: the weights, and their running average.
        means, squares: By name: Adam's moments of the gradient; only of parameters that have had one.
        counts: By name: gradients that Adam has seen of each, the same parameters.
    """

    step: int
    audio_s: float
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    means: dict[str, Tensor]
    squares: dict[str, Tensor]
    counts: dict[str, int]


class Moments(NamedTuple):
    """Adam's moments and counts of gradients by parameter name; see `TrainingState`."""

    means: dict[str, Tensor]
    squares: dict[str, Tensor]
    counts: dict[str, int]


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Moments:
    """What Adam knows by now. Heads that are not trained yet have nothing."""
    found = Moments({}, {}, {})
    for name, parameter in model.named_parameters():
        if state := optimizer.state.get(parameter):
            found.means[name], found.squares[name] = state["exp_avg"], state["exp_avg_sq"]
            found.counts[name] = int(state["step"])
    return found


def restore_moments(model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Puts moments and the count of steps into a fresh Adam."""
    parameters = dict(model.named_parameters())
    for name, count in state.counts.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(count), device=parameter.device),
            "exp_avg": state.means[name].to(parameter.device, torch.float32).clone(),
            "exp_avg_sq": state.squares[name].to(parameter.device, torch.float32).clone(),
        }


def save_state(state: TrainingState, folder: Path, *, compact: bool) -> None:
    """Writes state-NN.safetensors and state.json, the latter last.

    Args:
        state: What to write.
        folder: Made if need be; older shards in it are removed.
        compact: The average as float16 only, 2 bytes a parameter instead of 16: enough to go on from, with moments that
            Adam finds again within some fifty steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Mapping[str, Tensor]] = {"average": state.average}
    if not compact:
        parts |= {"weights": state.weights, "means": state.means, "squares": state.squares}
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            kept = tensor.detach().to("cpu", torch.float16 if compact else tensor.dtype).contiguous()
            if size + kept.nbytes > SHARD_BYTES and shards[-1]:
                shards.append({})
                size = 0
            shards[-1][f"{part}/{name}"] = kept.clone()
            size += kept.nbytes
    for old in folder.glob("state*"):
        old.unlink()
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"state-{number:02}.safetensors")
    facts: dict[str, Any] = {"step": state.step, "audio_s": state.audio_s, "shards": len(shards)}
    if not compact:
        facts["counts"] = state.counts
    (folder / "state.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def load_state(folder: Path) -> TrainingState:
    """Reads what `save_state` wrote, as float32; of a compact one, the average stands for the weights as well.

    Raises:
        WeightsError: It is missing or damaged.
    """
    try:
        facts = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "means": {}, "squares": {}}
        for number in range(facts["shards"]):
            for key, tensor in load_file(folder / f"state-{number:02}.safetensors").items():
                part, _, name = key.partition("/")
                parts[part][name] = tensor.float()
        parts["weights"] = parts["weights"] or parts["average"]
        return TrainingState(facts["step"], facts["audio_s"], **parts, counts=facts.get("counts", {}))
    except Exception as error:  # the library has exceptions of its own beside OSError
        raise WeightsError(f"the checkpoint {folder.name} cannot be read ({error!r})") from error


def state_of_model(folder: Path, model: nn.Module, step: int) -> TrainingState:
    """A trained or shipped recogniser as a checkpoint to go on from, where no better one is left.

    Args:
        folder: Of `save_ears` or `ears_export`.
        model: A fresh one of the same shape; what the folder lacks (CTC, which does not ship) is taken from it.
        step: Which step the run goes on with: past the curriculum's beginning.

    Raises:
        WeightsError: The folder is damaged, or of another shape.
    """
    known = dict(load_ears(folder).named_parameters())
    weights = {}
    for name, parameter in model.named_parameters():
        found = known.get(name, parameter)
        if found.shape != parameter.shape:
            raise WeightsError(f"{folder.name} is of another shape than the model that is trained: {name}")
        weights[name] = found.detach().float().cpu()
    return TrainingState(step, 0.0, weights, weights, {}, {}, {})
