"""Packs and exports the embedded language model: `python -m relay_models.training.brain_export TRAINED TOKENIZER`."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.export import Dim

from relay_models.decoder import Decoder, DecoderConfig
from relay_models.export import export_graph, use_packed
from relay_models.loading import WEIGHTS_DIR, add_to_manifest, describe, read_config
from relay_models.quantize import pack_weights

SUMMARY = "small dialogue language model, int8; 15.7 M parameters, context 512 tokens"
_TIED = {"lm_head": "model.embed_tokens"}


class _Graph(nn.Module):
    """What the ONNX graph computes: `Decoder.advance`."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.model, self.lm_head = decoder.model, decoder.lm_head  # the names of the weights file
        self._advance = decoder.advance

    def forward(self, tokens: Tensor, entries: Tensor, lengths: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        return self._advance(tokens, entries, lengths, counts)


def write_packed(weights: dict[str, Tensor], config: DecoderConfig, folder: Path) -> None:
    """Writes model.safetensors, config.json and model.onnx of a decoder with tied embeddings.

    Args:
        weights: Its tensors under their Hugging Face names.
        config: Its sizes.
        folder: Where to; made when it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packed = pack_weights(
        {name: tensor.float().numpy() for name, tensor in weights.items() if name != "lm_head.weight"}
    )
    save_file(packed, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # the library makes it readable by its owner only
    (folder / "config.json").write_text(
        json.dumps({"model_type": "qwen2", **asdict(config)}, indent=2) + "\n", encoding="utf-8"
    )
    decoder = Decoder(config)
    use_packed(decoder, {name: torch.from_numpy(array) for name, array in packed.items()}, tied=_TIED)
    for name, parameter in decoder.named_parameters():
        parameter.data = weights[name].float()
    batch, time, span = 2, 3, 5
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    export_graph(
        _Graph(decoder),
        (
            torch.zeros(batch, time, dtype=torch.int64),
            torch.zeros(batch, span, *config.entry_shape, dtype=torch.float16),
            torch.full((batch,), span),
            torch.full((batch,), time),
        ),
        inputs=("tokens", "entries", "lengths", "counts"),
        outputs=("logits", "new_entries"),
        dynamic={"tokens": free, "entries": free, "lengths": {0: Dim.DYNAMIC}, "counts": {0: Dim.DYNAMIC}},
        weights=folder / "model.safetensors",
        graph=folder / "model.onnx",
        tied=_TIED,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="folder with weights-*.safetensors and config.json")
    parser.add_argument("tokenizer", type=Path, help="tokenizer.json")
    parser.add_argument("out", type=Path, nargs="?", default=WEIGHTS_DIR, help="weights folder with the manifest")
    args = parser.parse_args()
    weights: dict[str, Tensor] = {}
    for path in sorted(args.trained.glob("weights-*.safetensors")):
        weights |= load_file(path)
    folder = args.out / "brain"
    write_packed(weights, DecoderConfig.from_dict(read_config(args.trained)), folder)
    if args.tokenizer.resolve() != (folder / "tokenizer.json").resolve():
        shutil.copyfile(args.tokenizer, folder / "tokenizer.json")
    add_to_manifest("brain", describe("brain", folder, kind="brain", summary=SUMMARY), args.out)


if __name__ == "__main__":
    main()
