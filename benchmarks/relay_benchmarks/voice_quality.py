"""The quality benchmark of the voices: how well understood, how like the speaker, how soon and how cheaply they speak.

Every voice says the same sentences in the same run, word by word. Where there are recordings of a speaker saying them,
the recordings are heard by the same recogniser, and each sentence is compared with its recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

import relay
from relay.audio import EARS_RATE_HZ, VOICE_RATE_HZ, Int16Array
from relay.client.files import load
from relay.client.timing import speech_bounds
from relay_benchmarks.latency import machine
from relay_benchmarks.quality_align import aligned
from relay_benchmarks.quality_set import Recording, RecordingSet
from relay_benchmarks.quality_text import WordErrors, scored_words, word_errors
from relay_benchmarks.summary import distribution
from relay_benchmarks.voice_measures import Likeness, Seam, likeness, seam
from relay_benchmarks.voices import Speech, Voice, speak

NO_SOUND: Int16Array = np.empty(0, dtype=np.int16)
CLOSE_MS = 50.0
"""Word starts nearer to the aligner's than this count as right."""
_FEWEST_WORDS = 4
"""Of a sentence with a seam in its middle."""


@dataclass(frozen=True, slots=True)
class Seams:
    """What is at the place where the second half of a sentence joins the first.

    Attributes:
        equal: Whether the sentence is the same, sample by sample, given word by word and given whole.
        whole: In the sentence spoken in one go, at the first word of its second half.
        flushed: Where the first half was ended early, as a reply of its own, before the words after it were known.
        longer_ms: By how much that made the sentence longer.
    """

    equal: bool
    whole: Seam
    flushed: Seam
    longer_ms: float


@dataclass(slots=True)
class Said:
    """One sentence by one voice.

    Attributes:
        recording: The sentence, with the speaker's recording where there is one.
        speech: What the voice made of it.
        seams: None when the sentence is too short, or nothing was said.
        likeness: To the recording; None without one.
        heard: What the recogniser understood.
        errors: The edits between that and the text.
        start_errors_ms: For each word that could be aligned, its start less the aligner's.
    """

    recording: Recording
    speech: Speech
    seams: Seams | None = None
    likeness: Likeness | None = None
    heard: str = ""
    errors: WordErrors = field(default_factory=WordErrors)
    start_errors_ms: list[float] = field(default_factory=list)

    def at_ears_rate(self) -> Recording:
        """The speech as a recording, for a recogniser."""
        return replace(self.recording, source=at_ears_rate(self.speech.pcm), words=())

    def hear(self, text: str) -> None:
        """Takes what a recogniser understood."""
        self.heard, self.errors = text, word_errors(self.recording.text, text)


def at_ears_rate(pcm: Int16Array) -> Int16Array:
    """[samples] int16 at 24 kHz -> at 16 kHz."""
    resampled: Int16Array = soxr.resample(pcm, VOICE_RATE_HZ, EARS_RATE_HZ)
    return resampled


def real_at_ears_rate(recording: Recording) -> Recording:
    """The speaker's recording on the way that speech takes to a recogniser, by 24 kHz. Raises AudioFileError."""
    assert isinstance(recording.source, Path)
    return replace(recording, source=at_ears_rate(load(recording.source, VOICE_RATE_HZ)))


def say(voice: Voice, recording: Recording) -> Said:
    """Speaks a sentence and compares it with its recording. Raises AudioFileError, and what the voice raises."""
    said = Said(recording, speak(voice, recording.text))
    if not len(said.speech.pcm):
        return said
    said.seams = seams(voice, recording.text, said.speech)
    if isinstance(recording.source, Path):
        real = load(recording.source, VOICE_RATE_HZ)
        if said.speech.pcm.any() and real.any():
            said.likeness = likeness(_trimmed(said.speech.pcm), _trimmed(real))
    return said


def seams(voice: Voice, text: str, by_words: Speech) -> Seams | None:
    """Looks at the middle of a sentence that has been spoken word by word. Raises what the voice raises."""
    words = text.split()
    half = len(words) // 2
    whole = speak(voice, text, at_once=True)
    place = whole.words[half].start_sample if len(words) >= _FEWEST_WORDS else 0
    first, second = (speak(voice, " ".join(part)) for part in (words[:half], words[half:]))
    if not place or not len(first.pcm) or not len(second.pcm):
        return None
    flushed = np.concatenate([first.pcm, second.pcm])
    try:
        found = seam(whole.pcm, place), seam(flushed, len(first.pcm))
    except ValueError:  # a half that is shorter than a frame
        return None
    longer_ms = (len(flushed) - len(whole.pcm)) * 1000 / VOICE_RATE_HZ
    return Seams(np.array_equal(whole.pcm, by_words.pcm), *found, longer_ms)


def time_words(said: Sequence[Said]) -> None:
    """Compares word starts with those of forced alignment. Raises EngineUnavailable.

    Left out are sentences that the aligner cannot place, or whose words are read otherwise alone than together.
    """
    spoken = RecordingSet("spoken", tuple(one.at_ears_rate() for one in said))
    for one, recording in zip(said, aligned(spoken).recordings, strict=True):
        parts = [scored_words(word.text) for word in one.speech.words]
        if [part for words in parts for part in words] != [word.text for word in recording.words]:
            continue
        at = 0
        for word, part in zip(one.speech.words, parts, strict=True):
            if part:
                start_ms = word.start_sample * 1000 / VOICE_RATE_HZ
                one.start_errors_ms.append(start_ms - recording.words[at].start_s * 1000)
            at += len(part)


def _trimmed(pcm: Int16Array) -> Int16Array:
    first, last = speech_bounds(pcm)
    return pcm[first : last + 1]


# --------------------------------------------------------------------------------------------------------------- report


def summarise(engine: str, device: str, recordings: RecordingSet, said: Sequence[Said]) -> dict[str, Any]:
    """The `results` entry of one voice."""
    errors = sum((one.errors for one in said), WordErrors())
    audio_s = sum(one.speech.audio_s for one in said)
    first = [one.speech for one in said if one.speech.first_audio_ms is not None]
    starts = [error for one in said for error in one.start_errors_ms]
    alike = [one.likeness for one in said if one.likeness is not None]
    joints = [one.seams for one in said if one.seams is not None]
    return {
        "part": "voice",
        "engine": engine,
        "device": device,
        "set": recordings.name,
        "sentences": len(said),
        "audio_s": round(audio_s, 2),
        "wer": rounded(errors.rate),
        **asdict(errors),
        "mel_cepstral_distance_db": _mean(one.distortion_db for one in alike),
        "pitch_correlation": _mean(one.pitch_correlation for one in alike),
        "pitch_error_semitones": _mean(one.pitch_semitones for one in alike),
        "length_ratio": _mean(one.length_ratio for one in alike),
        "first_audio_ms": distribution([s.first_audio_ms for s in first if s.first_audio_ms is not None]),
        "first_audio_words": distribution([float(speech.first_audio_words) for speech in first]),
        "rtf": rounded(sum(one.speech.step_s for one in said) / audio_s) if audio_s else None,
        "timed_words": len(starts),
        "word_start_error_ms": distribution([abs(error) for error in starts]),
        "word_start_bias_ms": rounded(float(np.median(starts))) if starts else None,
        "word_starts_close": rounded(sum(abs(error) <= CLOSE_MS for error in starts) / len(starts)) if starts else None,
        "seams": {
            "sentences": len(joints),
            "given_by_words_equal": _mean(float(one.equal) for one in joints),
            "whole": _seam([one.whole for one in joints]),
            "flushed_early": {
                **_seam([one.flushed for one in joints]),
                "longer_ms": _mean(one.longer_ms for one in joints),
            },
        },
        "sentence_list": [_listed(one) for one in said],
    }


def summarise_real(recordings: RecordingSet, heard: Sequence[str]) -> dict[str, Any]:
    """The `real` entry: the speaker's own recordings, heard by the same recogniser."""
    each = [word_errors(one.text, text) for one, text in zip(recordings.recordings, heard, strict=True)]
    errors = sum(each, WordErrors())
    return {
        "set": recordings.name,
        "recordings": len(each),
        "wer": rounded(errors.rate),
        **asdict(errors),
        "recording_list": [
            {"name": one.name, "text": one.text, "heard": text}
            for one, text in zip(recordings.recordings, heard, strict=True)
        ],
    }


def report(
    results: Sequence[dict[str, Any]],
    real: Sequence[dict[str, Any]],
    crowds: Sequence[dict[str, Any]],
    *,
    baseline: str,
    recogniser: str,
    device: str,
    one_core: bool,
) -> dict[str, Any]:
    """The JSON of the benchmark: machine, configuration, results, each beside the error rate of the recordings."""
    of_real = {entry["set"]: entry["wer"] for entry in real}
    return {
        "machine": machine(),
        "config": {
            "relay": relay.__version__,
            "baseline": baseline,
            "recogniser": recogniser,
            "device": device,
            "one_core": one_core,
            "close_ms": CLOSE_MS,
        },
        "results": [{**result, "wer_to_real": _ratio(result["wer"], of_real.get(result["set"]))} for result in results],
        "real": list(real),
        "crowds": list(crowds),
    }


def rounded(x: float | None) -> float | None:
    """To four digits behind the point."""
    return None if x is None else round(x, 4)


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return rounded(float(np.mean(known))) if known else None


def _seam(found: Sequence[Seam]) -> dict[str, float | None]:
    return {
        "flux_db": _mean(one.flux_db for one in found),
        "pitch_jump_semitones": _mean(one.pitch_jump_semitones for one in found),
    }


def _listed(one: Said) -> dict[str, Any]:
    return {
        "name": one.recording.name,
        "text": one.recording.text,
        "heard": one.heard,
        **asdict(one.errors),
        "audio_s": rounded(one.speech.audio_s),
        "first_audio_ms": rounded(one.speech.first_audio_ms),
        "step_s": rounded(one.speech.step_s),
        "likeness": asdict(one.likeness) if one.likeness else None,
        "start_errors_ms": [round(error, 1) for error in one.start_errors_ms],
    }


def _ratio(wer: float | None, real: float | None) -> float | None:
    return round(wer / real, 3) if wer is not None and real else None
