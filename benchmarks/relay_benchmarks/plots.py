"""Pictures of the benchmarks of latency (percentiles and their stages, the distribution) and of whole dialogues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.client.timing import STAGES
from relay.errors import EngineUnavailable

COLOURS = dict(
    zip(
        STAGES,
        ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#777777"),
        strict=True,
    )
)
"""Paul Tol's bright scheme, which colour-blind readers can tell apart, and greys for what is not the server's."""


def pyplot() -> Any:
    """Matplotlib's plotting module, for files only. Raises EngineUnavailable when it is not installed."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise EngineUnavailable("--plot needs matplotlib: pip install 'relay-dialogue[bench]'") from error
    return plt


def plot_latency(report: dict[str, Any], path: Path) -> None:
    """Draws the report of `relay bench latency` as a PNG.

    Args:
        report: The report, as it is written to JSON.
        path: File to write.

    Raises:
        EngineUnavailable: matplotlib is not installed.
    """
    plt = pyplot()
    results = report["results"]
    figure, (bars, cdf) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    shown: set[str] = set()
    rows = [(f"{r['path']} {name}", stages) for r in results for name, stages in r["stages_at_ms"].items() if stages]
    for place, (_, stages) in enumerate(rows):
        left = 0.0
        for name in STAGES:
            width = max(0.0, stages[name])
            if width:
                label = "" if name in shown else name
                bars.barh(place, width, left=left, color=COLOURS[name], label=label)
                shown.add(name)
            left += width
        bars.text(left, place, f" {left:.0f}", va="center", fontsize=8)
    bars.set_yticks(range(len(rows)), [label for label, _ in rows])
    bars.invert_yaxis()
    bars.set_xlabel("ms from the last word; mean of the turns around each percentile")
    bars.set_title("Where the time goes")
    bars.margins(x=0.12)
    if shown:
        figure.legend(loc="outside lower left", fontsize=8, ncols=len(STAGES))
    for result in results:
        onsets = sorted(t["onset_ms"] for t in result["turn_list"] if t["onset_ms"] is not None)
        if onsets:
            share = [(i + 1) / result["turns"] for i in range(len(onsets))]  # missed turns keep it below 1
            cdf.step(onsets, share, where="post", label=f"{result['path']}, {result['turns']} turns")
            cdf.set_xlim(0, max(cdf.get_xlim()[1], onsets[-1] * 1.1))
    cdf.set_xlabel("onset, ms: last word to first sound")
    cdf.set_ylabel("share of turns")
    cdf.set_ylim(0, 1.02)
    cdf.grid(alpha=0.3)
    cdf.set_title("Distribution of the onset")
    if cdf.has_data():
        cdf.legend(fontsize=8, loc="upper left")
    machine = report["machine"]
    figure.suptitle(f"relay bench latency: {machine['cpu']}, {machine['cores']} cores", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_dialogues(report: dict[str, Any], path: Path) -> None:
    """Draws the report of `relay bench sessions --callers` as a PNG. Arguments and errors as for `plot_latency`."""
    plt = pyplot()
    levels, capacity = report["levels"], report["capacity"]
    figure, (onset, playout) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    callers = [level["callers"] for level in levels]
    names = {"p50": "P50", "p95": "P95", "p99": "P99", "p99.9": "P99.9"}
    colours = ("#4477aa", "#ee6677", "#ccbb44", "#aa3377")
    for (key, name), colour in zip(names.items(), colours, strict=True):
        onset.plot(callers, [_value(level["onset_ms"][key]) for level in levels], "o-", color=colour, label=name)
        late = [_value(level["playout"]["late_ms"][key]) for level in levels]
        playout.plot(callers, late, "o-", color=colour, label=name)
    onset.axhline(capacity["applied_limit_ms"], color="black", linewidth=0.8)
    onset.text(callers[0], capacity["applied_limit_ms"], " limit of the P95", va="top", fontsize=8)
    onset.set_ylabel("onset, ms: last word to first sound")
    playout.set_ylabel("playout: ms that a block of 20 ms was late")
    onset.set_title(f"{capacity['callers_within']} callers within the limit")
    missed, deadlines = (sum(level["playout"][key] for level in levels) for key in ("missed", "deadlines"))
    playout.set_title(f"{missed} of {deadlines} playout deadlines missed, all levels")
    for axes in (onset, playout):
        axes.set_xscale("log", base=2)
        axes.set_xticks(callers, [str(count) for count in callers])
        axes.set_xlabel("callers at once")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    playout.set_ylim(top=max(playout.get_ylim()[1], 20))
    machine = report["machine"]
    figure.suptitle(f"relay bench sessions --callers: {machine['cpu']}, {machine['cores']} cores", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _value(number: float | None) -> float:
    return float("nan") if number is None else number
