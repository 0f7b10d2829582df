"""Packs a trained draft model into the folder that ships: `python -m relay_models.draft_export TRAINED OUT`.

TRAINED holds config.json and model.safetensors, packed or not. OUT gets the same configuration, one model.safetensors
with int8 matrices, which both runners read, and two ONNX graphs without weights of their own: `listen.onnx` hears one
frame, `draft.onnx` says one token of a fork. The encoder that a frame is heard through is not in them: it is the
recogniser's own graph for a look-ahead of one frame (`ears_export.py`).

`--turn-ends` and `--stops` take a report of `training/draft_eval.py`, and write into config.json how far a server is
to trust what the model signals of turn ends and of interruptions; without them it says what it said.

The graphs read a stream's rings and give only its new entry, so that no ring is copied: who runs them writes the entry
at its place. The verifier needs no graph (`host_verifier.py`); `--verifier` ships it as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from relay_models.draft import DraftModel, load_draft, pack_draft
from relay_models.draft_config import DRAFT, LISTEN, PAST_FRAMES, SPEECH_FRAMES, Trust, keys_name, values_name
from relay_models.export import export_graph, use_packed
from relay_models.loading import WeightsError, add_to_manifest, describe
from relay_models.stored import WEIGHTS, read_tensors
from relay_models.verifier import load_verifier

_EXAMPLE_ROWS = 2
_TIED = {"decoder.lm_head": "decoder.model.embed_tokens"}


class _Listen(nn.Module):
    """What `listen.onnx` computes: `DraftModel.listen`, but for writing the state."""

    def __init__(self, model: DraftModel) -> None:
        super().__init__()
        self.draft = model

    def forward(
        self,
        speech: Tensor,
        past: Tensor,
        previous: Tensor,
        entries: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, ...]:
        hidden, new = self.draft.advance(self.draft.heard(speech, past, previous), entries, keys, values)
        return hidden, self.draft.specials(hidden), new


class _Draft(nn.Module):
    """What `draft.onnx` computes: `DraftModel.decode` and `DraftModel.choose`, but for writing the state."""

    def __init__(self, model: DraftModel) -> None:
        super().__init__()
        self.draft = model

    def forward(
        self, previous: Tensor, banned: Tensor, entries: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> tuple[Tensor, ...]:
        x = self.draft.decoder.model.embed_tokens(previous)
        hidden, new = self.draft.advance(x, entries, keys, values)
        return (*self.draft.choose(hidden, banned), hidden, new)


def write_packed(model: DraftModel, folder: Path) -> None:
    """Writes config.json, model.safetensors and both graphs; the folder is made when it is missing.

    Args:
        model: With its weights, its embedding tied to its head; left as it is.
        folder: Where to.
    """
    pack_draft(model, folder)
    (folder / WEIGHTS).chmod(0o644)  # the library makes it readable by its owner only
    shipped = load_draft(folder)
    use_packed(shipped, read_tensors(folder), tied=_TIED)
    config, rows = model.config, {0: Dim.DYNAMIC}
    fresh = model.fresh_tensors(_EXAMPLE_ROWS)
    layers = range(config.decoder.num_hidden_layers)
    names = (*(keys_name(i) for i in layers), *(values_name(i) for i in layers))
    rings = [fresh[keys_name(i)] for i in layers], [fresh[values_name(i)] for i in layers]
    previous, entries = (torch.zeros(_EXAMPLE_ROWS, dtype=torch.int64) for _ in range(2))
    both = {"previous": rows, "entries": rows, "keys": [rows] * len(layers), "values": [rows] * len(layers)}
    tied = {f"draft.{name}": _TIED.get(name, name) for name, _ in model.named_modules()}
    speech = torch.zeros(_EXAMPLE_ROWS, SPEECH_FRAMES, config.speech_size)
    with torch.no_grad():
        export_graph(
            _Listen(shipped),
            (speech, speech[:, :PAST_FRAMES].clone(), previous, entries, *rings),
            inputs=("speech", "past", "previous", "entries", *names),
            outputs=("hidden", "specials", "new"),
            dynamic={"speech": rows, "past": rows, **both},
            weights=folder / WEIGHTS,
            graph=folder / LISTEN,
            tied=tied,
        )
        export_graph(
            _Draft(shipped),
            (previous, torch.zeros(config.decoder.vocab_size, dtype=torch.bool), entries, *rings),
            inputs=("previous", "banned", "entries", *names),
            outputs=("token", "log_probability", "entropy", "margin", "hidden", "new"),
            dynamic={"previous": rows, "banned": {}, **both},
            weights=folder / WEIGHTS,
            graph=folder / DRAFT,
            tied=tied,
        )


def trust_of(report: Path, name: str) -> Trust:
    """What a report of `training/draft_eval.py` found. Raises WeightsError when it holds no such thing."""
    try:
        found = json.loads(report.read_text(encoding="utf-8"))["trust"][name]
        return Trust(float(found["weight"]), float(found["bias"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{report} is no report with a trust of {name} ({error!r}); make one with relay_models.training.draft_eval"
        ) from error


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trained", type=Path, help="folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--verifier", type=Path, help="folder of the verifier of its drafts, copied to OUT/../verifier")
    parser.add_argument("--ship", action="store_true", help="enter what is written in the manifest beside it")
    for name, help_text in (("turn-ends", "the user has finished"), ("stops", "the user interrupts")):
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="REPORT",
            help=f"report that says how much evidence there is that {help_text}",
        )
    args = parser.parse_args()
    model = load_draft(args.trained)
    if args.turn_ends:
        model.config = replace(model.config, turn_ends=trust_of(args.turn_ends, "turn_ends"))
    if args.stops:
        model.config = replace(model.config, stops=trust_of(args.stops, "stops"))
    write_packed(model, args.out)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    written = {args.out: ("draft", f"duplex draft model, US English, int8; {millions:.1f} M parameters")}
    if args.verifier:
        folder = args.out.parent / "verifier"
        millions = sum(parameter.numel() for parameter in load_verifier(args.verifier).parameters()) / 1e6
        folder.mkdir(exist_ok=True)
        for name in () if folder.samefile(args.verifier) else ("config.json", WEIGHTS):
            shutil.copyfile(args.verifier / name, folder / name)
        written[folder] = ("verifier", f"verifier of the draft model's first words; {millions:.2f} M parameters")
    for folder, (kind, summary) in written.items():
        if args.ship:
            add_to_manifest(folder.name, describe(folder.name, folder, kind=kind, summary=summary), folder.parent)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        for name, size in {**sizes, "in all": sum(sizes.values())}.items():
            print(f"{size / 1e6:8.3f} MB  {folder.name}: {name}")


if __name__ == "__main__":
    main()
