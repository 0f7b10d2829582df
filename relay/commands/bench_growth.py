"""`relay bench sessions --growth-minutes`: one long call, and whether anything grows in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from relay.commands.bench_paths import path_flags, path_of
from relay.commands.console import note
from relay.commands.own_server import own_server
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.config import Path_


@dataclass(frozen=True, slots=True)
class GrowthOptions:
    """What `relay bench sessions --growth-minutes` was asked.

    Attributes:
        minutes: How long the call is measured, after a warm-up.
        silence_ms: Pause that ends a turn, as the caller asks for it; None: the server's own.
        path: How replies are made; None: the server's own way.
        seed: Of what is said.
        json: Where to write the report; `-` is stdout.
        server_environ: Environment of the server process.
        models_dir: Where models of the user's own are.
    """

    minutes: float
    silence_ms: int | None = None
    path: Path_ | None = None
    seed: int = 0
    json: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)
    models_dir: Path | None = None


async def bench_growth(options: GrowthOptions) -> int:
    """Measures a server started for it, and prints or writes the report.

    Returns:
        Exit status: 1 when no turn was answered.

    Raises:
        UsageError: The report cannot be written, or the path that was asked for cannot run here.
        EngineUnavailable: The benchmark package or psutil is missing.
        ConnectionFailed: The server did not start, or was lost.
    """
    flags = await asyncio.to_thread(path_flags, options.path, options.models_dir)
    require("relay_benchmarks", "bench")
    require("psutil", "bench sessions")
    check_writable(options.json)
    from relay_benchmarks import dialogue_growth
    from relay_benchmarks.latency import machine
    from relay_benchmarks.sessions import server_process

    pace = dialogue_growth.Pace.over(options.minutes)
    note(f"one call of {options.minutes:g} minutes, after {pace.warm_up_s:.0f} s that do not count ...")
    async with own_server(options.server_environ, flags) as url:
        path = await path_of(url)
        grown = await dialogue_growth.growth(
            url, server_process(), pace, seed=options.seed, silence_ms=options.silence_ms, note=note
        )
    config = {"path": path, "seed": options.seed, "silence_ms": options.silence_ms}
    write_report({"machine": machine(), "config": config, "growth": grown}, options.json)
    if not is_stdout(options.json):
        _print(grown)
    return int(grown["missed_turns"] == grown["turns"])


def _print(grown: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table()
    for name in ("", "mean", "an hour later", "95 % confidence", "of the mean", "grows or shrinks"):
        table.add_column(name, justify="left" if not name else "right")
    for name, one in grown["trends"].items():
        unit = "ms" if "ms_per_hour" in one else "mb"
        sure = one["confidence_95"]
        table.add_row(
            name,
            f"{one['mean']:.2f} {unit.replace('mb', 'MB')}",
            f"{one[f'{unit}_per_hour']:+.2f}",
            "-" if sure is None else f"{sure[0]:+.2f} to {sure[1]:+.2f}",
            f"{one['of_the_mean']:+.1%}",
            "yes" if one["distinguishable_from_0"] else "no",
        )
    console.print(table)
    onset = " / ".join("-" if ms is None else f"{ms:.0f}" for ms in (grown["onset_ms"][key] for key in ("p50", "p95")))
    console.print(
        f"{grown['turns']} turns in {grown['minutes']:.1f} minutes, {grown['missed_turns']} missed; onset P50 / P95 "
        f"{onset} ms; the caller itself was late by {grown['caller_late_ms']:.0f} ms at most"
    )
