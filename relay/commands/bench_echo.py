"""`relay bench echo`: how often the server takes the echo of its own voice for the user's, with and without control."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from relay.client.echo import Mode, echo_control
from relay.commands.console import note, progress_console
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.errors import EngineUnavailable

CONTROLS: tuple[Mode, ...] = ("off", "guard", "cancel")


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """What `relay bench echo` was asked.

    Attributes:
        controls: Which echo controls; empty: all that can run here.
        echo_db: Levels of the echo, relative to the reply played.
        replies: Replies played in each condition.
        seed: Of rooms, times and noise.
        json: Where to write the report; `-` is stdout.
    """

    controls: tuple[Mode, ...] = ()
    echo_db: tuple[float, ...] = (-20.0, -30.0)
    replies: int = 200
    seed: int = 0
    json: Path | None = None


def bench_echo(options: EchoOptions) -> int:
    """Plays replies into simulated rooms, and prints or writes how many were interrupted by their own echo.

    Every control hears the same rooms three times: with nobody speaking, with another voice as loud as the echo, and
    with one as loud as the reply itself. The same voices without any echo show what the detector can hear at all.

    Raises:
        UsageError: The report cannot be written.
        EngineUnavailable: The benchmark package, eSpeak NG, or an echo control that was asked for is missing.
    """
    require("relay_benchmarks", "bench")
    check_writable(options.json)
    from relay_benchmarks import echo
    from relay_benchmarks.latency import machine

    controls = options.controls or _available()
    for control in controls:
        echo_control(control)  # before minutes of work
    replies, users = echo.voices()
    jobs: list[tuple[Mode, float, float | None, bool]] = []
    for level_db in options.echo_db:
        jobs += [("off", level_db, user_db, False) for user_db in (0.0, -level_db)]
        jobs += [(control, level_db, user_db, True) for control in controls for user_db in (None, 0.0, -level_db)]
    results: list[dict[str, Any]] = []
    for control, echo_db, user_db, is_heard in track(
        jobs, "echo", console=progress_console(), transient=True, disable=progress_console().quiet
    ):
        rooms = echo.scenes(
            replies,
            users,
            count=options.replies,
            echo_db=echo_db,
            user_db=user_db,
            echo_is_heard=is_heard,
            seed=options.seed,
        )
        barges = list(echo.barge_ins(rooms, lambda control=control: echo_control(control), options.seed))  # type: ignore[misc]
        condition = {"control": control if is_heard else "no echo", "echo_db": echo_db, "user_db": user_db}
        results.append(condition | echo.summarise(barges))
    config = {"replies": options.replies, "seed": options.seed, "rooms": -(-options.replies // echo.REPLIES_A_ROOM)}
    write_report({"machine": machine(), "config": config, "results": results}, options.json)
    if not is_stdout(options.json):
        _print(results)
    return 0


def _available() -> tuple[Mode, ...]:
    try:
        echo_control("cancel")
    except EngineUnavailable as error:
        note(f"without the canceller: {error}")
        return CONTROLS[:-1]
    return CONTROLS


def _print(results: list[dict[str, Any]]) -> None:
    title = f"{results[0]['replies']} replies in each condition: interrupted by mistake, and by the user when he spoke"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    for column in ("echo", "control", "user", "false", "detected", "after ms, P50 / P95"):
        table.add_column(column, justify="left" if column in ("control", "user") else "right", no_wrap=True)
    for row in results:
        user_db, delay = row["user_db"], row.get("delay_ms", {})
        table.add_row(
            f"{row['echo_db']:g} dB",
            row["control"],
            "silent" if user_db is None else f"{user_db:+g} dB to echo",
            f"{row['false_rate'] * 100:.1f} %",
            "" if user_db is None else f"{row['detected_rate'] * 100:.1f} %",
            f"{delay['p50']:.0f} / {delay['p95']:.0f}" if delay.get("p50") is not None else "",
        )
    Console(highlight=False).print(table)
