"""Pictures of the quality benchmark: errors by look-ahead, how late words are shown, and words made of nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay_benchmarks.plots import pyplot

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright scheme, which colour-blind readers can tell apart."""


def label_of(entry: dict[str, Any]) -> str:
    """The engine, or `engine 80 ms` where it has look-aheads; of a folder its name."""
    name, lookahead_ms = Path(entry["engine"]).name, entry["lookahead_ms"]
    return name if lookahead_ms is None else f"{name} {lookahead_ms} ms"


def plot_quality(report: dict[str, Any], path: Path) -> None:
    """Draws the report of `relay bench quality` as a PNG.

    Args:
        report: The report, as it is written to JSON.
        path: File to write.

    Raises:
        EngineUnavailable: matplotlib is not installed.
    """
    plt = pyplot()
    from matplotlib.patches import Patch

    labels = list(dict.fromkeys(label_of(entry) for entry in (*report["results"], *report["non_speech"])))
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    count = 4 if report["hour"] else 3
    figure, panels = plt.subplots(1, count, figsize=(5 * count, 4.8), layout="constrained")
    errors, delays, made_up = panels[:3]
    sets = list(dict.fromkeys(result["set"] for result in report["results"]))
    wers = {(r["set"], label_of(r)): r["wer"] for r in report["results"] if r["wer"] is not None}
    _grouped(errors, sets, labels, {key: 100 * wer for key, wer in wers.items()}, colour)
    errors.set_ylabel("word error rate, %")
    errors.set_title("Words heard wrong")
    for label in labels:
        late = sorted(
            ms
            for result in report["results"]
            if label_of(result) == label
            for recording in result["recording_list"]
            if recording["timed_by"] in result["word_ends_by"]
            for ms in recording["shown_after_ms"]
        )
        if late:
            delays.step(late, [(i + 1) / len(late) for i in range(len(late))], where="post", color=colour[label])
            delays.set_xlim(-500, max(delays.get_xlim()[1], late[int(0.98 * (len(late) - 1))]))
    delays.set_xlabel("ms of audio from a word's end to its first showing")
    delays.set_ylabel("share of words")
    delays.set_ylim(0, 1.02)
    delays.grid(alpha=0.3)
    delays.set_title("How late words are shown")
    kinds = list(dict.fromkeys(entry["kind"] for entry in report["non_speech"]))
    rates = {(entry["kind"], label_of(entry)): entry["per_minute"] for entry in report["non_speech"]}
    _grouped(made_up, kinds, labels, rates, colour)
    made_up.set_ylabel("words a minute")
    made_up.set_title("Words made of what holds none")
    if report["hour"]:
        _long_runs(panels[3], report["hour"], colour)
    if labels:
        handles = [Patch(color=colour[label]) for label in labels]
        figure.legend(handles, labels, loc="outside lower left", fontsize=8, ncols=len(labels))
    machine = report["machine"]
    figure.suptitle(f"relay bench quality: {machine['cpu']}, {machine['cores']} cores", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _long_runs(axes: Any, runs: list[dict[str, Any]], colour: dict[str, str]) -> None:
    """Time of a chunk over a long run, and the memory of the process, dashed."""
    memory = axes.twinx()
    for run in runs:
        minutes = [run["audio_s"] / 60 * i / run["parts"] for i in range(run["parts"] + 1)]
        axes.stairs(run["chunk_ms"], minutes, baseline=None, color=colour[label_of(run)])
        memory.plot(minutes, run["rss_mb"], linestyle="--", color=colour[label_of(run)])
    axes.set_xlabel("minutes of audio in one slot")
    axes.set_ylabel("ms a chunk, median (solid)")
    axes.set_ylim(bottom=0)
    memory.set_ylabel("memory, MB (dashed)")
    memory.set_ylim(bottom=0)
    axes.set_title("A long time in one slot")


def _grouped(
    axes: Any, groups: list[str], labels: list[str], values: dict[tuple[str, str], float], colour: dict[str, str]
) -> None:
    """Bars side by side: a group a name below, a bar a label; the value stands above each."""
    width = 0.8 / max(1, len(labels))
    for i, label in enumerate(labels):
        for place, group in enumerate(groups):
            if (group, label) in values:
                x, height = place + (i - (len(labels) - 1) / 2) * width, values[group, label]
                axes.bar(x, height, width * 0.95, color=colour[label])
                axes.text(x, height, f"{height:.1f}", ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(groups)), [group.split(",")[0] for group in groups], fontsize=8)
    if groups:
        axes.tick_params(axis="x", rotation=15 if len(groups) > 3 else 0)
    axes.margins(y=0.12)
