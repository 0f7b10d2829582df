"""`relay models`: engines and weights on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relay.commands.console import print_json
from relay.engine import catalog
from relay.engine.store import ModelStore, Stored
from relay.errors import WeightsError
from relay_models import loading


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of one model.

    Attributes:
        name: The model.
        kind: What it is for.
        summary: One line about it.
        licence: SPDX expression.
        size_bytes: Of all its files.
        problem: Why it cannot be used; None when every file is what the manifest says.
        path: Its folder, of a model of the user's own; None of one that ships.
    """

    name: str
    kind: str
    summary: str
    licence: str
    size_bytes: int
    problem: str | None
    path: str | None = None


def shipped() -> list[Weights]:
    """All shipped weights, every file checked. Raises WeightsError when the list of them is missing or damaged."""
    try:
        models = loading.read_manifest()
    except loading.WeightsError as error:
        raise WeightsError(str(error)) from error
    return [
        Weights(model.name, model.kind, model.summary, model.licence, model.size_bytes, _problem(model.name))
        for model in models.values()
    ]


def own(models_dir: Path) -> list[Weights]:
    """All models of the user's own, every file checked. Raises WeightsError when the list of them is damaged."""
    store = ModelStore(models_dir)
    return [_checked(store, model) for model in store.models()]


def list_models(models_dir: Path, *, json: bool) -> int:
    """Prints engines and weights. Returns the exit status."""
    weights = [*shipped(), *own(models_dir)]
    if json:
        engines = [
            {
                "kind": engine.kind,
                "name": engine.name,
                "aliases": engine.aliases,
                "summary": engine.summary,
                "available": engine.missing is None,
                "todo": engine.missing,
            }
            for engine in catalog.listing()
        ]
        print_json({"engines": engines, "weights": weights})
        return 0
    console = Console(highlight=False)
    table = Table("kind", "name", "what it is", "here", box=None, pad_edge=False)
    for engine in catalog.listing():
        names = " ".join([engine.name, *(f"({alias})" for alias in engine.aliases)])
        table.add_row(engine.kind, names, engine.summary, escape(engine.missing or "ready"))
    for model in weights:
        summary = f"{model.summary} ({model.licence}), {model.size_bytes / 1e6:.1f} MB"
        table.add_row(model.kind, model.name, summary, "ready" if model.problem is None else "damaged")
    console.print(table)
    return 0


def verify(models_dir: Path, *, json: bool) -> int:
    """Checks every file, shipped or the user's own, against its checksum.

    Returns:
        Exit status: 1 when a file is missing or differs.
    """
    weights = [*shipped(), *own(models_dir)]
    if json:
        print_json({"weights": weights})
    else:
        for model in weights:
            print(f"{model.name}: {model.problem or 'verified'}")
    return int(any(model.problem is not None for model in weights))


def pull(models_dir: Path, model: str, *, as_name: str | None, json: bool) -> int:
    """Downloads a published checkpoint; see `ModelStore.pull`. Returns the exit status."""
    return _show_new(ModelStore(models_dir).pull(model, as_name=as_name), json=json)


def import_folder(models_dir: Path, folder: Path, *, as_name: str | None, json: bool) -> int:
    """Copies a folder with a checkpoint to the other models; see `ModelStore.add`. Returns the exit status."""
    return _show_new(ModelStore(models_dir).add(folder, as_name), json=json)


def _show_new(model: Stored, *, json: bool) -> int:
    if json:
        print_json({"weights": [_weights(model, None)]})
    else:
        print(f"{model.name}: {model.size_bytes / 1e6:.1f} MB in {model.path}; use it as `--engine {model.name}`")
    return 0


def _checked(store: ModelStore, model: Stored) -> Weights:
    try:
        store.locate(model)
    except WeightsError as error:
        return _weights(model, str(error))
    return _weights(model, None)


def _weights(model: Stored, problem: str | None) -> Weights:
    return Weights(model.name, model.kind, model.summary, model.licence, model.size_bytes, problem, str(model.path))


def _problem(name: str) -> str | None:
    try:
        loading.locate(name)
    except loading.WeightsError as error:
        return str(error)
    return None
