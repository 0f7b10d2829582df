"""`relay models`: engines and weights on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relay.commands.console import print_json
from relay.engine import catalog
from relay.errors import WeightsError
from relay_models import loading


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of one shipped model.

    Attributes:
        name: The model.
        kind: What it is for.
        summary: One line about it.
        licence: SPDX expression.
        size_bytes: Of all its files.
        problem: Why it cannot be used; None when every file is what the manifest says.
    """

    name: str
    kind: str
    summary: str
    licence: str
    size_bytes: int
    problem: str | None


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


def list_models(*, json: bool) -> int:
    """Prints engines and weights. Returns the exit status."""
    weights = shipped()
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


def verify(*, json: bool) -> int:
    """Checks every shipped file against its checksum.

    Returns:
        Exit status: 1 when a file is missing or differs.
    """
    weights = shipped()
    if json:
        print_json({"weights": weights})
    else:
        for model in weights:
            print(f"{model.name}: {model.problem or 'verified'}")
    return int(any(model.problem is not None for model in weights))


def _problem(name: str) -> str | None:
    try:
        loading.locate(name)
    except loading.WeightsError as error:
        return str(error)
    return None
