"""A torch model as a folder: config.json and one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from relay_models.loading import WeightsError

WEIGHTS = "model.safetensors"


def save_model(model: nn.Module, config: Mapping[str, Any], folder: Path, *, without: Collection[str] = ()) -> None:
    """Writes config.json and model.safetensors (in the weights' own types) into a folder, which is made if need be.

    Tensors named in `without` are left out: those that are another one under a second name.
    """
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in without}
    _save_config(config, folder)
    save_file(tensors, folder / WEIGHTS)


def save_packed(tensors: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> None:
    """Writes the same files from arrays, as `quantize.pack_weights` makes them."""
    _save_config(config, folder)
    safetensors.numpy.save_file(dict(tensors), folder / WEIGHTS)


def _save_config(config: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model's folder. Raises WeightsError when they are missing or damaged."""
    try:
        return load_file(folder / WEIGHTS)
    except Exception as error:  # the library has exceptions of its own beside OSError
        raise WeightsError(f"{folder.name}/{WEIGHTS} cannot be read ({error})") from error


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts tensors, of any floating type, into a model. Raises WeightsError when they do not fit it."""
    try:
        model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise WeightsError(f"the weights do not fit config.json: {' '.join(str(error).split())}") from error
