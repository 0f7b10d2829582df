"""Pictures of the benchmarks of latency, turn-taking and whole dialogues."""

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


_LINES = ("-", "--", "-.", ":")
PATH_COLOURS = {"relay": "#ee6677", "cascade": "#4477aa", "draft": "#228833"}


def plot_latency(report: dict[str, Any], path: Path) -> None:
    """Draws the report of `relay bench latency` as a PNG.

    What each percentile is made of, and the distribution; and, where brains of several delays were measured, the onset
    against that delay.

    Args:
        report: The report, as it is written to JSON.
        path: File to write.

    Raises:
        EngineUnavailable: matplotlib is not installed.
    """
    plt = pyplot()
    results = report["results"]
    delays_ms = {result["brain_delay_ms"] for result in results}
    rows = _rows(results, few=len(results) > 2)
    size = (18 if len(delays_ms) > 1 else 12, max(4.8, 1.2 + 0.26 * len(rows)))
    figure, axes = plt.subplots(1, 3 if len(delays_ms) > 1 else 2, figsize=size, layout="constrained")
    _draw_stages(figure, axes[0], rows)
    _draw_distributions(axes[1], results)
    if len(delays_ms) > 1:
        _draw_delays(axes[2], results)
    _finish(plt, figure, report, "latency", path)


def _label(result: dict[str, Any]) -> str:
    return f"{result['path']} +{result['brain_delay_ms']} ms" if result["brain_delay_ms"] else str(result["path"])


def _rows(results: list[dict[str, Any]], *, few: bool) -> list[tuple[str, dict[str, float]]]:
    return [
        (f"{_label(result)} {name}", stages)
        for result in results
        for name, stages in result["stages_at_ms"].items()
        if stages and (not few or name in ("p50", "p95"))
    ]


def _draw_stages(figure: Any, bars: Any, rows: list[tuple[str, dict[str, float]]]) -> None:
    shown: set[str] = set()
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


def _draw_distributions(cdf: Any, results: list[dict[str, Any]]) -> None:
    delays_ms = list(dict.fromkeys(result["brain_delay_ms"] for result in results))
    for result in results:
        onsets = [t["onset_ms"] for t in result["turn_list"] if t["onset_ms"] is not None]
        style = _LINES[delays_ms.index(result["brain_delay_ms"]) % len(_LINES)]
        label = f"{_label(result)}, {result['turns']} turns"
        _step(cdf, onsets, result["turns"], label, color=PATH_COLOURS[result["path"]], linestyle=style)
    cdf.set_xlabel("onset, ms: last word to first sound")
    cdf.set_ylabel("share of turns")
    cdf.set_title("Distribution of the onset")
    _frame(cdf)


def _draw_delays(axes: Any, results: list[dict[str, Any]]) -> None:
    for name in dict.fromkeys(result["path"] for result in results):
        own = sorted((r for r in results if r["path"] == name), key=lambda result: result["brain_delay_ms"])
        for percentile, style in (("p50", "o-"), ("p95", "s--")):
            x, y = [r["brain_delay_ms"] for r in own], [r["onset_ms"][percentile] for r in own]
            axes.plot(x, y, style, color=PATH_COLOURS[name], label=f"{name} {percentile.upper()}")
    axes.set_xlabel("added to the language model's first word, ms")
    axes.set_ylabel("onset, ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.set_title("A slower language model")
    axes.legend(fontsize=8)


def plot_turns(report: dict[str, Any], path: Path) -> None:
    """Draws the report of `relay bench turns` as a PNG: pauses by length, the four rates, and both delays.

    Args:
        report: The report, as it is written to JSON.
        path: File to write.

    Raises:
        EngineUnavailable: matplotlib is not installed.
    """
    plt = pyplot()
    results = report["results"]
    figure, (pauses, rates, cdf) = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    width = 0.8 / len(results)
    for place, result in enumerate(results):
        name, shift = result["path"], (place - (len(results) - 1) / 2) * width
        colour, bins = PATH_COLOURS[name], result["pauses"]["by_length"]
        for what, alpha in (("sounded", 0.35), ("takeover", 1.0)):
            heights = [100 * (each[what]["rate"] or 0.0) for each in bins]
            where = [each + shift for each in range(len(bins))]
            pauses.bar(where, heights, width, color=colour, alpha=alpha, label=f"{name}: {what}")
        for at, (part, what) in enumerate(_RATES.values()):
            share, count = result[part][what], result[part]["count"]
            if share["rate"] is not None:
                rates.bar(at + shift, 100 * share["rate"], width, color=colour, label=name if at == 0 else "")
                rates.text(at + shift, 100 * share["rate"], f"n {count}", ha="center", va="bottom", fontsize=7)
        ends = [m for m in result["moments"] if m["kind"] == "turn_end"]
        latencies = [m["latency_ms"] for m in ends if m["latency_ms"] is not None]
        _step(cdf, latencies, len(ends), f"{name}: turn latency", color=colour)
        overlaps = [m["overlap_ms"] for m in result["moments"] if m["kind"] == "interruption"]
        _step(cdf, overlaps, len(overlaps), f"{name}: stop latency", color=colour, linestyle="--")
    labels = [f"{each['from_ms']}-{each['to_ms']}\nn {each['count']}" for each in results[0]["pauses"]["by_length"]]
    pauses.set_xticks(range(len(labels)), labels, fontsize=8)
    pauses.set_xlabel("length of the pause, ms")
    pauses.set_ylabel("% of the pauses")
    pauses.set_ylim(0, 130)  # room for the legend
    pauses.set_title("Replies that began in a pause")
    pauses.legend(fontsize=8)
    rates.set_xticks(range(len(_RATES)), list(_RATES), fontsize=8)
    rates.set_ylim(0, 130)
    rates.set_ylabel("%")
    rates.set_title("Who gets the floor")
    if rates.get_legend_handles_labels()[0]:
        rates.legend(fontsize=8)
    cdf.set_xlabel("ms")
    cdf.set_ylabel("share")
    cdf.set_title("Turn latency and stop latency")
    _frame(cdf)
    _finish(plt, figure, report, "turns", path)


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
    _finish(plt, figure, report, "sessions --callers", path)


def _value(number: float | None) -> float:
    return float("nan") if number is None else number


_RATES = {
    "turn end:\ntaken": ("turn_ends", "takeover"),
    "pause:\ntaken": ("pauses", "takeover"),
    "backchannel:\nreply stopped": ("backchannels", "stopped"),
    "interruption:\nreply stopped": ("interruptions", "stopped"),
}


def _step(axes: Any, values_ms: list[float], count: int, label: str, **style: Any) -> None:
    """An empirical distribution; of `count` values those that are missing keep it below 1."""
    if not values_ms:
        return
    ordered = sorted(values_ms)
    axes.step(ordered, [(i + 1) / count for i in range(len(ordered))], where="post", label=label, **style)
    axes.set_xlim(0, max(axes.get_xlim()[1], ordered[-1] * 1.1))


def _frame(axes: Any) -> None:
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize=8)


def _finish(plt: Any, figure: Any, report: dict[str, Any], suite: str, path: Path) -> None:
    machine = report["machine"]
    figure.suptitle(f"relay bench {suite}: {machine['cpu']}, {machine['cores']} cores", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)
