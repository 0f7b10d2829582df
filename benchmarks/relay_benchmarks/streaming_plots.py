"""Pictures of the streaming benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, THEIRS, FLOOR = "#4477aa", "#ee6677", "#777777"


def plot_streaming(report: dict[str, Any], path: Path) -> None:
    """Draws a report as a PNG: times of a step, or growth, or stages. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    draw = _encoder if "results" in report else _growth if "growth" in report else _stages
    figure = plt.figure(figsize=(12, 4.8), layout="constrained")
    draw(figure, report)
    machine = report["machine"]
    where = machine.get("gpu") or f"{machine['cores']} cores, {machine['threads']} threads"
    figure.suptitle(f"relay bench streaming: {where}", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _encoder(figure: Any, report: dict[str, Any]) -> None:
    times, throughput = figure.subplots(1, 2)
    chunk = report["chunk_ms"]
    sides = [("Relay", report["results"], OURS)]
    if report.get("peer", {}).get("results"):
        sides.append(("transformers", report["peer"]["results"], THEIRS))
    for name, results, colour in sides:
        streams = [r["streams"] for r in results]
        times.plot(streams, [r["p50_ms"] for r in results], "o-", color=colour, label=f"{name}, P50")
        times.plot(streams, [r["p99_ms"] for r in results], ":", color=colour, label=f"{name}, P99")
        in_time = [n * chunk / r["p50_ms"] for n, r in zip(streams, results, strict=True)]
        throughput.plot(streams, in_time, "o-", color=colour, label=name)
    streams = [r["streams"] for r in report["results"]]
    times.plot(streams, [r["floor_ms"] for r in report["results"]], "--", color=FLOOR, label="floor of this device")
    times.axhline(chunk / 2, color="black", linewidth=0.8)
    times.text(streams[0], chunk / 2, " half a chunk", va="bottom", fontsize=8)
    times.set_ylabel(f"ms a chunk of {chunk} ms")
    throughput.set_ylabel("streams in real time (batch x chunk / P50)")
    for axes in (times, throughput):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("streams in a step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)


def _growth(figure: Any, report: dict[str, Any]) -> None:
    growth = report["growth"]
    times, memory = figure.subplots(1, 2)
    minutes = [point["minute"] for point in growth["points"]]
    times.plot(minutes, [point["ms"] for point in growth["points"]], color=OURS)
    times.set_ylabel("ms a chunk, median of the minute")
    memory.plot(minutes, [point["memory_mb"] for point in growth["points"]], color=OURS)
    memory.set_ylabel("memory, MB")
    for axes in (times, memory):
        axes.set_xlabel("minutes of the call")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)


def _stages(figure: Any, report: dict[str, Any]) -> None:
    axes = figure.subplots()
    stages = report["stages"]
    axes.bar(["one after the other", "at once"], [stages["sequential_ms"], stages["pipelined_ms"]], color=OURS)
    axes.set_ylabel("ms a chunk")
    axes.set_title(f"ratio {stages['ratio']:.2f}")
