"""The voice as two ONNX graphs over one safetensors file: `encode.onnx` reads a word, `speak.onnx` speaks 80 ms.

The matrices are stored in int8 (`quantize.py`). The graphs unpack them by ordinary nodes over constants, which ONNX
Runtime folds when it loads a session: products then run in float32, and nothing is rounded but the weights. Products
of int8 blocks (`export.PackedLinear`) take two thirds of the time for one stream and no less for four, but round what
goes into the filters' logarithms and angles as well; float32 is fast enough.

A stream's state is two flat arrays, `memory` [rows, MEMORY] float32 and `counters` [rows, COUNTERS] int64, which come
out as `next_memory` and `next_counters`. Zeros are a fresh stream; copying a row copies the stream.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.export import Dim

from relay_models.export import dequantized, export_graph
from relay_models.quantize import BLOCK, PACKED, SCALES, quantize
from relay_models.state import StreamState
from relay_models.stored import WEIGHTS
from relay_models.voice import Voice
from relay_models.voice_plan import ENCODE, POSITIONS, SPEAK, STEP_FRAMES

ENCODE_INPUTS, ENCODE_OUTPUTS = ("ids", "places"), ("vectors", "lengths")
SPEAK_INPUTS = ("vectors", "positions", "valid", "memory", "counters")
SPEAK_OUTPUTS = ("samples", "next_memory", "next_counters")


class StoredLinear(nn.Module):
    """A linear layer whose weights are stored in int8 and multiplied in float32.

    Args:
        packed: [N, K/block, block] uint8.
        scales: [N, K/block] float32.
        bias: [N] float32.
    """

    packed: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, packed: Tensor, scales: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer(PACKED, packed)
        self.register_buffer(SCALES, scales)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        return x @ dequantized(self.packed, self.scales).T + self.bias


def store_packed(model: Voice) -> None:
    """Replaces, in place, every linear layer of a voice by a `StoredLinear`."""
    for name, child in list(model.named_modules()):
        if isinstance(child, nn.Linear):
            block = BLOCK if child.in_features % BLOCK == 0 else child.in_features
            packed, scales = quantize(child.weight.detach().float().numpy(), block=block)
            stored = StoredLinear(torch.from_numpy(packed), torch.from_numpy(scales), child.bias.detach().float())
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, stored)


class Encode(nn.Module):
    """`Voice.encode` for the only speaker.

    Args:
        model: A voice with one speaker.
    """

    def __init__(self, model: Voice) -> None:
        super().__init__()
        self.voice = model

    def forward(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """See `Voice.encode`."""
        return self.voice.encode(ids, places, torch.zeros_like(ids[:, 0]))


class Speak(nn.Module):
    """`Voice.step` with its state as arguments and results, all rows active.

    Args:
        model: A voice.
    """

    def __init__(self, model: Voice) -> None:
        super().__init__()
        self.voice = model
        self._shapes = {name: tensor.shape[1:] for name, tensor in model.fresh_tensors(1).items()}
        self._counters = [name for name, tensor in model.fresh_tensors(1).items() if not tensor.is_floating_point()]

    @property
    def widths(self) -> tuple[int, int]:
        """MEMORY and COUNTERS."""
        floats = sum(shape.numel() for name, shape in self._shapes.items() if name not in self._counters)
        return floats, len(self._counters)

    def forward(
        self, vectors: Tensor, positions: Tensor, valid: Tensor, memory: Tensor, counters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Input and state -> samples and the state after them."""
        tensors = {name: counters[:, number].clone() for number, name in enumerate(self._counters)}
        floats = {name: shape for name, shape in self._shapes.items() if name not in self._counters}
        parts = memory.split([shape.numel() for shape in floats.values()], dim=1)
        for (name, shape), part in zip(floats.items(), parts, strict=True):
            tensors[name] = part.reshape(-1, *shape).clone()
        state = StreamState(tensors)
        samples, _ = self.voice.step(vectors, positions, valid, state, torch.ones_like(valid[:, 0]))
        after = torch.cat([state[name].flatten(1) for name in floats], dim=1)
        return samples, after, torch.stack([state[name] for name in self._counters], dim=1)


def narrowed(model: Voice, speaker: int) -> Voice:
    """A copy of a voice that has only one of its speakers."""
    one = Voice(replace(model.config, speakers=1)).to(model.speakers.weight.dtype).eval()
    tensors = model.state_dict()
    tensors["speakers.weight"] = tensors["speakers.weight"][speaker : speaker + 1]
    one.load_state_dict(tensors)
    return one


def export_voice(model: Voice, folder: Path) -> None:
    """Writes config.json, model.safetensors and both graphs into a folder, which is made if need be.

    Args:
        model: With one speaker; its linear layers are packed in place.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model.float().eval()
    store_packed(model)
    tensors = {f"voice.{name}": np.ascontiguousarray(t.detach().numpy()) for name, t in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    speak = Speak(model)
    memory, counters = speak.widths
    facts = {**model.config.to_dict(), "memory": memory, "counters": counters}
    (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    rows = {0: Dim.DYNAMIC}
    ids = torch.ones(2, 7, dtype=torch.int64)
    export_graph(
        Encode(model),
        (ids, ids.clone()),
        inputs=ENCODE_INPUTS,
        outputs=ENCODE_OUTPUTS,
        dynamic={name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in ENCODE_INPUTS},
        weights=folder / WEIGHTS,
        graph=folder / ENCODE,
    )
    export_graph(
        speak,
        (
            torch.zeros(2, STEP_FRAMES, model.config.size),
            torch.zeros(2, STEP_FRAMES, POSITIONS),
            torch.ones(2, STEP_FRAMES, dtype=torch.bool),
            torch.zeros(2, memory),
            torch.zeros(2, counters, dtype=torch.int64),
        ),
        inputs=SPEAK_INPUTS,
        outputs=SPEAK_OUTPUTS,
        dynamic=dict.fromkeys(SPEAK_INPUTS, rows),
        weights=folder / WEIGHTS,
        graph=folder / SPEAK,
    )
