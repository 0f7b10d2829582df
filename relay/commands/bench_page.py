"""`relay bench page`: from an interruption to the last sample played, in a real browser."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

from relay.commands.console import note
from relay.commands.own_server import own_server
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.errors import RelayError


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What `relay bench page` was asked.

    Attributes:
        interruptions: Interruptions to try.
        json: Where to write the report; `-` is stdout.
        server_environ: Environment of the server process.
    """

    interruptions: int = 20
    json: Path | None = None
    server_environ: Mapping[str, str] = field(default_factory=dict)


async def bench_page(options: PageOptions) -> int:
    """Measures the page of a server started for it, and prints or writes the report.

    Raises:
        UsageError: The report cannot be written.
        EngineUnavailable: The benchmark package, Playwright or Chromium is missing.
        ConnectionFailed: The server did not start.
        RelayError: No answer was interrupted.
    """
    require("relay_benchmarks", "bench")
    check_writable(options.json)
    from relay_benchmarks import page
    from relay_benchmarks.latency import machine

    with tempfile.TemporaryDirectory() as folder:
        microphone, recording = Path(folder, "microphone.wav"), Path(folder, "recording.wav")
        with as_file(files("relay") / "assets" / "question.wav") as question:
            loop_s = page.write_microphone(question, microphone)
        note(f"{options.interruptions} interruptions, {loop_s:.1f} s each ...")
        async with own_server(options.server_environ) as url:
            await page.record(url, microphone, (options.interruptions + 2) * loop_s, recording)
        sound, rate_hz = soundfile.read(recording, dtype="float32", always_2d=True)
    stops_ms = page.stop_times_ms(sound, rate_hz)
    if not stops_ms:
        raise RelayError(
            "no answer was interrupted: is the recogniser able to hear the bundled question? try `relay demo`"
        )
    p50, p95 = np.percentile(stops_ms, (50, 95)).round(1).tolist()
    result = {"interruptions": len(stops_ms), "stop_ms": {"p50": p50, "p95": p95, "max": round(max(stops_ms), 1)}}
    write_report({"machine": machine(), "result": result}, options.json)
    if not is_stdout(options.json):
        Console(highlight=False).print(
            f"{len(stops_ms)} answers interrupted on the page: silent after P50 {p50:.0f} ms, P95 {p95:.0f} ms"
        )
    return 0
