"""`relay bench streaming`: how many streams of a full-size encoder one device carries in time."""

from __future__ import annotations

from pathlib import Path

from relay.commands.console import note
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.errors import UsageError
from relay_benchmarks.streaming_options import StreamingOptions


def bench_streaming(options: StreamingOptions, json: Path | None, plot: Path | None) -> int:
    """Measures, prints or writes the report.

    Raises:
        UsageError: A report cannot be written, there is no such device, or no encoder has the shape.
        EngineUnavailable: torch, psutil or matplotlib is missing.
    """
    require("torch", "bench streaming")
    require("psutil", "bench streaming")
    if plot is not None:
        require("matplotlib", "--plot")
    check_writable(json, plot)
    from relay_benchmarks import streaming
    from relay_benchmarks.streaming_plots import plot_streaming

    def save(report: object) -> None:
        if not is_stdout(json):
            write_report(report, json)

    try:
        report = streaming.run(options, note, save)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if plot is not None:
        plot_streaming(report, plot)
    if is_stdout(json):
        write_report(report, json)
    else:
        print("\n".join(streaming.table(report)))
    return 0
