"""The quality benchmark of the ears: how well, how early, how steadily and how cheaply words are heard.

Every recogniser hears the same recordings in the same run, in chunks, as fast as it goes. When something was shown is
told on the sample clock: by how much audio had been given. Two figures read the wall clock: the finalisation delay and
the real-time factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any

import relay
from relay.audio import EARS_RATE_HZ, samples_in
from relay_benchmarks.latency import machine
from relay_benchmarks.quality_run import PARTS, Heard, LongRun
from relay_benchmarks.quality_set import LEAD_MS, PAD_NOISE_DBFS, TAIL_MS, Recording, RecordingSet
from relay_benchmarks.quality_text import WordErrors, places_shown, plain_words, same_words, word_errors
from relay_benchmarks.summary import distribution
from relay_benchmarks.trend import trend

ENGINE = "engine"

_MS = 1000.0 / EARS_RATE_HZ
_LEAD_SAMPLES = samples_in(LEAD_MS, EARS_RATE_HZ)


@dataclass(frozen=True, slots=True)
class Judged:
    """One recording, judged.

    Attributes:
        name: The recording.
        text: What is said.
        heard: What was understood.
        errors: The edits between them.
        audio_s: Length, padding included.
        final_words: Words of the final text, as they are shown.
        changed_words: Words that were shown and then changed or withdrawn.
        broken_words: Of the words shown as stable, those that changed nevertheless; an engine promises none.
        shown_after_ms: For each final word: its end in the audio to its first showing.
        stable_after_ms: The same to its first showing as stable.
        first_partial_ms: Begin of the first word to the first text shown; None when there is no word.
        start_errors_ms: For each word heard right, its start less the reference's.
        end_errors_ms: The same of its end.
        timed_by: Whose word ends count: the `reference`, an `alignment`, or the `engine` where there is neither.
        final_ms: Wall clock from the end of the utterance to the final text.
        step_s: Wall clock of all steps.
        processor_s: Processor time of all steps.
    """

    name: str
    text: str
    heard: str
    errors: WordErrors
    audio_s: float
    final_words: int = 0
    changed_words: int = 0
    broken_words: int = 0
    shown_after_ms: list[float] = field(default_factory=list)
    stable_after_ms: list[float] = field(default_factory=list)
    first_partial_ms: float | None = None
    start_errors_ms: list[float] = field(default_factory=list)
    end_errors_ms: list[float] = field(default_factory=list)
    timed_by: str = ENGINE
    final_ms: float = 0.0
    step_s: float = 0.0
    processor_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Timed:
    """A final word, as it is shown, and when it was said by the recogniser's account."""

    text: str
    start: int
    end: int


def judge(recording: Recording, heard: Heard) -> Judged:
    """Compares what was heard of a padded recording with its reference."""
    final = [_Timed(text, w.start_sample, w.end_sample) for w in heard.words for text in plain_words(w.text)]
    spans = _reference_spans(recording)
    pairs = same_words([text for text, _, _ in spans], [word.text for word in final])
    if spans:
        ends = {place: spans[said][2] for said, place in pairs}
        begin = spans[0][1]
    else:
        ends = {place: word.end for place, word in enumerate(final)}
        begin = final[0].start if final else 0
    first, stable = _first_shown(heard, final)
    spoke = next((shown for shown in heard.shown if plain_words(f"{shown.stable} {shown.unstable}")), None)
    return Judged(
        name=recording.name,
        text=recording.text,
        heard=heard.text,
        errors=word_errors(recording.text, heard.text),
        audio_s=heard.samples / EARS_RATE_HZ,
        final_words=len(plain_words(heard.text)),
        changed_words=changed_words([f"{shown.stable} {shown.unstable}" for shown in heard.shown]),
        broken_words=changed_words([shown.stable for shown in heard.shown]),
        shown_after_ms=[(first[place] - end) * _MS for place, end in ends.items()],
        stable_after_ms=[(stable[place] - end) * _MS for place, end in ends.items()],
        first_partial_ms=(spoke.given_samples - begin) * _MS if spoke is not None and (spans or final) else None,
        start_errors_ms=[(final[place].start - spans[said][1]) * _MS for said, place in pairs],
        end_errors_ms=[(final[place].end - spans[said][2]) * _MS for said, place in pairs],
        timed_by=recording.words_by if spans else ENGINE,
        final_ms=heard.final_s * 1000.0,
        step_s=heard.step_s,
        processor_s=heard.processor_s,
    )


def changed_words(updates: Iterable[str]) -> int:
    """Words that were shown and then changed or withdrawn, over all updates of one text.

    The unstable words of Shangguan et al. 2020 (arXiv 2006.01416): of each update's words those from the first place on
    at which the next update differs. What only follows later counts as nothing.
    """
    changed = 0
    before: list[str] = []
    for update in updates:
        now = plain_words(update)
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
        changed += len(before) - kept
        before = now
    return changed


def _first_shown(heard: Heard, final: Sequence[_Timed]) -> tuple[list[int], list[int]]:
    """How much audio had been given when each final word was first shown, and when it was first stable."""
    texts = [word.text for word in final]
    first, stable = [heard.samples] * len(final), [heard.samples] * len(final)
    seen: set[int] = set()
    settled = 0
    for shown in heard.shown:
        sure = plain_words(shown.stable)[: len(final)]
        begun = sum(word.start < shown.given_samples for word in final)  # what was not yet said cannot be meant
        guessed = places_shown(texts[len(sure) : begun], plain_words(shown.unstable))
        right = [place for place in range(settled, len(sure)) if sure[place] == texts[place]]
        for place in {*right, *(len(sure) + place for place in guessed)} - seen:
            seen.add(place)
            first[place] = shown.given_samples
        stable[settled : len(sure)] = [shown.given_samples] * max(0, len(sure) - settled)
        settled = max(settled, len(sure))
    return first, stable


def _reference_spans(recording: Recording) -> list[tuple[str, int, int]]:
    """Word, first and last sample in the padded recording; a written word that reads as several shares its time."""

    def place(second: float) -> int:
        return _LEAD_SAMPLES + round(second * EARS_RATE_HZ)

    return [
        (text, place(word.start_s), place(word.end_s)) for word in recording.words for text in plain_words(word.text)
    ]


# --------------------------------------------------------------------------------------------------------------- report


def summarise(
    engine: str, lookahead_ms: int | None, recordings: RecordingSet, judged: Sequence[Judged]
) -> dict[str, Any]:
    """The `results` entry of one recogniser, look-ahead and set.

    Where word times are known of some recordings, only these count for how late words are shown, so that all
    recognisers are held against the same clock.
    """
    timed = [one for one in judged if one.timed_by != ENGINE] or judged
    errors = sum((one.errors for one in judged), WordErrors())
    words = sum(one.final_words for one in judged)
    audio_s = sum(one.audio_s for one in judged)
    return {
        "part": "ears",
        "engine": engine,
        "lookahead_ms": lookahead_ms,
        "set": recordings.name,
        "synthetic": recordings.synthetic,
        "recordings": len(judged),
        "audio_s": round(audio_s, 2),
        "wer": _rounded(errors.rate),
        **asdict(errors),
        "flicker": _rounded(sum(one.changed_words for one in judged) / words) if words else None,
        "broken_words": sum(one.broken_words for one in judged),
        "word_ends_by": sorted({one.timed_by for one in timed}),
        "timed_recordings": len(timed),
        "shown_after_ms": distribution(_all(one.shown_after_ms for one in timed)),
        "stable_after_ms": distribution(_all(one.stable_after_ms for one in timed)),
        "first_partial_ms": distribution([one.first_partial_ms for one in timed if one.first_partial_ms is not None]),
        "final_ms": distribution([one.final_ms for one in judged]),
        "word_start_error_ms": distribution([abs(x) for x in _all(one.start_errors_ms for one in judged)]),
        "word_end_error_ms": distribution([abs(x) for x in _all(one.end_errors_ms for one in judged)]),
        "rtf": _rounded(sum(one.step_s for one in judged) / audio_s) if audio_s else None,
        "rtf_processor": _rounded(sum(one.processor_s for one in judged) / audio_s) if audio_s else None,
        "recording_list": [_listed(one) for one in judged],
    }


def insertions(engine: str, lookahead_ms: int | None, kind: str, heard: Heard) -> dict[str, Any]:
    """The `non_speech` entry: words made out of what holds none, or none that the recogniser knows."""
    minutes = heard.samples / EARS_RATE_HZ / 60
    words = len(plain_words(heard.text))
    return {
        "engine": engine,
        "lookahead_ms": lookahead_ms,
        "kind": kind,
        "minutes": round(minutes, 3),
        "words": words,
        "per_minute": round(words / minutes, 2),
        "heard": heard.text,
    }


def endurance(engine: str, lookahead_ms: int | None, run: LongRun) -> dict[str, Any]:
    """The `hour` entry: time of a chunk and memory, from the first part of a long run to its last, and their slopes."""
    ends = [run.audio_s / 60 / PARTS * (part + 1) for part in range(PARTS)]
    return {
        "engine": engine,
        "lookahead_ms": lookahead_ms,
        "audio_s": round(run.audio_s, 1),
        "parts": PARTS,
        "chunk_ms": [round(ms, 3) for ms in run.chunk_ms],
        "chunk_p99_ms": [round(ms, 3) for ms in run.chunk_p99_ms],
        "rss_mb": [round(mb, 1) for mb in run.rss_mb],
        "time": trend(ends, run.chunk_ms, "ms"),
        "memory": trend(ends, run.rss_mb[1:], "mb"),  # what the first part fills is no growth
    }


def report(
    results: Sequence[dict[str, Any]],
    non_speech: Sequence[dict[str, Any]],
    hour: Sequence[dict[str, Any]],
    *,
    baseline: str,
    device: str,
    chunk_ms: int,
    one_core: bool,
    seed: int,
) -> dict[str, Any]:
    """The JSON of the benchmark: machine, configuration, results, each beside the baseline's error rate."""
    of_baseline = {result["set"]: result["wer"] for result in results if result["engine"] == baseline}
    config = {
        "relay": relay.__version__,
        "baseline": baseline,
        "device": device,
        "chunk_ms": chunk_ms,
        "lead_ms": LEAD_MS,
        "tail_ms": TAIL_MS,
        "pad_noise_dbfs": PAD_NOISE_DBFS,
        "one_core": one_core,
        "seed": seed,
    }
    return {
        "machine": machine(),
        "config": config,
        "results": [
            {**result, "wer_to_baseline": _ratio(result["wer"], of_baseline.get(result["set"]))} for result in results
        ],
        "non_speech": list(non_speech),
        "hour": list(hour),
    }


def _listed(one: Judged) -> dict[str, Any]:
    entry = asdict(one)
    for name in ("shown_after_ms", "stable_after_ms", "start_errors_ms", "end_errors_ms"):
        entry[name] = [round(ms, 1) for ms in entry[name]]
    entry |= {
        name: _rounded(entry[name]) for name in ("audio_s", "first_partial_ms", "final_ms", "step_s", "processor_s")
    }
    return entry


def _all(lists: Iterable[Sequence[float]]) -> list[float]:
    return [x for one in lists for x in one]


def _ratio(wer: float | None, baseline_wer: float | None) -> float | None:
    return round(wer / baseline_wer, 3) if wer is not None and baseline_wer else None


def _rounded(x: float | None) -> float | None:
    return None if x is None else round(x, 4)
