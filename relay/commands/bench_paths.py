"""The ways of making replies that a benchmark compares: which of them can run here, and a server for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from relay.client.realtime import connect
from relay.commands.console import note, progress_console
from relay.commands.own_server import own_server
from relay.commands.report import check_writable, require
from relay.config import Path_
from relay.engine import fast
from relay.errors import EngineUnavailable, UsageError, WeightsError
from relay.wire import server_events as got
from relay.wire.types import RelaySettings

ALL: tuple[Path_, ...] = ("cascade", "draft", "relay")


def runnable(asked: Sequence[Path_], models_dir: Path | None) -> tuple[tuple[Path_, ...], dict[str, str]]:
    """The paths to measure: those asked for, else all that can run here; and the others, with the reason.

    Raises:
        UsageError: One that was asked for cannot run, and why.
    """
    found: list[Path_] = []
    left_out: dict[str, str] = {}
    for path in dict.fromkeys(asked or ALL):
        try:
            if path != "cascade":
                fast.check(path, models_dir, "auto")
        except (WeightsError, EngineUnavailable) as error:
            if asked:
                raise UsageError(str(fast.insisted(error))) from error
            left_out[path] = str(error)
        else:
            found.append(path)
    return tuple(found), left_out


def path_flags(asked: Path_ | None, models_dir: Path | None) -> tuple[str, ...]:
    """Flags of a server that is to make replies so; none where it has the choice.

    Raises:
        UsageError: That path cannot run here, and why.
    """
    return () if asked is None else ("--path", *runnable((asked,), models_dir)[0])


async def path_of(url: str, api_key: str | None = None) -> Path_:
    """How a server that runs makes replies by itself, as it tells a session; `cascade` where it knows of no paths.

    Raises:
        ConnectionFailed: It cannot be reached, or was lost.
    """
    async with connect(url, api_key=api_key) as client:
        if client.offers_extras:
            await client.update({"relay": {}})
            async for event in client:
                if isinstance(event, got.SessionUpdated | got.Error):
                    break
        relay = client.session.relay
        return relay.paths[0] if isinstance(relay, RelaySettings) and relay.paths else "cascade"


@dataclass(frozen=True, slots=True)
class PathsOptions:
    """What a benchmark of paths was asked.

    Attributes:
        turns: How many turns each condition gets.
        paths: How replies are made; empty: in every way that can run here.
        seed: Of utterances, pauses and noise.
        url: A running server; None: one is started for each condition.
        api_key: Presented to it.
        json: Where to write the report; `-` is stdout.
        plot: Where to draw it.
        server_environ: Environment of the server processes.
        models_dir: Where models of the user's own are.
    """

    turns: int
    paths: tuple[Path_, ...] = ()
    seed: int = 0
    url: str | None = None
    api_key: str | None = None
    json: Path | None = None
    plot: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)
    models_dir: Path | None = None


async def prepare(options: PathsOptions) -> tuple[tuple[Path_, ...], dict[str, str]]:
    """Finds all faults before minutes of measuring; returns the paths to measure and the others, as `runnable` does.

    A server that runs already is measured as it makes replies by itself, whatever that is, unless it is named.

    Raises:
        UsageError: A path cannot run, several are asked of one server, or a file cannot be written.
        EngineUnavailable: The benchmark package or matplotlib is missing.
        ConnectionFailed: The server that runs already cannot be reached.
    """
    if options.url is not None:
        if len(set(options.paths)) > 1:
            raise UsageError("a server makes replies in one way: give one --path with --url, or no --url")
        paths, left_out = options.paths[:1] or (await path_of(options.url, options.api_key),), dict[str, str]()
    else:
        paths, left_out = await asyncio.to_thread(runnable, options.paths, options.models_dir)
    for path, reason in left_out.items():
        note(f"path {path} is left out: {reason}")
    require("relay_benchmarks", "bench")
    if options.plot is not None:
        require("matplotlib", "--plot")
    check_writable(options.json, options.plot)
    return paths, left_out


def print_left_out(console: Console, left_out: Mapping[str, str]) -> None:
    """Says below a report what is not in it."""
    for path, reason in left_out.items():
        console.print(f"not measured: {path} ({reason})")


@contextlib.asynccontextmanager
async def servers(
    paths: Sequence[Path_], environ: Mapping[str, str], url: str | None, *, brain_delay_ms: int = 0
) -> AsyncIterator[dict[str, str]]:
    """A server for each path, all alike but for that, for as long as the block lasts.

    Args:
        paths: The paths.
        environ: Environment of the servers' processes.
        url: A server that runs already, to be used instead.
        brain_delay_ms: How much later their brains begin to answer.

    Yields:
        Their URLs by path.

    Raises:
        ConnectionFailed: One did not get ready.
    """
    async with contextlib.AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        for path in paths:
            flags = ("--path", path, "--brain-delay-ms", str(brain_delay_ms))
            urls[path] = await stack.enter_async_context(own_server(environ, flags)) if url is None else url
        yield urls


def progress_bar(what: str) -> Progress:
    """Progress in counted pieces, with a word on the last one; on a terminal only."""
    return Progress(
        TextColumn(what),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeElapsedColumn(),
        console=progress_console(),
        transient=True,
    )


def percent(share: float | None) -> str:
    """A share for a table."""
    return "-" if share is None else f"{share * 100:.0f} %"
