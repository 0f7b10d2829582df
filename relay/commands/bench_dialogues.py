"""`relay bench sessions --callers`: whole dialogues, more and more of them, and a full server's refusals."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
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
from relay.errors import UsageError


@dataclass(frozen=True, slots=True)
class DialoguesOptions:
    """What `relay bench sessions --callers` was asked.

    Attributes:
        callers: Levels; none: 1, 2, 4 and so on, up to what the server admits.
        seconds: How long callers begin new turns at each level.
        limit_ms: Levels rise until the P95 of the onset passes it.
        silence_ms: Pause that ends a turn, as callers ask for it; None: the server's own.
        knocks: How many callers too many are tried; 0: none.
        processes: Most processes of callers; None: by their number.
        path: How replies are made; None: the server's own way.
        seed: Of what is said.
        json: Where to write the report; `-` is stdout.
        plot: Where to draw it.
        server_environ: Environment of the server process.
        models_dir: Where models of the user's own are.
    """

    callers: tuple[int, ...] = ()
    seconds: float = 60.0
    limit_ms: float = 350.0
    silence_ms: int | None = None
    knocks: int = 100
    processes: int | None = None
    path: Path_ | None = None
    seed: int = 0
    json: Path | None = None
    plot: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)
    models_dir: Path | None = None

    def levels(self) -> Iterator[int]:
        """Numbers of callers, rising."""
        return iter(sorted(set(self.callers))) if self.callers else (2**power for power in itertools.count())


async def bench_dialogues(options: DialoguesOptions) -> int:
    """Measures servers started for it, and prints or writes the report.

    Returns:
        Exit status: 1 when no turn of the first level was answered.

    Raises:
        UsageError: The report cannot be written, or the path that was asked for cannot run here.
        EngineUnavailable: The benchmark package, psutil, the synthesiser or matplotlib is missing.
        ConnectionFailed: The server did not start, or a process of callers ended early.
    """
    flags = await asyncio.to_thread(path_flags, options.path, options.models_dir)
    require("relay_benchmarks", "bench")
    require("psutil", "bench sessions")
    if options.plot is not None:
        require("matplotlib", "--plot")
    check_writable(options.json, options.plot)
    from relay_benchmarks import dialogues
    from relay_benchmarks.latency import machine
    from relay_benchmarks.plots import plot_dialogues

    plan = dialogues.Plan(options.seconds, options.seed, options.silence_ms, options.processes)
    levels: list[dict[str, Any]] = []
    limit: dialogues.Limit | None = None
    limit_passed = False
    ended = "all levels were measured"
    # What is past the limit is to be seen here, not refused.
    async with own_server(options.server_environ, (*flags, "--max-load-percent", "0")) as url:
        seats, path = await dialogues.capacity(url), await path_of(url)
        for callers in options.levels():
            if callers > seats:
                ended = f"the server admits {seats} callers"
                break
            note(f"{callers} callers for {options.seconds:g} s ...")
            levels.append(await dialogues.level(url, callers, plan))
            p95 = levels[-1]["onset_ms"]["p95"]
            if limit is None:
                limit = dialogues.limit_for(levels[0], options.limit_ms)
            limit_passed = p95 is None or p95 > limit.applied_ms or bool(levels[-1]["failures"])
            if limit_passed:
                ended = "the last level is beyond the limit, or lost callers"
                break
    if not levels or limit is None:
        raise UsageError(f"the server admits {seats} callers; ask for fewer with --callers")
    report: dict[str, Any] = {
        "machine": machine(),
        "config": {
            "path": path,
            "seconds": options.seconds,
            "seed": options.seed,
            "silence_ms": options.silence_ms,
            "server_seats": seats,
        },
        "levels": levels,
        "capacity": {**dialogues.conclusion(levels, limit), "ended": ended},
    }
    if options.knocks:
        full = max(1, report["capacity"]["callers_within"])
        note(f"{options.knocks} callers too many, at a server that admits {full} ...")
        async with own_server(options.server_environ, (*flags, "--max-sessions", str(full))) as url:
            report["refusals"] = await dialogues.refusals(url, full, plan, knocks=options.knocks)
        if limit_passed:
            note(f"{options.knocks} callers too many, at a server with seats but without time ...")
            async with own_server(options.server_environ, flags) as url:
                callers = levels[-1]["callers"]
                report["refusals_by_load"] = await dialogues.refusals(url, callers, plan, knocks=options.knocks)
    write_report(report, options.json)
    if options.plot is not None:
        await asyncio.to_thread(plot_dialogues, report, options.plot)
    if not is_stdout(options.json):
        _print(report)
    return int(levels[0]["missed_turns"] == levels[0]["turns"])


def _print(report: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table()
    names = (
        "callers",
        "turns",
        "missed",
        "P50",
        "P95",
        "P99",
        "P99.9",
        "gaps",
        "cores",
        "MB",
        "late",
    )
    for name in names:
        table.add_column(name, justify="right")
    for one in report["levels"]:
        onset, playout = one["onset_ms"], one["playout"]
        table.add_row(
            *(str(one["callers"]), str(one["turns"]), str(one["missed_turns"])),
            *(_ms(onset[name]) for name in ("p50", "p95", "p99", "p99.9")),
            f"{playout['missed']}/{playout['deadlines']}",
            _ms(one["server_cpu_cores"], ".2f"),
            _ms(one["server_rss_mb"]),
            _ms(one["callers_late_ms"]["max"]),
        )
    console.print(table)
    console.print(
        "onset in ms; gaps: playout deadlines missed, of all; late: the most that a caller itself was late, ms"
    )
    worst = report["levels"][-1]
    parts = ", ".join(f"{name} {ms:.0f}" for name, ms in worst["stages_at_ms"].get("p95", {}).items() if ms)
    console.print(f"the P95 of {worst['callers']} callers is made of, ms: {parts or 'nothing that was answered'}")
    capacity = report["capacity"]
    console.print(f"{capacity['callers_within']} callers within the limit: {capacity['basis']} ({capacity['ended']})")
    failed = sum(one["failed_replies"] for one in report["levels"])
    if failed:
        reason = next((why for one in report["levels"] for why in one["why_failed"]), "nothing was said of it")
        console.print(f"{failed} replies failed; why, for example: {reason}")
    failures = [failure for one in report["levels"] for failure in one["failures"]]
    if failures:
        console.print(f"{len(failures)} callers were lost; the first: {failures[0]}")
    for name, full in (("refusals", "all seats taken"), ("refusals_by_load", "no time left")):
        if name not in report:
            continue
        knocks = report[name]
        refused = " / ".join(_ms(knocks["refused_ms"][name]) for name in ("p50", "p99", "max"))
        console.print(
            f"{full}: {knocks['refused']} of {knocks['knocks']} callers too many refused; P50 / P99 / max {refused} ms"
        )
        before, during = (
            " / ".join(_ms(knocks[name]["onset_ms"][key]) for key in ("p50", "p95")) for name in ("before", "while")
        )
        console.print(
            f"onset of the {knocks['callers']} inside, P50 / P95: {before} ms before, {during} ms while others knocked"
        )


def _ms(value: float | None, form: str = ".0f") -> str:
    return "-" if value is None else format(value, form)
