"""`relay bench sessions`: what quiet callers cost, and what opening and closing many sessions leaves behind."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console

from relay.commands.console import note
from relay.commands.own_server import own_server
from relay.errors import EngineUnavailable, UsageError


@dataclass(frozen=True, slots=True)
class SessionsOptions:
    """What `relay bench sessions` was asked.

    Attributes:
        quiet: Callers connected at once, with room noise and nothing else.
        seconds: How long they are measured.
        churn: Sessions opened and closed.
        seed: Of the noise.
        json: Where to write the report; `-` is stdout.
        server_environ: Environment of the server process.
    """

    quiet: int = 50
    seconds: float = 20.0
    churn: int = 1000
    seed: int = 0
    json: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)


async def bench_sessions(options: SessionsOptions) -> int:
    """Measures a server started for it, and prints or writes the report.

    Raises:
        UsageError: The report cannot be written.
        EngineUnavailable: The benchmark package or psutil is missing.
        ConnectionFailed: The server did not start, or was lost.
    """
    for package in ("relay_benchmarks", "psutil"):
        if importlib.util.find_spec(package) is None:
            raise EngineUnavailable(f"bench sessions needs {package}: pip install 'relay-dialogue[bench]'")
    to_stdout = options.json is not None and str(options.json) == "-"
    if options.json is not None and not to_stdout and not options.json.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {options.json.absolute().parent}; make it first")
    from relay_benchmarks import sessions

    async with own_server(options.server_environ) as url:
        process = sessions.server_process()
        note(f"{options.quiet} quiet callers for {options.seconds:g} s ...")
        quiet = await sessions.quiet(url, process, sessions=options.quiet, seconds=options.seconds, seed=options.seed)
        note(f"{options.churn} sessions opened and closed ...")
        churn = await sessions.churn(url, process, sessions=options.churn)
    report = sessions.report(url, {"quiet": quiet, "churn": churn})
    text = msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"
    if to_stdout:
        sys.stdout.write(text)
        return 0
    if options.json is not None:
        options.json.write_text(text, encoding="utf-8")
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
