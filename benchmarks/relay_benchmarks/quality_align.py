"""When each word of a recording is said, by forced alignment: one clock for all recognisers.

A recogniser's own word times say how late it believes it was. Where a manifest has none, PocketSphinx' acoustic model
places the known text in the audio, whichever recogniser is then judged.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from relay.errors import EngineUnavailable
from relay_benchmarks.quality_set import LEAD_MS, Recording, RecordingSet, TimedWord
from relay_benchmarks.quality_text import scored_words

ALIGNED = "alignment"

_FRAME_S = 0.01
_VARIANT = re.compile(r"\(\d+\)$")  # `a(2)`: the second way to say it


def aligned(recordings: RecordingSet) -> RecordingSet:
    """The same set with word times wherever they can be found.

    A recording without them keeps none when its text holds a word that the dictionary lacks, or does not fit its audio.

    Args:
        recordings: The set.

    Raises:
        EngineUnavailable: PocketSphinx is not installed.
        AudioFileError: A recording cannot be read.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise EngineUnavailable("--align needs pocketsphinx: pip install 'relay-dialogue[baseline]'") from error
    decoder = Decoder(lm=None, loglevel="FATAL")
    done = []
    for recording in recordings.recordings:
        words = recording.words or _align(decoder, recording)
        by = recording.words_by if recording.words else ALIGNED
        done.append(replace(recording, words=words, words_by=by))
    return replace(recordings, recordings=tuple(done))


def _align(decoder: Any, recording: Recording) -> tuple[TimedWord, ...]:
    """Times of all words, in seconds of the recording without its padding; none when there is no way."""
    said = scored_words(recording.text)
    if not said or any(decoder.lookup_word(word) is None for word in said):
        return ()
    decoder.set_align_text(" ".join(said))
    decoder.start_utt()
    decoder.process_raw(recording.padded().tobytes(), full_utt=True)
    decoder.end_utt()
    found = []
    for part in decoder.seg() or ():
        text = _VARIANT.sub("", part.word)
        if not text.startswith("<"):
            start_s, end_s = part.start_frame * _FRAME_S, (part.end_frame + 1) * _FRAME_S
            found.append(TimedWord(text, start_s - LEAD_MS / 1000, end_s - LEAD_MS / 1000))
    return tuple(found) if [word.text for word in found] == said else ()
