"""The quality benchmark on a recogniser whose errors and delays are known, so that every figure is checked by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from relay.cli import run
from relay.commands import bench_quality
from relay.engine import catalog
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.engine.engine import Engine
from relay_benchmarks import quality, quality_sounds
from relay_benchmarks.quality_plots import plot_quality
from relay_benchmarks.quality_run import PARTS, Heard, Shown, hear, hear_long, one_core
from relay_benchmarks.quality_set import LEAD_MS, TAIL_MS, Recording, RecordingSet, TimedWord
from relay_benchmarks.quality_text import WordErrors

MS = 16  # samples

SILENCE_1200 = np.zeros(1200 * MS, dtype=np.int16)
REFERENCE = (
    TimedWord("The", 0.0, 0.2),
    TimedWord("cat", 0.2, 0.5),
    TimedWord("sat", 0.5, 0.8),
    TimedWord("down.", 0.8, 1.0),
)
TIMED = Recording("timed", "The cat sat down.", SILENCE_1200, REFERENCE)
UNTIMED = Recording("untimed", "The cat sat down.", SILENCE_1200)
# On the clock of the padded recording, where the reference begins at 200 ms.
UPDATES = (
    (500, "", "the"),
    (800, "the", "hat"),
    (900, "the", "cat"),
    (1300, "the cat", "sad town"),
    (1400, "the cat", "sad down"),
)
WORDS = (
    Word("the", 210 * MS, 390 * MS, 0.9),
    Word("cat", 400 * MS, 720 * MS, 0.9),
    Word("sad", 700 * MS, 1000 * MS, 0.9),
    Word("down", 1010 * MS, 1250 * MS, 0.9),
)
FINAL = "the cat sad down"


@dataclass
class Scripted:
    """Runner[EarsInput, EarsOutput] that shows each update once so many milliseconds of audio have come."""

    updates: Sequence[tuple[int, str, str]] = UPDATES
    words: tuple[Word, ...] = WORDS
    max_slots: int = 1
    max_batch: int = 1
    given: int = 0
    chunks: list[tuple[int, bool]] = field(default_factory=list)

    def load(self) -> None:
        pass

    def open(self, slot: int) -> None:
        self.given = 0

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> list[EarsOutput]:
        (x,) = xs
        self.given += len(x.pcm)
        self.chunks.append((len(x.pcm), x.final))
        if x.final:
            return [EarsOutput(" ".join(word.text for word in self.words), "", self.words, final=True)]
        shown = [(stable, unstable) for ms, stable, unstable in self.updates if ms * MS <= self.given]
        return [EarsOutput(*shown[-1]) if shown else EarsOutput("", "")]

    def close(self, slot: int) -> None:
        pass

    def unload(self) -> None:
        pass


def heard(
    updates: Sequence[tuple[int, str, str]] = UPDATES,
    words: tuple[Word, ...] = WORDS,
    *,
    step_s: float = 0.4,
    processor_s: float = 0.3,
    final_s: float = 0.05,
) -> Heard:
    text = " ".join(word.text for word in words)
    shown = [Shown(ms * MS, stable, unstable) for ms, stable, unstable in updates]
    return Heard(2000 * MS, (*shown, Shown(2000 * MS, text, "")), text, words, step_s, processor_s, final_s)


def test_the_script_fits_the_padding() -> None:
    assert (LEAD_MS, TAIL_MS) == (200, 600)
    assert len(TIMED.padded()) == 2000 * MS


@pytest.mark.parametrize("chunk_ms", [20, 100])
def test_what_is_shown_is_timed_by_the_audio_given(chunk_ms: int) -> None:
    runner = Scripted()

    async def main() -> Heard:
        async with Engine(runner, name="ears") as ears:
            return await hear(TIMED.padded(), ears, chunk_ms * MS)

    result = asyncio.run(main())
    assert [(s.given_samples // MS, s.stable, s.unstable) for s in result.shown] == [*UPDATES, (2000, FINAL, "")]
    assert (result.samples, result.text, result.words) == (2000 * MS, FINAL, WORDS)
    assert 0 < result.final_s < result.step_s
    assert runner.chunks == [(chunk_ms * MS, False)] * (2000 // chunk_ms) + [(0, True)]


def test_a_last_chunk_may_be_short() -> None:
    runner = Scripted()

    async def main() -> None:
        async with Engine(runner, name="ears") as ears:
            await hear(SILENCE_1200[: 250 * MS], ears, 100 * MS)

    asyncio.run(main())
    assert [samples // MS for samples, _ in runner.chunks] == [100, 100, 50, 0]


def test_figures_of_a_recording_with_reference_times() -> None:
    one = quality.judge(TIMED, heard())
    assert one.errors == WordErrors(4, substitutions=1)
    assert (one.final_words, one.changed_words, one.broken_words) == (4, 2, 0)  # `hat` and `town`
    assert one.timed_by == "reference"
    # the, cat and down are right; their true ends are at 400, 700 and 1200 ms.
    assert one.shown_after_ms == [500 - 400, 900 - 700, 1400 - 1200]
    assert one.stable_after_ms == [800 - 400, 1300 - 700, 2000 - 1200]
    assert one.first_partial_ms == 500 - 200
    assert one.start_errors_ms == [210 - 200, 400 - 400, 1010 - 1000]
    assert one.end_errors_ms == [390 - 400, 720 - 700, 1250 - 1200]
    assert (one.audio_s, one.final_ms, one.step_s, one.processor_s) == (2.0, 50.0, 0.4, 0.3)


def test_figures_of_a_recording_without_them() -> None:
    one = quality.judge(UNTIMED, heard())
    assert one.timed_by == "engine"
    assert one.shown_after_ms == [500 - 390, 900 - 720, 1300 - 1000, 1400 - 1250]
    assert one.stable_after_ms == [800 - 390, 1300 - 720, 2000 - 1000, 2000 - 1250]
    assert one.first_partial_ms == 500 - 210
    assert one.start_errors_ms == one.end_errors_ms == []


def test_a_word_that_comes_again_is_not_shown_before_it_is_said() -> None:
    words = (Word("no", 0, 300 * MS, 1.0), Word("no", 900 * MS, 1100 * MS, 1.0))
    updates = ((400, "", "oh no"), (600, "", "no"), (1200, "no", "no"))
    one = quality.judge(Recording("no", "no no", SILENCE_1200), heard(updates, words))
    assert one.shown_after_ms == [400 - 300, 1200 - 1100]


def test_words_that_vanish_count_and_words_that_only_follow_do_not() -> None:
    assert quality.changed_words(["", "a", "a b", "a b c"]) == 0
    assert quality.changed_words(["a b c", "a c", "A, c."]) == 2
    assert quality.changed_words(["a b c", ""]) == 3
    assert quality.changed_words([]) == 0


def test_a_stable_word_that_changes_is_a_broken_promise() -> None:
    one = quality.judge(TIMED, heard([(800, "the hat", ""), (900, "the cat", "")]))
    assert (one.broken_words, one.changed_words) == (1, 1)


def test_what_was_not_heard_at_all() -> None:
    one = quality.judge(TIMED, heard((), ()))
    assert one.errors == WordErrors(4, deletions=4)
    assert (one.shown_after_ms, one.first_partial_ms, one.final_words) == ([], None, 0)
    result = quality.summarise("deaf", 80, RecordingSet("set", (TIMED,)), [one])
    assert (result["wer"], result["flicker"], result["shown_after_ms"]["p50"]) == (1.0, None, None)


def test_a_set_is_summed_before_it_is_divided() -> None:
    judged = [
        quality.judge(TIMED, heard()),
        quality.judge(Recording("short", "cat", SILENCE_1200), heard((), (Word("cat", 0, 1600, 1.0),), step_s=0.2)),
    ]
    result = quality.summarise("fake", 480, RecordingSet("set", (TIMED,)), judged)
    assert (result["engine"], result["lookahead_ms"], result["set"], result["recordings"]) == ("fake", 480, "set", 2)
    assert (result["words"], result["substitutions"], result["deletions"], result["insertions"]) == (5, 1, 0, 0)
    assert result["wer"] == 0.2
    assert result["flicker"] == 0.4
    assert result["rtf"] == 0.15
    assert result["rtf_processor"] == 0.15
    assert (result["word_ends_by"], result["timed_recordings"]) == (["reference"], 1)  # the other has no times
    assert result["shown_after_ms"]["max"] == 200.0  # of 100, 200, 200
    assert quality.summarise("fake", 480, RecordingSet("set", ()), judged[1:])["word_ends_by"] == ["engine"]
    assert result["word_end_error_ms"]["p50"] == 20.0  # of 10, 20, 50
    assert result["final_ms"]["max"] == 50.0
    assert [one["name"] for one in result["recording_list"]] == ["timed", "short"]


def test_every_set_is_compared_with_the_baseline_on_it() -> None:
    def entry(engine: str, name: str, *recordings: Recording) -> dict[str, Any]:
        judged = [quality.judge(recording, heard()) for recording in recordings]
        return quality.summarise(engine, None, RecordingSet(name, recordings), judged)

    wrong = Recording("other", "my dog sad down", SILENCE_1200)
    results = [entry("good", "a", UNTIMED), entry("base", "a", wrong), entry("good", "b", UNTIMED)]
    report = quality.report(results, [], [], baseline="base", device="cpu", chunk_ms=80, one_core=False, seed=1)
    assert [result["wer"] for result in report["results"]] == [0.25, 0.5, 0.25]
    assert [result["wer_to_baseline"] for result in report["results"]] == [0.5, 1.0, None]


def test_insertions_are_counted_by_the_minute() -> None:
    entry = quality.insertions("fake", None, "white noise", heard())
    assert (entry["words"], entry["minutes"], entry["per_minute"]) == (4, 0.033, 120.0)


def test_a_long_run_is_one_utterance_without_an_end() -> None:
    runner = Scripted()
    told: list[float] = []

    async def main() -> quality.LongRun:
        async with Engine(runner, name="ears") as ears:
            return await hear_long([TIMED, UNTIMED], ears, 70 * MS, seconds=7.0, on_audio=told.append)

    result = asyncio.run(main())
    assert runner.chunks == [(70 * MS, False)] * 100
    assert (result.audio_s, sum(told)) == pytest.approx((7.0, 7.0))
    entry = quality.endurance("fake", 0, result)
    assert (len(entry["chunk_ms"]), len(entry["chunk_p99_ms"]), len(entry["rss_mb"])) == (PARTS, PARTS, PARTS + 1)
    assert min(entry["chunk_ms"]) >= 0
    assert min(entry["rss_mb"]) > 10
    for name, unit in (("time", "ms"), ("memory", "mb")):
        low, high = entry[name]["confidence_95"]
        assert low <= entry[name][f"{unit}_per_hour"] <= high


def test_one_core_is_given_back() -> None:
    async def cores() -> int:
        return len(await asyncio.to_thread(affinity))

    def affinity() -> set[int]:
        import os

        return os.sched_getaffinity(0)

    before = affinity()
    with one_core() as held:
        assert held
        assert asyncio.run(cores()) == 1  # threads begun meanwhile are held too
    assert affinity() == before


@pytest.mark.parametrize("hour", [False, True])
@pytest.mark.parametrize("judged", [[], [quality.judge(TIMED, heard())]], ids=["nothing", "something"])
def test_any_report_can_be_drawn(tmp_path: Path, judged: list[quality.Judged], hour: bool) -> None:
    results = [quality.summarise("fake", lookahead, RecordingSet("set", (TIMED,)), judged) for lookahead in (0, 80)]
    sounds = [quality.insertions("fake", 80, "silence", heard())]
    runs = [quality.endurance("fake", 80, quality.LongRun(10.0, [1.0] * PARTS, [2.0] * PARTS, [50.0] * (PARTS + 1)))]
    report = quality.report(
        results, sounds, runs if hour else [], baseline="fake", device="cpu", chunk_ms=80, one_core=True, seed=0
    )
    json.dumps(report)
    picture = tmp_path / "quality.png"
    plot_quality(report, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------------------ command


def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    soundfile.write(folder / "a.wav", SILENCE_1200, 16_000)
    words = [{"text": word.text, "start_s": word.start_s, "end_s": word.end_s} for word in REFERENCE]
    (folder / "manifest.jsonl").write_text(json.dumps({"wav": "a.wav", "text": TIMED.text, "words": words}) + "\n")
    return folder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """All recognisers are scripted: `relay` has three look-aheads, the baseline none. Gives what was made."""
    made = []

    def ears(name: str, options: catalog.EarsOptions, *, models_dir: Path | None) -> Scripted:
        made.append((name, options.lookahead_ms))
        return Scripted()

    offered = {"relay": (1040, 0, 80)}
    monkeypatch.setattr(catalog, "ears", ears)
    monkeypatch.setattr(catalog, "lookaheads_ms", lambda name, *, models_dir: offered.get(name, ()))
    return made


@pytest.mark.parametrize(
    ("flags", "made"),
    [
        (["--ears", "baseline"], [("pocketsphinx", None)]),
        (["--ears", "relay"], [("relay", 0), ("relay", 80), ("relay", 1040), ("pocketsphinx", None)]),
        (["--ears", "relay", "--lookahead-ms", "80"], [("relay", 80), ("pocketsphinx", None)]),
        (
            ["--ears", "mine", "--ears", "relay", "--lookahead-ms", "1040", "--lookahead-ms", "0"],
            [("mine", None), ("relay", 0), ("relay", 1040), ("pocketsphinx", None)],
        ),
    ],
    ids=str,
)
def test_every_look_ahead_is_measured_and_the_baseline_once(
    tmp_path: Path,
    scripted: list[tuple[str, int | None]],
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    made: list[tuple[str, int | None]],
) -> None:
    mine = str(manifest(tmp_path))
    assert run(["bench", "quality", *flags, "--manifest", mine, "--non-speech-s", "0", "--json", "-"], {}) == 0
    report = json.loads(capsys.readouterr().out)
    assert scripted == made
    assert [(result["engine"], result["lookahead_ms"]) for result in report["results"]] == made
    assert {result["wer_to_baseline"] for result in report["results"]} == {1.0}


@pytest.mark.usefixtures("scripted")
def test_a_look_ahead_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "quality", "--ears", "relay", "--lookahead-ms", "33"], {}) == 2
    assert "0, 80, 1040 ms" in capsys.readouterr().err


@pytest.mark.usefixtures("scripted")
def test_the_command_on_a_known_recogniser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = str(manifest(tmp_path))
    flags = ["bench", "quality", "--ears", "baseline", "--manifest", mine, "--non-speech-s", "0", "--chunk-ms", "100"]
    assert run([*flags, "--json", "-"], {}) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    (result,) = report["results"]
    assert (result["set"], result["synthetic"], result["wer"], result["flicker"]) == ("mine", False, 0.25, 0.5)
    assert result["shown_after_ms"]["p50"] == 200.0
    assert report["config"]["chunk_ms"] == 100
    assert report["non_speech"] == report["hour"] == []
    assert run(flags, {}) == 0
    out = capsys.readouterr().out
    assert "mine: 1 recordings, 4 words" in out
    assert "25.0" in out
    assert run([*flags, "--manifest", mine, "--json", "-"], {}) == 0
    assert [result["set"] for result in json.loads(capsys.readouterr().out)["results"]] == ["mine 1", "mine 2"]


@pytest.mark.usefixtures("scripted")
def test_the_command_counts_words_made_of_noise_and_hears_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality_sounds, "non_speech", lambda seconds, seed: {"hum": np.ones(round(seconds * 16_000))})
    monkeypatch.setattr(bench_quality, "HOUR_S", 3.0)
    mine = str(manifest(tmp_path))
    flags = ["bench", "quality", "--ears", "baseline", "--manifest", mine, "--non-speech-s", "6", "--hour"]
    assert run([*flags, "--json", "-"], {}) == 0
    report = json.loads(capsys.readouterr().out)
    (hum,) = report["non_speech"]
    assert (hum["kind"], hum["words"], hum["per_minute"]) == ("hum", 4, 40.0)
    (hour,) = report["hour"]
    assert (hour["audio_s"], len(hour["chunk_ms"])) == (3.0, PARTS)
    assert run(flags, {}) == 0
    out = capsys.readouterr().out
    assert "40.0" in out
    assert "in one slot" in out


def test_the_baseline_on_the_built_in_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_path, picture = tmp_path / "quality.json", tmp_path / "quality.png"
    flags = ["--ears", "baseline", "--recordings", "1", "--non-speech-s", "0"]
    assert run(["bench", "quality", *flags, "--json", str(report_path), "--plot", str(picture)], {}) == 0
    assert "synthetic" in capsys.readouterr().out
    report = json.loads(report_path.read_text())
    (result,) = report["results"]  # asked for and compared with, and yet once
    assert (result["engine"], result["synthetic"], result["words"]) == ("pocketsphinx", True, 10)
    assert result["wer"] < 1
    assert result["broken_words"] == 0
    assert result["rtf"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "flags",
    [
        ["--ears", "no-such-engine"],
        ["--manifest", "/no/such/manifest"],
        ["--json", "/no/such/folder/x.json"],
        ["--part", "nose"],
        ["--recordings", "0"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "quality", *flags], {}) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
