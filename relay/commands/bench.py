"""`relay bench latency`: the last word to the first sound, on each path, and with brains that take their time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from relay.commands.bench_paths import PathsOptions, percent, prepare, print_left_out, progress_bar, servers
from relay.commands.report import is_stdout, write_report
from relay.errors import UsageError


@dataclass(frozen=True, slots=True)
class LatencyOptions(PathsOptions):
    """What `relay bench latency` was asked.

    Attributes:
        brain_delays_ms: How much later the brain begins to answer; all paths are measured with each.
    """

    brain_delays_ms: tuple[int, ...] = (0,)


async def bench_latency(options: LatencyOptions) -> int:
    """Measures, writes the report and prints its summary.

    Returns:
        Exit status: 1 when a path answered no turn.

    Raises:
        UsageError: The weights that a path needs are not here, a file cannot be written, or a server that runs already
            is to be of several kinds.
        EngineUnavailable: The benchmark package, the synthesiser or matplotlib is missing.
        ConnectionFailed: A server cannot be reached or was lost.
    """
    if options.url is not None and any(options.brain_delays_ms):
        raise UsageError(
            "the brain of a server that runs already is not ours to delay: leave --url or --brain-delay-ms"
        )
    paths, left_out = await prepare(options)
    from relay_benchmarks import latency
    from relay_benchmarks.plots import plot_latency
    from relay_benchmarks.summary import TurnResult

    planned = await asyncio.to_thread(latency.plan, options.turns, options.seed)
    progress = progress_bar("turns")
    conditions = len(paths) * len(options.brain_delays_ms)
    task = progress.add_task("turns", total=options.turns * conditions, last="")

    def show(path: str, result: TurnResult) -> None:
        took = "missed" if result.onset_ms is None else f"{result.onset_ms:.0f} ms"
        progress.update(task, advance=1, last=f"{path} {took}")

    measured: list[tuple[str, int | None, list[TurnResult]]] = []
    with progress:
        for delay_ms in options.brain_delays_ms:
            async with servers(paths, options.server_environ, options.url, brain_delay_ms=delay_ms) as urls:
                found = await latency.measure(urls, planned, api_key=options.api_key, seed=options.seed, on_turn=show)
            known_ms = delay_ms if options.url is None else None
            measured += [(path, known_ms, results) for path, results in found.items()]
    report = latency.report(measured, turns=options.turns, seed=options.seed, url=options.url, left_out=left_out)
    write_report(report, options.json)
    if options.plot is not None:
        await asyncio.to_thread(plot_latency, report, options.plot)
    if not is_stdout(options.json):
        console = Console(highlight=False)
        _print(console, report["results"])
        print_left_out(console, left_out)
    return int(any(all(turn.onset_ms is None for turn in turns) for *_, turns in measured))


def _print(console: Console, results: list[dict[str, Any]]) -> None:
    if len(results) > 1:
        _print_comparison(console, results)
    else:
        _print_one(console, results[0])
    if any(result["failed_replies"] for result in results):
        console.print("some replies failed and were apologies; see turn_list in the JSON")


def _print_comparison(console: Console, results: list[dict[str, Any]]) -> None:
    """A row a path and delay."""
    title = f"onset, ms: last word to first sound, {results[0]['turns']} turns each"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    for name in ("path", "brain +ms", "P50", "P90", "P95", "P99", "missed", "pauses taken", "committed", "stop P95"):
        table.add_column(name, justify="left" if name == "path" else "right", no_wrap=True)
    for result in results:
        onset = [f"{result['onset_ms'][name]:.0f}" for name in ("p50", "p90", "p95", "p99")]
        stop = result["stop_ms"]["p95"]
        table.add_row(
            result["path"],
            str(result["brain_delay_ms"]),
            *onset,
            str(result["missed_turns"]),
            percent(result["takeover_rate_pauses"]),
            percent(result["commit_rate"]),
            "-" if stop is None else f"{stop:.0f}",
        )
    console.print(table)


def _print_one(console: Console, result: dict[str, Any]) -> None:
    """All that is known of one path."""
    delay_ms = result["brain_delay_ms"]
    slowed = f", brain delayed by {delay_ms} ms" if delay_ms else ""
    console.print(f"path {result['path']}, {result['turns']} turns, {result['missed_turns']} missed{slowed}")
    table = Table()
    for name in ("", "P50", "P90", "P95", "P99", "max", "mean"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in (("onset, ms", result["onset_ms"]), ("stop, ms", result["stop_ms"])):
        cells = (row[key] for key in ("p50", "p90", "p95", "p99", "max", "mean"))
        table.add_row(name, *("-" if cell is None else f"{cell:.0f}" for cell in cells))
    console.print(table)
    if result["stages_ms"]:
        parts = ", ".join(f"{name} {ms:.0f}" for name, ms in result["stages_ms"].items() if ms)
        share = result["unaccounted_share"] * 100
        console.print(f"mean stages, ms: {parts}; unaccounted {result['unaccounted_ms']:.0f}, {share:.1f} % a turn")
    if result["drafts"]:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(result["drafts"].items()))
        console.print(f"drafts: {told}; {percent(result['commit_rate'])} of the answers began with one")
    rate = result["takeover_rate_pauses"]
    took = "no pauses" if rate is None else f"{percent(rate)} of {result['pauses']} pauses taken over"
    console.print(f"{took}, {result['cut_ins']} cut-ins, {result['underruns']} underruns")
