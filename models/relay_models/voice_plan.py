"""One reply's way from words to frames: which words are encoded when, how long they last, which frames come next.

Plain data and numpy, so that every runner shares it. Nothing here depends on how the words were handed over: a word is
encoded from itself, the words before it and at most one after it, and frames are taken `STEP_FRAMES` at a time, so the
same windows and the same steps follow from the same words, whatever the split.

How far ahead a sound looks: word 0 sees itself only, so that its sound can follow it at once. Every other word sees
the next one, and a sample depends on `DELAY_FRAMES` frames after it, which lie within the next word, since no word is
shorter. A sample of word i therefore depends on words up to i + 2, and never on what follows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relay_models.loading import WeightsError, read_config
from relay_models.phonemes import END_ID, PAD_ID

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

CONTEXT_WORDS = 4
"""Words before a word that it sees."""
LOOKAHEAD_WORDS = 1
"""Words after a word that it sees; none for the first word."""
PLACES = CONTEXT_WORDS + 1 + LOOKAHEAD_WORDS
"""Kinds of place that a word can have in a window."""
HOP_SAMPLES = 240
STEP_FRAMES = 8
"""Frames of a step: 80 ms."""
DELAY_FRAMES = 3
"""Frames by which samples lag behind frames; `vocoder.DELAY_FRAMES`."""
POSITIONS = 3
"""Values that tell a frame where in its phoneme it is."""
LONGEST_FRAMES = 120
"""Bound of a phoneme's or a pause's length."""
ENCODE, SPEAK = "encode.onnx", "speak.onnx"
"""Graphs of an exported voice; see `voice_export`."""


class Window(NamedTuple):
    """What a word is encoded from.

    Attributes:
        ids: [symbols] int64.
        places: [symbols] int64, number of each symbol's word: CONTEXT_WORDS for the word itself.
        begin, end: The word's own symbols are ids[begin:end].
    """

    ids: Ints
    places: Ints
    begin: int
    end: int


class Frames(NamedTuple):
    """Input of a step.

    Attributes:
        vectors: [STEP_FRAMES, size] of the symbol that each frame belongs to.
        positions: [STEP_FRAMES, POSITIONS]; see `positions_of`.
        valid: [STEP_FRAMES] bool, false behind the end.
        skip, keep: Of the samples that come out, `keep` count, from number `skip` on.
    """

    vectors: Floats
    positions: Floats
    valid: NDArray[np.bool_]
    skip: int
    keep: int


@dataclass(frozen=True, slots=True)
class WordTime:
    """Where a word is heard, without the pause after it.

    Attributes:
        word: Number of the word.
        start_sample, end_sample: Samples at 24 kHz from the beginning; the second is one past the last.
    """

    word: int
    start_sample: int
    end_sample: int


def window_of(words: Sequence[Sequence[int]], number: int) -> Window:
    """Window of word `number` among `words`, which are all that are known of the reply."""
    first = max(0, number - CONTEXT_WORDS)
    last = number + (LOOKAHEAD_WORDS if number else 0)
    shown = range(first, min(last + 1, len(words)))
    ids = np.array([i for word in shown for i in words[word]], np.int64)
    places = np.array([word - number + CONTEXT_WORDS for word in shown for _ in words[word]], np.int64)
    begin = sum(len(words[word]) for word in range(first, number))
    return Window(ids, places, begin, begin + len(words[number]))


def padded(windows: Sequence[Window]) -> tuple[Ints, Ints]:
    """Ids and places of several windows, [windows, most symbols] both; `PAD_ID` where one is shorter."""
    width = max(len(window.ids) for window in windows)
    ids = np.full((len(windows), width), PAD_ID, np.int64)
    places = np.zeros((len(windows), width), np.int64)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        places[row, : len(window.ids)] = window.places
    return ids, places


def whole_frames(lengths: Floats, *, speed: float, first: bool) -> Ints:
    """Lengths of a word's symbols in whole frames: [symbols] predicted frames -> [symbols] int64, each at least 1.

    Rounding is carried from symbol to symbol. The first word lasts a step at least, so that the first step can follow
    it at once; every other one lasts as long as a sample looks ahead. What is missing is added to the last symbol.
    """
    exact = np.clip(np.asarray(lengths, np.float64) / speed, 1, LONGEST_FRAMES)
    ends = np.rint(np.cumsum(exact)).astype(np.int64)
    counts = np.diff(ends, prepend=0)
    counts[-1] += max(0, (STEP_FRAMES if first else DELAY_FRAMES) - int(counts.sum()))
    return counts


def positions_of(counts: Ints) -> Floats:
    """Where frames are in their symbols: counts [symbols] -> [frames, POSITIONS] float32.

    The share of the symbol that is over, frames since its beginning and frames to its end (in tenths, up to 2).
    """
    whole = np.repeat(counts, counts)
    inside = np.arange(len(whole)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = ((inside + 0.5) / whole, np.minimum(inside, 20) / 10, np.minimum(whole - 1 - inside, 20) / 10)
    return np.stack(columns, axis=1).astype(np.float32)


def word_time(number: int, start_frame: int, counts: Ints) -> WordTime:
    """When word `number` is heard: its symbols last `counts` frames from `start_frame` on; the last one is a pause."""
    spoken = int(counts[:-1].sum()) if len(counts) > 1 else int(counts.sum())
    return WordTime(number, start_frame * HOP_SAMPLES, (start_frame + spoken) * HOP_SAMPLES)


class VoicePlan:
    """A reply as far as it is known. `copy` makes another one that goes its own way.

    Args:
        size: Length of a symbol's vector.
        speed: Speaking rate relative to the voice's own.

    Attributes:
        times: Words whose frames are known, in order.
    """

    def __init__(self, size: int, *, speed: float = 1.0) -> None:
        self.times: list[WordTime] = []
        self._speed = speed
        self._words: list[tuple[int, ...]] = []
        self._finished = False
        self._flushed = 0
        self._encoded = 0
        self._vectors: Floats = np.zeros((0, size), np.float32)
        self._positions: Floats = np.zeros((0, POSITIONS), np.float32)
        self._known = 0
        self._taken = 0

    def copy(self) -> VoicePlan:
        """A plan at the same place."""
        twin = copy.copy(self)
        twin.times, twin._words = list(self.times), list(self._words)
        return twin

    def push(self, ids: Sequence[int]) -> None:
        """Takes the next word, its boundary or pause included. Raises ValueError when it is empty or after `finish`."""
        if self._finished or not len(ids):
            raise ValueError("a word needs symbols" if not self._finished else "the reply is finished")
        self._words.append(tuple(int(i) for i in ids))

    def finish(self) -> None:
        """Says that no word follows. Without any word there is nothing to be heard."""
        if not self._finished and self._words:
            self._words.append((END_ID,))
        self._finished = True

    def flush(self) -> None:
        """Lets the words that are known be encoded without those that follow them; what comes later joins as ever."""
        self._flushed = len(self._words)

    @property
    def samples(self) -> int:
        """Samples that the frames known so far give, in all."""
        return self._known * HOP_SAMPLES

    @property
    def done(self) -> bool:
        """Whether all is finished and taken."""
        return self._finished and self._encoded == len(self._words) and self._taken >= self._needed()

    def window(self) -> Window | None:
        """The next word's window, or None while none can be encoded; goes on with `encoded`."""
        number = self._encoded
        if number >= len(self._words):
            return None
        is_shown = number + LOOKAHEAD_WORDS < len(self._words)
        waits = number >= max(1, self._flushed) and not is_shown and not self._finished
        return None if waits else window_of(self._words, number)

    def encoded(self, vectors: Floats, lengths: Floats) -> None:
        """Takes what the encoder made of the window's own word.

        Args:
            vectors: [symbols, size].
            lengths: [symbols], in frames, at the voice's own speed.
        """
        number, word = self._encoded, self._words[self._encoded]
        counts = whole_frames(lengths, speed=self._speed, first=number == 0)
        if word != (END_ID,):
            self.times.append(word_time(number, self._known, counts))
        self._vectors = np.concatenate((self._vectors, np.repeat(np.asarray(vectors), counts, axis=0)))
        self._positions = np.concatenate((self._positions, positions_of(counts)))
        self._known += int(counts.sum())
        self._encoded += 1

    def take(self) -> Frames | None:
        """The next step's frames, or None while there are too few. Shorter only at the end, where nothing follows."""
        ended = self._finished and self._encoded == len(self._words)
        here = min(STEP_FRAMES, len(self._vectors))
        if self.done or (here < STEP_FRAMES and not ended):
            return None
        vectors, positions = self._vectors[:here], self._positions[:here]
        if here < STEP_FRAMES:  # only at the end: padding takes longer than all else here
            missing = ((0, STEP_FRAMES - here), (0, 0))
            vectors, positions = np.pad(vectors, missing), np.pad(positions, missing)
        self._vectors, self._positions = self._vectors[here:], self._positions[here:]
        first = (self._taken - DELAY_FRAMES) * HOP_SAMPLES
        self._taken += STEP_FRAMES
        last = (self._taken - DELAY_FRAMES) * HOP_SAMPLES
        skip = max(0, -first)
        keep = min(last, self.samples) - (first + skip) if ended else last - (first + skip)
        return Frames(vectors, positions, np.arange(STEP_FRAMES) < here, skip, keep)

    def _needed(self) -> int:
        """Frames that have to be taken for all samples to come out."""
        return self._known + DELAY_FRAMES if self._known else 0


def fresh_memory(folder: Path, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`memory` and `counters` of `rows` fresh streams of an exported voice. Raises WeightsError."""
    config = read_config(folder)
    try:
        memory, counters = config["memory"], config["counters"]
    except KeyError as error:
        raise WeightsError(f"config.json of {folder.name} is not that of an exported voice") from error
    return np.zeros((rows, memory), np.float32), np.zeros((rows, counters), np.int64)
