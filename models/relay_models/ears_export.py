"""Packs a trained recogniser into the folder that ships: `python -m relay_models.ears_export TRAINED OUT`.

TRAINED holds config.json, model.safetensors and tokenizer.json. OUT gets the same configuration, one model.safetensors
with int8 matrices, which both runners read, and for each look-ahead an ONNX graph without weights of its own, from
samples and state to frames and state. The transducer's two networks are in no graph: they decode on the host
(`beam.py`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.attention import SDPBackend, sdpa_kernel

from relay_models.ears import Ears, load_ears
from relay_models.ears_chunk import ChunkStep
from relay_models.ears_folder import LANGUAGE_MODEL, TOKENIZER, WEIGHTS, graph_name
from relay_models.export import PackedLinear, dequantized, export_graph, use_packed
from relay_models.framing import ENDLESS, chunk_samples, lookahead_ms
from relay_models.loading import add_to_manifest, describe
from relay_models.quantize import PACKED, SCALES, quantize
from relay_models.state import StreamState

BLOCKS = (256, 128, 64, 32, 16)
"""Columns that may share a scale: the first that divides a matrix is taken."""
_LEAST_ELEMENTS = 1024  # a smaller matrix is not worth a node of its own kind
_EXAMPLE_ROWS = 2
_DISTANCES = ".distance_proj"

Array = npt.NDArray[Any]


def pack_ears(model: Ears) -> dict[str, Array]:
    """The tensors to ship: linear layers and embeddings in int8, other weights in float16, as training leaves them.

    The front end's constants come too, in float32, so that no graph holds them. CTC is left out: it serves training.
    """
    constants = {f"features.{name}": buffer for name, buffer in model.features.named_buffers()}
    plain = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("ctc.")}
    packed: dict[str, Array] = {}
    for name, tensor in {**plain, **constants}.items():
        array = np.ascontiguousarray(tensor.float().numpy())
        owner, _, kind = name.rpartition(".")
        block = next((block for block in BLOCKS if array.ndim == 2 and array.shape[1] % block == 0), None)
        is_matrix = kind == "weight" and isinstance(model.get_submodule(owner), nn.Linear | nn.Embedding)
        if block is None or not is_matrix or array.size < _LEAST_ELEMENTS:
            packed[name] = array if name in constants else array.astype(np.float16)
        else:
            packed[f"{owner}.{PACKED}"], packed[f"{owner}.{SCALES}"] = quantize(array, block=block)
    return packed


class _Unpacked(nn.Module):
    """A packed linear layer without bias in float32: on constants, the runtime computes it once, when it loads."""

    packed: Tensor
    scales: Tensor

    def __init__(self, layer: PackedLinear) -> None:
        super().__init__()
        self.register_buffer(PACKED, layer.packed)
        self.register_buffer(SCALES, layer.scales)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        return x @ dequantized(self.packed, self.scales).T


class _Graph(nn.Module):
    """What an ONNX graph computes: `ChunkStep` on rows that are all active, its tables of distances not as constants.

    Tables would be a megabyte in each graph; computed from the weights, they are folded when the graph is loaded.
    """

    def __init__(self, chunk: ChunkStep) -> None:
        super().__init__()
        self.chunk = chunk
        self.names = tuple(chunk.fresh_tensors(1))

    def forward(self, pcm: Tensor, counts: Tensor, lengths: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        advanced = StreamState({name: tensor.clone() for name, tensor in zip(self.names, state, strict=True)})
        active = torch.ones_like(counts, dtype=torch.bool)
        chunk = torch.func.functional_call(self.chunk, self._tables(), (pcm, counts, lengths, advanced, active))
        ends = () if chunk.ends is None else (chunk.ends,)
        return chunk.frames, chunk.valid, *ends, *advanced.tensors.values()

    def _tables(self) -> dict[str, Tensor]:
        stream = self.chunk.encoder
        if not stream.encoder.config.relative_positions:
            return {}
        return {
            f"encoder.{stream.table_name(index)}": stream.distance_keys(layer, reach)
            for index, (layer, reach) in enumerate(zip(stream.encoder.layers(), stream.reaches, strict=True))
        }


def write_packed(model: Ears, folder: Path, **extra: Any) -> None:
    """Writes config.json, model.safetensors and the graphs; the folder is made when it is missing.

    Args:
        model: With its weights; left as it is.
        folder: Where to.
        extra: More entries of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = pack_ears(model)
    save_file(packed, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # the library makes it readable by its owner only
    config = replace(model.config, ctc=False, middle=0)
    text = json.dumps({**config.to_dict(), **extra}, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    shipped = load_ears(folder)
    wide = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in packed.items()}
    use_packed(shipped, {name: torch.from_numpy(array) for name, array in wide.items()})
    for name, module in list(shipped.named_modules()):
        if name.endswith(_DISTANCES) and isinstance(module, PackedLinear):
            setattr(shipped.get_submodule(name.removesuffix(_DISTANCES)), _DISTANCES[1:], _Unpacked(module))
    for right in config.encoder.rights:
        _write_graph(shipped, right, folder)


def _write_graph(shipped: Ears, right: int, folder: Path) -> None:
    """Exports the chunk step with one look-ahead, for any number of rows."""
    chunk = ChunkStep(shipped, right)
    state = chunk.fresh_tensors(_EXAMPLE_ROWS)
    rows = {0: Dim.DYNAMIC}
    samples = chunk_samples(right)
    # Names of tensors: `encoder` is inside the chunk's own encoder.
    names = {f"chunk.encoder.encoder.{name}": f"encoder.{name}" for name, _ in shipped.encoder.named_modules()}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # a fused kernel has no counterpart in ONNX for our masks
        export_graph(
            _Graph(chunk),
            (
                torch.zeros(_EXAMPLE_ROWS, samples),
                torch.full((_EXAMPLE_ROWS,), samples),
                torch.full((_EXAMPLE_ROWS,), ENDLESS),
                list(state.values()),
            ),
            inputs=("pcm", "counts", "lengths", *state),
            outputs=("frames", "valid", *(() if shipped.end is None else ("ends",)), *(f"new.{n}" for n in state)),
            dynamic={"pcm": rows, "counts": rows, "lengths": rows, "state": [rows] * len(state)},
            weights=folder / WEIGHTS,
            graph=folder / graph_name(right),
            tied={**names, "chunk.features": "features", "chunk.end": "end"},
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trained", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json; default: the one in TRAINED")
    parser.add_argument("--lookahead-ms", type=int, help="the default look-ahead; else the one of TRAINED")
    parser.add_argument("--lm", type=Path, help="language model to fuse in, of `ears_lm`")
    parser.add_argument(
        "--decoding",
        type=json.loads,
        default={},
        help='arguments of BeamDecoder, such as {"beam": 4, "lm_weight": 0.3}',
    )
    parser.add_argument("--ship", action="store_true", help="enter OUT in the manifest of the folder that holds it")
    args = parser.parse_args()
    model = load_ears(args.trained)
    rights = model.config.encoder.rights
    if args.lookahead_ms is not None:
        first = next((right for right in rights if lookahead_ms(right) == args.lookahead_ms), None)
        if first is None:
            parser.error(f"trained for look-aheads of {', '.join(str(lookahead_ms(r)) for r in rights)} ms")
        rights = (first, *(right for right in rights if right != first))
        encoder = replace(model.config.encoder, rights=rights)
        model.config = replace(model.config, encoder=encoder)
    write_packed(model, args.out, decoding=args.decoding)
    if args.lm:
        shutil.copyfile(args.lm, args.out / LANGUAGE_MODEL)
    shutil.copyfile(args.tokenizer or args.trained / TOKENIZER, args.out / TOKENIZER)
    if args.ship:
        millions = sum(tensor.numel() for tensor in load_ears(args.out).state_dict().values()) / 1e6
        summary = f"streaming recogniser, US English, int8; {millions:.1f} M parameters"
        add_to_manifest(args.out.name, describe(args.out.name, args.out, kind="ears", summary=summary), args.out.parent)
    sizes = {path.name: path.stat().st_size for path in sorted(args.out.iterdir())}
    for name, size in {**sizes, "in all": sum(sizes.values())}.items():
        print(f"{size / 1e6:8.3f} MB  {name}")


if __name__ == "__main__":
    main()
