"""`relay bench quality --part voice`: how well, how soon and how cheaply voices speak, beside the baseline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from relay.audio import EARS_RATE_HZ, samples_in
from relay.commands.console import note, progress_console
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.config import Device
from relay.engine import catalog
from relay.engine.engine import Engine
from relay.engine.learned_voice import LearnedVoice
from relay.errors import UsageError

if TYPE_CHECKING:
    from relay_benchmarks.quality_set import Recording, RecordingSet
    from relay_benchmarks.voice_quality import Said

BASELINE = "baseline"
RECOGNISER = "pocketsphinx"
"""Who tells whether a voice is understood: nobody here trained it."""
HEARD_MS = 80
PAGE_SENTENCES = 20


@dataclass(frozen=True, slots=True)
class VoiceQualityOptions:
    """What `relay bench quality --part voice` was asked.

    Attributes:
        voices: Voices by name or folder, compared with the baseline; empty: all that ship and can run here.
        device: Where they run, if they can choose.
        manifest: Recordings of the speaker, with their texts; None: built-in sentences, without recordings.
        sentences: How many; None: all.
        crowds: Also how many replies to speak side by side in real time.
        json: Where to write the report; `-` is stdout.
        page: Folder for a page with players.
    """

    voices: tuple[str, ...] = ()
    device: Device = "cpu"
    manifest: Path | None = None
    sentences: int | None = None
    crowds: tuple[int, ...] = ()
    json: Path | None = None
    page: Path | None = None


async def bench_voice(options: VoiceQualityOptions) -> int:
    """Measures every voice, writes report and page, and prints the tables.

    Returns:
        Exit status.

    Raises:
        UsageError: A manifest or voice is not there, or a file cannot be written.
        AudioFileError: A recording cannot be read.
        EngineUnavailable, WeightsError: A voice, the recogniser or a package is missing.
    """
    require("relay_benchmarks", "bench")
    for package in ("jiwer", "psutil"):
        require(package, "bench quality")
    check_writable(options.json, options.page)
    from relay_benchmarks import voice_quality
    from relay_benchmarks.quality_run import one_core
    from relay_benchmarks.quality_set import SENTENCES, Recording, RecordingSet, read_manifest
    from relay_benchmarks.voice_page import write_page
    from relay_benchmarks.voices import WARM_UP_SENTENCES, speak

    runners = _voices(options)
    if options.manifest is not None:
        sentences = read_manifest(options.manifest, options.sentences)
    else:
        texts = SENTENCES[: options.sentences]
        nobody = voice_quality.NO_SOUND
        sentences = RecordingSet("built-in sentences", tuple(Recording(text, text, nobody) for text in texts))
    said: dict[str, list[Said]] = {}
    crowds: list[dict[str, Any]] = []
    with _progress() as progress, one_core() as held:
        for name, runner in runners.items():
            task = progress.add_task(Path(name).name, total=len(sentences.recordings))
            runner.load()
            try:
                said[name] = []
                for sentence in sentences.recordings[:WARM_UP_SENTENCES]:
                    speak(runner, sentence.text)
                for sentence in sentences.recordings:
                    said[name].append(voice_quality.say(runner, sentence))
                    progress.advance(task)
                for count in options.crowds if isinstance(runner, LearnedVoice) else ():  # others do not speak in steps
                    crowds.append({"engine": name, "device": options.device, **_crowd(runner, count)})
            finally:
                runner.unload()
    note("listening ...")
    real = await _listen(sentences, said, has_speaker=options.manifest is not None)
    note("finding when each word is said ...")
    for one in said.values():
        await asyncio.to_thread(voice_quality.time_words, one)
    report = voice_quality.report(
        [voice_quality.summarise(name, options.device, sentences, one) for name, one in said.items()],
        real,
        crowds,
        baseline=catalog.own_name(catalog.VOICES, BASELINE),
        recogniser=RECOGNISER,
        device=options.device,
        one_core=held,
    )
    write_report(report, options.json)
    if options.page is not None:
        note(str(await asyncio.to_thread(write_page, options.page, said, report, most=PAGE_SENTENCES)))
    if not is_stdout(options.json):
        _print(report)
    return 0


async def _listen(sentences: RecordingSet, said: dict[str, list[Said]], *, has_speaker: bool) -> list[dict[str, Any]]:
    """Lets the recogniser hear everything; gives the `real` entries."""
    from relay_benchmarks import voice_quality

    for each in said.values():
        for one, text in zip(each, await _heard([one.at_ears_rate() for one in each]), strict=True):
            one.hear(text)
    if not has_speaker:
        return []
    real = [await asyncio.to_thread(voice_quality.real_at_ears_rate, one) for one in sentences.recordings]
    return [voice_quality.summarise_real(sentences, await _heard(real))]


async def _heard(recordings: Sequence[Recording]) -> list[str]:
    """What the recogniser understands, a fresh one: it hears differently, if slightly, after other utterances."""
    from relay_benchmarks.quality_run import hear

    chunk = samples_in(HEARD_MS, EARS_RATE_HZ)
    async with Engine(catalog.ears(RECOGNISER), name="ears") as ears:
        return [(await hear(recording.padded(), ears, chunk)).text for recording in recordings]


def _crowd(runner: catalog.VoiceRunner, count: int) -> dict[str, Any]:
    from relay_benchmarks.voices import crowd

    try:
        return asdict(crowd(runner, count))
    except ValueError as error:
        raise UsageError(f"{error}; ask for fewer --voices") from error


def _voices(options: VoiceQualityOptions) -> dict[str, catalog.VoiceRunner]:
    """Every voice that was asked for and then the baseline. Raises UsageError, EngineUnavailable."""
    asked = options.voices or tuple(entry.name for entry in catalog.VOICES if entry.missing is None)
    names = dict.fromkeys(catalog.own_name(catalog.VOICES, name) for name in (*asked, BASELINE))
    return {name: catalog.voice(name, device=options.device) for name in names}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=progress_console(),
        transient=True,
    )


def _print(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(_heard_table(report))
    console.print(_sound_table(report))
    console.print(_times_table(report))
    for crowd in report["crowds"]:
        verdict = "in real time" if crowd["in_real_time"] else "NOT in real time"
        console.print(
            f"{Path(crowd['engine']).name}, {crowd['voices']} voices at once: {verdict}; {crowd['chunk_ms']:.0f} ms of "
            f"speech take {crowd['step_ms']['p50']:.1f} ms (P50), {crowd['step_ms']['p99']:.1f} ms (P99), "
            f"{crowd['late'] * 100:.1f} % of steps are late"
        )


def _heard_table(report: dict[str, Any]) -> Table:
    first = report["results"][0]
    table = _table(f"{first['set']}: {first['sentences']} sentences", "WER %", "of real", "sub", "del", "ins")
    for entry in (*report["real"], *report["results"]):
        table.add_row(
            Path(entry.get("engine", "the speaker's recordings")).name,
            _number(None if entry["wer"] is None else entry["wer"] * 100, 1),
            _number(entry.get("wer_to_real"), 2),
            *(str(entry[kind]) for kind in ("substitutions", "deletions", "insertions")),
        )
    return table


def _sound_table(report: dict[str, Any]) -> Table:
    columns = ("MCD dB", "F0 corr", "F0 semit.", "length", "seam dB", "cut early", "F0 jump", "cut early")
    table = _table("beside the recordings; at the seam of a sentence's halves", *columns)
    for result in report["results"]:
        whole, early = result["seams"]["whole"], result["seams"]["flushed_early"]
        table.add_row(
            Path(result["engine"]).name,
            _number(result["mel_cepstral_distance_db"], 2),
            _number(result["pitch_correlation"], 2),
            _number(result["pitch_error_semitones"], 1),
            _number(result["length_ratio"], 2),
            *(_number(each["flux_db"], 1) for each in (whole, early)),
            *(_number(each["pitch_jump_semitones"], 1) for each in (whole, early)),
        )
    return table


def _times_table(report: dict[str, Any]) -> Table:
    columns = ("first ms", "P90", "P99", "words", "RTF", "words timed", "off ms", "within 50 ms %")
    table = _table("first sound from the first word on; word starts against forced alignment", *columns)
    for result in report["results"]:
        close = result["word_starts_close"]
        table.add_row(
            Path(result["engine"]).name,
            *(_number(result["first_audio_ms"][p], 1) for p in ("p50", "p90", "p99")),
            _number(result["first_audio_words"]["p50"], 0),
            _number(result["rtf"], 3),
            str(result["timed_words"]),
            _number(result["word_start_error_ms"]["p50"], 0),
            _number(None if close is None else close * 100, 1),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
