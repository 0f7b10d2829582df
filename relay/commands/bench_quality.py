"""`relay bench quality`: how well, how early, how steadily and how cheaply the ears hear, against the baseline."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from relay.audio import EARS_RATE_HZ, Int16Array, samples_in
from relay.commands.console import note, progress_console
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.config import Device
from relay.engine import catalog
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.engine import Engine, Runner
from relay.errors import UsageError

if TYPE_CHECKING:
    from relay_benchmarks.quality_set import RecordingSet

BASELINE = "baseline"
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """What `relay bench quality` was asked.

    Attributes:
        ears: Recognisers by name or folder, compared with the baseline; empty: all that ship and can run here.
        lookahead_ms: Look-aheads to measure; empty: all that each recogniser offers.
        device: Where recognisers run that can choose.
        manifests: Manifests, or folders that hold `manifest.jsonl`; empty: the built-in set.
        align: Whether words are timed by forced alignment where a manifest has no times.
        recordings: How many recordings of each set; None: all.
        chunk_ms: Audio given at a time.
        non_speech_s: Length of each kind of noise; 0: none is heard.
        hour: Whether one slot of each recogniser hears an hour of audio.
        seed: Of the noises.
        json: Where to write the report; `-` is stdout.
        plot: Where to draw it.
        models_dir: Where models of one's own are; None: there are none.
    """

    ears: tuple[str, ...] = ()
    lookahead_ms: tuple[int, ...] = ()
    device: Device = "cpu"
    manifests: tuple[Path, ...] = ()
    align: bool = False
    recordings: int | None = None
    chunk_ms: int = 80
    non_speech_s: float = 30.0
    hour: bool = False
    seed: int = 0
    json: Path | None = None
    plot: Path | None = None
    models_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recogniser at one look-ahead, or without a choice of it."""

    engine: str
    lookahead_ms: int | None
    runner: Runner[EarsInput, EarsOutput]


async def bench_quality(options: QualityOptions) -> int:
    """Measures every recogniser, writes the report and prints its tables.

    Returns:
        Exit status.

    Raises:
        UsageError: A manifest, engine or look-ahead is not there, or a file cannot be written.
        AudioFileError: A recording cannot be read.
        EngineUnavailable, WeightsError: A recogniser, the synthesiser or a package is missing.
    """
    require("relay_benchmarks", "bench")
    for package in ("jiwer", "psutil"):
        require(package, "bench quality")
    if options.plot is not None:
        require("matplotlib", "--plot")
    check_writable(options.json, options.plot)
    from relay_benchmarks import quality, quality_align, quality_set, quality_sounds
    from relay_benchmarks.quality_plots import plot_quality
    from relay_benchmarks.quality_run import one_core

    candidates = _candidates(options)
    if options.manifests:
        sets = _distinct([quality_set.read_manifest(path, options.recordings) for path in options.manifests])
    else:
        sets = [await asyncio.to_thread(quality_set.built_in, options.recordings)]
    if options.align:
        note("finding when each word is said ...")
        sets = [await asyncio.to_thread(quality_align.aligned, one) for one in sets]
    sounds = {}
    if options.non_speech_s > 0:
        sounds = await asyncio.to_thread(quality_sounds.non_speech, options.non_speech_s, options.seed)
    steps = sum(len(one.recordings) for one in sets) + len(sounds) + (HOUR_S / 60 if options.hour else 0)
    measured = _Measured()
    with _progress() as progress, one_core() as held:
        for candidate in candidates:
            task = progress.add_task(_label(candidate.engine, candidate.lookahead_ms), total=steps)
            async with Engine(candidate.runner, name="ears") as ears:
                advance = functools.partial(progress.advance, task)
                await _measure(candidate, ears, sets, sounds, options, measured, advance)
    report = quality.report(
        measured.results,
        measured.non_speech,
        measured.hour,
        baseline=catalog.own_name(catalog.EARS, BASELINE),
        device=options.device,
        chunk_ms=options.chunk_ms,
        one_core=held,
        seed=options.seed,
    )
    write_report(report, options.json)
    if options.plot is not None:
        await asyncio.to_thread(plot_quality, report, options.plot)
    if not is_stdout(options.json):
        _print(report, sets)
    return 0


@dataclass(slots=True)
class _Measured:
    """Entries of the report, over all recognisers."""

    results: list[dict[str, Any]] = field(default_factory=list)
    non_speech: list[dict[str, Any]] = field(default_factory=list)
    hour: list[dict[str, Any]] = field(default_factory=list)


async def _measure(
    candidate: Candidate,
    ears: Engine[EarsInput, EarsOutput],
    sets: Sequence[RecordingSet],
    sounds: Mapping[str, Int16Array],
    options: QualityOptions,
    measured: _Measured,
    advance: Callable[[float], None],
) -> None:
    """All that one recogniser is asked; `advance` is told of every recording or sound, and of minutes of the hour."""
    from relay_benchmarks import quality
    from relay_benchmarks.quality_run import hear, hear_long

    who = (candidate.engine, candidate.lookahead_ms)
    chunk_samples = samples_in(options.chunk_ms, EARS_RATE_HZ)
    for recordings in sets:
        judged = []
        for recording in recordings.recordings:
            heard = await hear(await asyncio.to_thread(recording.padded), ears, chunk_samples)
            judged.append(quality.judge(recording, heard))
            advance(1)
        measured.results.append(quality.summarise(*who, recordings, judged))
    for kind, pcm in sounds.items():
        measured.non_speech.append(quality.insertions(*who, kind, await hear(pcm, ears, chunk_samples)))
        advance(1)
    if options.hour:
        run = await hear_long(
            [recording for one in sets for recording in one.recordings],
            ears,
            chunk_samples,
            seconds=HOUR_S,
            on_audio=lambda seconds: advance(seconds / 60),
        )
        measured.hour.append(quality.endurance(*who, run))


def _distinct(sets: Sequence[RecordingSet]) -> list[RecordingSet]:
    """The sets, those that share a name numbered."""
    count = Counter(one.name for one in sets)
    return [
        one if count[one.name] == 1 else replace(one, name=f"{one.name} {number}") for number, one in enumerate(sets, 1)
    ]


def _candidates(options: QualityOptions) -> list[Candidate]:
    """Every recogniser that was asked for and then the baseline, each once at each of its look-aheads.

    Raises UsageError, EngineUnavailable, WeightsError.
    """
    asked = options.ears or tuple(entry.name for entry in catalog.EARS if entry.missing is None)
    candidates = []
    for name in dict.fromkeys(catalog.own_name(catalog.EARS, name) for name in (*asked, BASELINE)):
        offered = sorted(catalog.lookaheads_ms(name, models_dir=options.models_dir))
        chosen: list[int | None] = [ms for ms in offered if not options.lookahead_ms or ms in options.lookahead_ms]
        if offered and not chosen:
            raise UsageError(
                f"{name} has the look-aheads {', '.join(map(str, offered))} ms; name one with --lookahead-ms"
            )
        for lookahead_ms in chosen or [None]:
            how = catalog.EarsOptions(lookahead_ms, options.device)
            candidates.append(Candidate(name, lookahead_ms, catalog.ears(name, how, models_dir=options.models_dir)))
    return candidates


def _label(engine: str, lookahead_ms: int | None) -> str:
    name = Path(engine).name  # a folder may lie deep
    return name if lookahead_ms is None else f"{name} {lookahead_ms} ms"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=progress_console(),
        transient=True,
    )


def _print(report: dict[str, Any], sets: Sequence[RecordingSet]) -> None:
    console = Console(highlight=False)
    for recordings in sets:
        rows = [result for result in report["results"] if result["set"] == recordings.name]
        console.print(_errors_table(recordings, rows))
        console.print(_times_table(rows))
    if report["non_speech"]:
        console.print(_insertions_table(report["non_speech"]))
    for run in report["hour"]:
        label, chunk_ms, rss_mb = _label(run["engine"], run["lookahead_ms"]), run["chunk_ms"], run["rss_mb"]
        console.print(
            f"{label}, {run['audio_s'] / 60:.0f} minutes in one slot: a chunk takes {chunk_ms[0]:.1f} ms in the first "
            f"tenth and {chunk_ms[-1]:.1f} ms in the last; memory {rss_mb[0]:.0f} -> {rss_mb[-1]:.0f} MB; "
            f"slopes an hour, 95 %: {_span(run['time'])} ms, {_span(run['memory'])} MB"
        )


def _span(trend: dict[str, Any]) -> str:
    low, high = trend["confidence_95"]
    return f"{low:+.2f} to {high:+.2f}"


def _errors_table(recordings: RecordingSet, rows: Sequence[dict[str, Any]]) -> Table:
    words = rows[0]["words"] if rows else 0
    minutes = rows[0]["audio_s"] / 60 if rows else 0.0
    title = f"{recordings.name}: {len(recordings.recordings)} recordings, {words} words, {minutes:.1f} minutes"
    table = _table(title, "WER %", "of base", "sub", "del", "ins", "flicker", "broken", "RTF", "RTF cpu")
    for row in rows:
        table.add_row(
            _label(row["engine"], row["lookahead_ms"]),
            _percent(row["wer"]),
            _decimal(row["wer_to_baseline"], 2),
            str(row["substitutions"]),
            str(row["deletions"]),
            str(row["insertions"]),
            _decimal(row["flicker"], 2),
            str(row["broken_words"]),
            _decimal(row["rtf"], 3),
            _decimal(row["rtf_processor"], 3),
        )
    return table


def _times_table(rows: Sequence[dict[str, Any]]) -> Table:
    sources = {source for row in rows for source in row["word_ends_by"]}
    title = (
        f"ms, P50 / P90; shown and stable count from a word's end, by the {' or '.join(sorted(sources)) or 'engine'}"
    )
    table = _table(title, "shown", "stable", "first text", "final answer", "word times off")
    for row in rows:
        table.add_row(
            _label(row["engine"], row["lookahead_ms"]),
            *(_spread(row[key]) for key in ("shown_after_ms", "stable_after_ms", "first_partial_ms", "final_ms")),
            _spread(row["word_end_error_ms"]),
        )
    return table


def _insertions_table(entries: Sequence[dict[str, Any]]) -> Table:
    kinds = list(dict.fromkeys(entry["kind"] for entry in entries))
    table = _table("words a minute where there are none to hear", *kinds)
    for who in dict.fromkeys((entry["engine"], entry["lookahead_ms"]) for entry in entries):
        mine = {e["kind"]: e["per_minute"] for e in entries if (e["engine"], e["lookahead_ms"]) == who}
        table.add_row(_label(*who), *(f"{mine[kind]:.1f}" for kind in kinds))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate * 100:.1f}"


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _spread(distribution: dict[str, float | None]) -> str:
    p50, p90 = distribution["p50"], distribution["p90"]
    return "-" if p50 is None or p90 is None else f"{p50:.0f} / {p90:.0f}"
