"""`relay bench turns`: who speaks when, by the definitions of Full-Duplex-Bench."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from relay.commands.bench_paths import PathsOptions, percent, prepare, print_left_out, progress_bar, servers
from relay.commands.report import is_stdout, write_report


async def bench_turns(options: PathsOptions) -> int:
    """Measures, writes the report and prints its summary.

    Returns:
        Exit status: 1 when a path answered no turn.

    Raises:
        UsageError: The weights that a path needs are not here, a file cannot be written, or a server that runs already
            is to be of several kinds.
        EngineUnavailable: The benchmark package, the synthesiser or matplotlib is missing.
        ConnectionFailed: A server cannot be reached or was lost.
    """
    paths, left_out = await prepare(options)
    from relay_benchmarks import turns
    from relay_benchmarks.plots import plot_turns

    planned = await asyncio.to_thread(turns.plan, options.turns, options.seed)
    progress = progress_bar("turns")
    task = progress.add_task("turns", total=options.turns * len(paths), last="")
    with progress:
        async with servers(paths, options.server_environ, options.url) as urls:
            moments = await turns.measure(
                urls,
                planned,
                api_key=options.api_key,
                seed=options.seed,
                on_turn=lambda path: progress.update(task, advance=1, last=path),
            )
    report = turns.report(moments, planned, seed=options.seed, url=options.url, left_out=left_out)
    write_report(report, options.json)
    if options.plot is not None:
        await asyncio.to_thread(plot_turns, report, options.plot)
    if not is_stdout(options.json):
        console = Console(highlight=False)
        _print(console, report["results"])
        print_left_out(console, left_out)
    return int(any(result["turn_ends"]["missed"] == result["turn_ends"]["count"] for result in report["results"]))


def _print(console: Console, results: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_column(str(result["path"]), justify="right", no_wrap=True)
    for name, part, what in (
        ("turn ends taken", "turn_ends", "takeover"),
        ("turn latency, ms, P50 / P95", "turn_ends", "latency_ms"),
        ("pauses taken for the end (over 1 s or 3 words heard)", "pauses", "takeover"),
        ("pauses in which anything was heard", "pauses", "sounded"),
        ("backchannels that stopped the reply", "backchannels", "stopped"),
        ("backchannels that were answered", "backchannels", "answered"),
        ("silent for a backchannel, ms, P50 / P95", "backchannels", "held_ms"),
        ("interruptions that stopped the reply", "interruptions", "stopped"),
        ("stop latency, ms, P50 / P95", "interruptions", "stop_ms"),
        ("then answered after, ms, P50 / P95", "interruptions", "latency_ms"),
    ):
        table.add_row(name, *(_cell(result[part], what) for result in results))
    console.print(table)


def _cell(part: Mapping[str, Any], what: str) -> str:
    value = part[what]
    if "rate" in value:
        return f"{percent(value['rate'])} of {part['count']}"
    return "-" if value["p50"] is None else f"{value['p50']:.0f} / {value['p95']:.0f}"
