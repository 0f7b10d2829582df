"""`relay bench sessions`: what quiet callers cost, and what opening and closing many sessions leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from relay.commands.bench_paths import path_flags, path_of
from relay.commands.console import note
from relay.commands.own_server import own_server
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.config import Path_


@dataclass(frozen=True, slots=True)
class SessionsOptions:
    """What `relay bench sessions` was asked.

    Attributes:
        quiet: Callers connected at once, with room noise and nothing else.
        seconds: How long they are measured.
        churn: Sessions opened and closed.
        path: How replies would be made; None: the server's own way.
        seed: Of the noise.
        json: Where to write the report; `-` is stdout.
        server_environ: Environment of the server process.
        models_dir: Where models of the user's own are.
    """

    quiet: int = 50
    seconds: float = 20.0
    churn: int = 1000
    path: Path_ | None = None
    seed: int = 0
    json: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)
    models_dir: Path | None = None


async def bench_sessions(options: SessionsOptions) -> int:
    """Measures a server started for it, and prints or writes the report.

    Raises:
        UsageError: The report cannot be written, or the path that was asked for cannot run here.
        EngineUnavailable: The benchmark package or psutil is missing.
        ConnectionFailed: The server did not start, or was lost.
    """
    flags = await asyncio.to_thread(path_flags, options.path, options.models_dir)
    require("relay_benchmarks", "bench")
    require("psutil", "bench sessions")
    check_writable(options.json)
    from relay_benchmarks import sessions

    async with own_server(options.server_environ, flags) as url:
        process = sessions.server_process()
        note(f"{options.quiet} quiet callers for {options.seconds:g} s ...")
        quiet = await sessions.quiet(url, process, sessions=options.quiet, seconds=options.seconds, seed=options.seed)
        note(f"{options.churn} sessions opened and closed ...")
        churn = await sessions.churn(url, process, sessions=options.churn)
        path = await path_of(url)
    report = sessions.report(url, path, {"quiet": quiet, "churn": churn})
    write_report(report, options.json)
    if is_stdout(options.json):
        return 0
    console = Console(highlight=False)
    console.print(
        f"{quiet['sessions']} quiet sessions: {quiet['rss_mb']} MB in all, {quiet['rss_mb_per_session']} MB each, "
        f"{quiet['cpu_cores'] * 100:.0f} % of one core"
    )
    console.print(
        f"{churn['sessions']} sessions opened and closed: {churn['rss_mb_before']} -> {churn['rss_mb_after']} MB, "
        f"{churn['tasks_before']} -> {churn['tasks_after']} tasks"
    )
    return 0
