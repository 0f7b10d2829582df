"""`relay bench`: the benchmark suite, looked up when it is called."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from relay.commands.console import progress_console
from relay.commands.own_server import own_server
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.engine.fast import folders
from relay.errors import UsageError, WeightsError


@dataclass(frozen=True, slots=True)
class LatencyOptions:
    """What `relay bench latency` was asked.

    Attributes:
        path: How replies are made.
        turns: How many turns to measure.
        seed: Of utterances, pauses and noise.
        url: A running server; None: one is started.
        api_key: Presented to it.
        json: Where to write the report; `-` is stdout.
        plot: Where to draw it.
        server_environ: Environment of the server process.
        models_dir: Where models of the user's own are.
    """

    path: Literal["relay", "cascade", "draft"] = "cascade"
    turns: int = 20
    seed: int = 0
    url: str | None = None
    api_key: str | None = None
    json: Path | None = None
    plot: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)
    models_dir: Path | None = None


async def bench_latency(options: LatencyOptions) -> int:
    """Measures, writes the report and prints its summary.

    Returns:
        Exit status: 1 when no turn was answered.

    Raises:
        UsageError: The weights that the path needs are not here, or a file cannot be written.
        EngineUnavailable: The benchmark package, the synthesiser or matplotlib is missing.
        ConnectionFailed: The server cannot be reached or was lost.
    """
    if options.url is None and options.path != "cascade":
        try:
            await asyncio.to_thread(folders, options.path, options.models_dir)
        except WeightsError as error:
            raise UsageError(str(error)) from error
    require("relay_benchmarks", "bench")
    if options.plot is not None:
        require("matplotlib", "--plot")
    check_writable(options.json, options.plot)
    from relay_benchmarks import latency
    from relay_benchmarks.plots import plot_latency
    from relay_benchmarks.summary import TurnResult

    planned = await asyncio.to_thread(latency.plan, options.turns, options.seed)
    progress = Progress(
        TextColumn("turns"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeElapsedColumn(),
        console=progress_console(),
        transient=True,
    )
    task = progress.add_task("turns", total=options.turns, last="")

    def show(result: TurnResult) -> None:
        last = "missed" if result.onset_ms is None else f"{result.onset_ms:.0f} ms"
        progress.update(task, advance=1, last=last)

    async with contextlib.AsyncExitStack() as stack:
        url = options.url
        if url is None:
            url = await stack.enter_async_context(own_server(options.server_environ, ("--path", options.path)))
        with progress:
            results = await latency.measure(url, planned, api_key=options.api_key, seed=options.seed, on_turn=show)
    report = latency.report(options.path, results, turns=options.turns, seed=options.seed, url=options.url)
    write_report(report, options.json)
    if options.plot is not None:
        await asyncio.to_thread(plot_latency, report, options.plot)
    if not is_stdout(options.json):
        _print(report)
    return int(all(result.onset_ms is None for result in results))


def _print(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for result in report["results"]:
        onset, stop = result["onset_ms"], result["stop_ms"]
        console.print(f"path {result['path']}, {result['turns']} turns, {result['missed_turns']} missed")
        table = Table()
        for name in ("", "P50", "P90", "P95", "P99", "max", "mean"):
            table.add_column(name, justify="left" if not name else "right")
        for name, row in (("onset, ms", onset), ("stop, ms", stop)):
            cells = (row[key] for key in ("p50", "p90", "p95", "p99", "max", "mean"))
            table.add_row(name, *("-" if cell is None else f"{cell:.0f}" for cell in cells))
        console.print(table)
        if result["stages_ms"]:
            parts = ", ".join(f"{name} {ms:.0f}" for name, ms in result["stages_ms"].items() if ms)
            share = result["unaccounted_share"] * 100
            console.print(f"mean stages, ms: {parts}; unaccounted {result['unaccounted_ms']:.0f}, {share:.1f} % a turn")
        rate = result["takeover_rate_pauses"]
        took = "no pauses" if rate is None else f"{rate * 100:.0f} % of {result['pauses']} pauses taken over"
        console.print(f"{took}, {result['cut_ins']} cut-ins, {result['underruns']} underruns")
    if any(result["failed_replies"] for result in report["results"]):
        console.print("some replies failed and were apologies; see turn_list in the JSON")
