"""`relay bench runners`: what steps of the torch runners take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relay.commands.console import note
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.engine import device as devices

if TYPE_CHECKING:
    from relay.config import Device


def bench_runners(
    device: Device, streams: tuple[int, ...], rows: int, batches: tuple[int, ...], steps: int, json: Path | None
) -> int:
    """Measures, prints or writes the report; see `relay_benchmarks.runners.RunnersOptions`.

    Raises:
        UsageError: The report cannot be written.
        EngineUnavailable: torch or the device is missing.
    """
    require("torch", "bench runners")
    check_writable(json)
    resolved = devices.resolve(device)
    from relay_benchmarks import runners

    report = runners.run(runners.RunnersOptions(resolved, streams, rows, batches, steps), note)
    write_report(report, json)
    if not is_stdout(json):
        print("\n".join(runners.table(report)))
    return 0
