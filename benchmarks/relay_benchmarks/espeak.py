"""Speakers for the benchmarks: eSpeak NG in a process of its own, with many voices.

The library has one global state a process, and the process of a benchmark or of a test may hold the voice engine too.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import soxr

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.errors import EngineUnavailable

# espeak-ng/speak_lib.h
_SYNCHRONOUS, _DONT_EXIT, _CHARACTERS, _UTF8 = 2, 0x8000, 1, 1
_RATE, _PITCH = 1, 3
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text and who says it.

    Attributes:
        text: The text.
        voice: Name of an eSpeak voice, with a variant after `+`.
        words_per_minute: 80 to 450.
        pitch: 0 to 99; 50 is the voice's own.
    """

    text: str
    voice: str = "en-us"
    words_per_minute: int = 165
    pitch: int = 50


def speak(texts: Sequence[Spoken]) -> list[Int16Array]:
    """[samples] int16 at 24 kHz of every text. Raises EngineUnavailable when eSpeak NG cannot run."""
    with speaking() as say:
        return [say(text) for text in texts]


@contextlib.contextmanager
def speaking() -> Iterator[Callable[[Spoken], Int16Array]]:
    """Says one text after another for as long as the block lasts, as `speak` does."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield lambda spoken: process.submit(_speak, spoken).result()


def _speak(spoken: Spoken) -> Int16Array:
    library, rate_hz = _library()
    pieces: list[Int16Array] = []

    def take(wave, samples, events) -> int:  # type: ignore[no-untyped-def]  # ctypes pointers have no usable types
        if wave and samples > 0:
            pieces.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        return 0

    callback = _Callback(take)  # C keeps only a bare pointer: the name keeps it alive until the call is over
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(spoken.voice.encode()):
        raise EngineUnavailable(f"eSpeak NG has no voice {spoken.voice}; reinstall espeakng-loader")
    library.espeak_SetParameter(_RATE, spoken.words_per_minute, 0)
    library.espeak_SetParameter(_PITCH, spoken.pitch, 0)
    data = spoken.text.encode() + b"\0"
    status = library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _CHARACTERS, 0, _UTF8, None, None)
    if status or not pieces:
        raise EngineUnavailable(f"eSpeak NG failed with status {status}; reinstall espeakng-loader")
    pcm: Int16Array = soxr.resample(np.concatenate(pieces), rate_hz, VOICE_RATE_HZ)
    return pcm


@functools.cache
def _library() -> tuple[ctypes.CDLL, int]:
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = espeakng_loader.get_data_path()
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineUnavailable(
            "the benchmark speaks through eSpeak NG: pip install 'relay-dialogue[baseline]'"
        ) from error
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data_path).encode(), _DONT_EXIT)
    if rate_hz <= 0:
        raise EngineUnavailable("eSpeak NG finds no data; reinstall espeakng-loader")
    return library, rate_hz
