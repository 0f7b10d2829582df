"""eSpeak NG as a voice engine, through its C library: audio from the first words on, with the time of every word.

The text is spoken in pieces. The first ends after three words or at the first punctuation mark, so that speech starts
at once; later ones end at punctuation or after at most six, then twelve words. Where a piece ends depends on the words
alone, not on how they were handed over, and every piece is synthesised from a clean start: any split of the same text
into steps gives the same audio, whatever other slots do.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
import soxr

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.errors import EngineUnavailable
from relay.textnorm import Break, break_after, speakable

# Klatt synthesis: clear, and without the random breath noise that makes other variants sound different every time.
VOICE_NAME = "en-us+benjamin"
NORMAL_WORDS_PER_MINUTE = 175
WORDS_PER_MINUTE_LIMITS = (80, 450)  # eSpeak's own

PIECE_WORDS = (3, 6, 12)  # upper bounds of the first, the second and every later piece
PIECE_COST = 110  # upper bound of a piece in letters, so that one step stays within a few milliseconds
PAUSE_SAMPLES: dict[Break, int] = {
    "": 0,
    "clause": samples_in(110, VOICE_RATE_HZ),
    "sentence": samples_in(260, VOICE_RATE_HZ),
}
_SILENCE_LEVEL = 40  # of 32768: eSpeak's own silence is exact or nearly so
_EDGE_SAMPLES = samples_in(6, VOICE_RATE_HZ)  # silence kept at the edges of a piece

# espeak-ng/speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1
_BUFFER_MS = 200
_LONGEST_DATA_PATH = 150  # bytes; the library's buffer has 160 and fails silently beyond


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Library:
    """The one eSpeak instance of this process. Its C state is global, so every use holds the lock."""

    def __init__(self) -> None:
        """Raises EngineUnavailable."""
        try:
            import espeakng_loader
        except ImportError as error:
            raise EngineUnavailable(
                "the espeak voice needs the espeakng-loader package: pip install 'relay-dialogue[baseline]'"
            ) from error
        try:
            self._c = ctypes.CDLL(espeakng_loader.get_library_path())
            data_path = _short(espeakng_loader.get_data_path())
        except (OSError, RuntimeError) as error:
            raise EngineUnavailable(f"eSpeak NG cannot be loaded ({error}): reinstall espeakng-loader") from error
        self._lock = threading.Lock()
        self._chunks: list[Int16Array] = []
        self._word_events: list[tuple[int, int]] = []
        self._callback = _Callback(self._receive)  # held here: C keeps only the bare pointer
        rate_hz = self._c.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data_path.encode(), _INITIALIZE_DONT_EXIT
        )
        if rate_hz <= 0:
            raise EngineUnavailable(f"eSpeak NG found no usable data in {data_path}: reinstall espeakng-loader")
        self.rate_hz: int = rate_hz
        self._c.espeak_SetSynthCallback(self._callback)
        if self._c.espeak_SetVoiceByName(VOICE_NAME.encode()) != 0:
            raise EngineUnavailable(f"eSpeak NG lacks the voice {VOICE_NAME}: reinstall espeakng-loader")

    def synthesise(self, text: str, words_per_minute: int) -> tuple[Int16Array, list[tuple[int, int]]]:
        """Speaks a text. Other Python threads run meanwhile.

        Returns:
            pcm: [samples] int16 at `rate_hz`.
            word_events: (index of the first character of a word in `text`, its first sample), in time order.

        Raises:
            EngineUnavailable: The library refuses.
        """
        data = text.replace("\0", " ").encode() + b"\0"
        with self._lock:
            self._chunks, self._word_events = [], []
            self._c.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
            status = self._c.espeak_Synth(
                data, ctypes.c_size_t(len(data)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
            )
            chunks, word_events = self._chunks, self._word_events
        if status != 0:
            raise EngineUnavailable(f"eSpeak NG failed with status {status}: reinstall espeakng-loader")
        return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int16), word_events

    def _receive(self, wave, samples, events) -> int:  # type: ignore[no-untyped-def]  # ctypes pointers have no usable types
        if wave and samples > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        at = 0
        while events[at].type != _EVENT_LIST_TERMINATED:
            if events[at].type == _EVENT_WORD:
                self._word_events.append((events[at].text_position - 1, events[at].sample))
            at += 1
        return 0


def _short(path: str) -> str:
    """A path to the same folder that eSpeak can hold; the link lasts as long as the process."""
    if len(os.fsencode(path)) <= _LONGEST_DATA_PATH:
        return path
    folder = tempfile.mkdtemp(prefix="relay-espeak-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = os.path.join(folder, "data")
    os.symlink(path, link)
    return link


@cache
def _library() -> _Library:
    return _Library()


_loading = threading.Lock()  # `cache` alone may run its function twice when two engines load at once


@dataclass(frozen=True, slots=True)
class _Unit:
    """A word, or a part of a word too long to be spoken in one piece.

    Attributes:
        word: The word as given; None for the later parts of one.
        spoken: What is spoken for it; may be empty.
        pause: Pause that follows.
        cost: Letters, with those of slow scripts and digits counted several times.
    """

    word: str | None
    spoken: str
    pause: Break
    cost: int


@dataclass(slots=True)
class _Reply:
    """State of one slot: what waits to be spoken, and where the reply stands."""

    waiting: deque[_Unit] = field(default_factory=deque)
    ended: bool = False
    pieces: int = 0
    position: int = 0
    pause_samples: int = 0


class EspeakRunner:
    """Runner[VoiceInput, VoiceOutput] over eSpeak NG.

    A step synthesises at most one piece, so a step that gave audio may be followed by one with empty text that gives
    more. Words without sound (emoji, lone punctuation) are reported with zero length at their place.

    Args:
        max_slots: How many slots can be open at once; one costs about a kilobyte.
    """

    max_batch = 1  # pieces are synthesised one after the other anyway; a batch would only hold the first back

    def __init__(self, *, max_slots: int = 1024) -> None:
        self.max_slots = max_slots
        self._slots: dict[int, _Reply] = {}

    def load(self) -> None:
        """Loads the library and its data. Raises EngineUnavailable."""
        with _loading:
            self._library = _library()

    def open(self, slot: int) -> None:
        """Gives a slot fresh state."""
        self._slots[slot] = _Reply()

    def close(self, slot: int) -> None:
        """Drops a slot's state."""
        del self._slots[slot]

    def unload(self) -> None:
        """Drops all slots; the library stays, for it may serve another runner of this process."""
        self._slots.clear()

    def step(self, slots: Sequence[int], xs: Sequence[VoiceInput]) -> Sequence[VoiceOutput | BaseException]:
        """Takes each slot's text and speaks its next piece, if one is complete."""
        results: list[VoiceOutput | BaseException] = []
        for slot, x in zip(slots, xs, strict=True):
            try:
                results.append(self._step(slot, x))
            except Exception as error:
                self._slots[slot] = _Reply()
                results.append(error)
        return results

    def _step(self, slot: int, x: VoiceInput) -> VoiceOutput:
        reply = self._slots[slot]
        for word in x.text.split():
            reply.waiting.extend(_units(word))
        reply.ended = reply.ended or x.final
        pcm: Int16Array = np.empty(0, dtype=np.int16)
        words: tuple[SpokenWord, ...] = ()
        while not len(pcm) and (piece := _next_piece(reply, flush=x.flush)):  # pieces without sound do not count as one
            pcm, more = self._speak(reply, piece, x.speed)
            words += more
        final = reply.ended and not reply.waiting
        if final:
            self._slots[slot] = _Reply()
        return VoiceOutput(pcm=pcm, words=words, final=final)

    def _speak(self, reply: _Reply, piece: list[_Unit], speed: float) -> tuple[Int16Array, tuple[SpokenWord, ...]]:
        text, starts_at = "", []
        for unit in piece:
            text += " " if text and unit.spoken else ""
            starts_at.append(len(text))
            text += unit.spoken
        reply.pieces += 1
        pause = max((unit.pause for unit in piece), key=PAUSE_SAMPLES.__getitem__)
        if not text:
            reply.pause_samples = max(reply.pause_samples, PAUSE_SAMPLES[pause])
            at = reply.position
            return np.empty(0, dtype=np.int16), tuple(SpokenWord(u.word, at, at) for u in piece if u.word is not None)

        # A comma makes eSpeak keep the melody up where the sentence goes on in the next piece.
        goes_on = pause == "" and not (reply.ended and not reply.waiting)
        raw, events = self._library.synthesise(text + ("," if goes_on else ""), _words_per_minute(speed))
        spoken, cut = _trimmed(soxr.resample(raw, self._library.rate_hz, VOICE_RATE_HZ, quality="HQ"))
        scale = VOICE_RATE_HZ / self._library.rate_hz
        heard = [(at, round(sample * scale) - cut) for at, sample in events]
        starts = _unit_starts(piece, starts_at, heard, len(spoken))

        lead = reply.pause_samples
        offset = reply.position + lead
        words = tuple(
            SpokenWord(unit.word, offset + start, offset + end)
            for unit, start, end in zip(piece, starts, [*starts[1:], len(spoken)], strict=True)
            if unit.word is not None
        )
        pcm = np.concatenate([np.zeros(lead, dtype=np.int16), spoken])
        reply.position += len(pcm)
        reply.pause_samples = PAUSE_SAMPLES[pause]
        return pcm, words


def _words_per_minute(speed: float) -> int:
    low, high = WORDS_PER_MINUTE_LIMITS
    return round(min(max(NORMAL_WORDS_PER_MINUTE * speed, low), high))


def _cost(text: str) -> int:
    """Letters that take as long to speak: a digit is a word, a sign of another script often a long name."""
    return sum((1 if c.isalpha() or c == " " else 6) if c.isascii() else 5 if ord(c) < 0x2E80 else 14 for c in text)


def _units(word: str) -> list[_Unit]:
    """A given word as one unit, or as several when it is too long for one piece."""
    spoken = speakable(word)
    parts: list[str] = []
    part, cost = "", 0
    for character in spoken:
        more = _cost(character)
        if cost + more > PIECE_COST:
            parts.append(part)
            part, cost = "", 0
        part += character
        cost += more
    parts.append(part)
    last = len(parts) - 1
    return [
        _Unit(word if i == 0 else None, part, break_after(word) if i == last else "", _cost(part))
        for i, part in enumerate(parts)
    ]


def _next_piece(reply: _Reply, *, flush: bool) -> list[_Unit]:
    """Takes the next piece off the waiting units; empty while its end cannot be known yet, unless it is flushed."""
    most_words = PIECE_WORDS[min(reply.pieces, len(PIECE_WORDS) - 1)]
    words = cost = 0
    length = None
    for i, unit in enumerate(reply.waiting):
        if words and cost + unit.cost > PIECE_COST:
            length = i
            break
        words += bool(unit.spoken)
        cost += unit.cost
        if unit.pause or words == most_words:
            length = i + 1
            break
    if length is None:
        length = len(reply.waiting) if reply.ended or flush else 0
    return [reply.waiting.popleft() for _ in range(length)]


def _trimmed(pcm: Int16Array) -> tuple[Int16Array, int]:
    """Audio without the silence at its edges, and how many samples went from its start."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > _SILENCE_LEVEL)
    if not len(loud):
        return pcm[:0], 0
    start = max(int(loud[0]) - _EDGE_SAMPLES, 0)
    return pcm[start : int(loud[-1]) + 1 + _EDGE_SAMPLES], start


def _unit_starts(piece: list[_Unit], starts_at: list[int], events: list[tuple[int, int]], samples: int) -> list[int]:
    """First sample of each unit of a piece, never falling, within [0, samples].

    eSpeak speaks some units as several words (the first counts) and some pairs as one (`of the`): a unit without an
    event of its own shares the time up to the next by its letters.
    """
    known: dict[int, int] = {}
    for at, sample in events:
        unit = max((i for i, start in enumerate(starts_at) if start <= at and piece[i].spoken), default=0)
        known.setdefault(unit, min(max(sample, 0), samples))
    anchors = sorted({0: 0, **known, len(piece): samples}.items())
    starts = [0] * len(piece)
    latest = 0
    for (first, begin), (after, end) in pairwise(anchors):
        begin = max(begin, latest)
        weights = [len(unit.spoken) for unit in piece[first:after]]
        total = sum(weights) or 1
        done = 0
        for i, weight in enumerate(weights, start=first):
            starts[i] = latest = begin + max(end - begin, 0) * done // total
            done += weight
    return starts
