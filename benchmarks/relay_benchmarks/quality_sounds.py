"""What a recogniser should not turn into words: silence, noise, music-like tones, babble, languages it does not know.

All made on the spot from a seed; the speech among it by eSpeak NG, whose breath varies by a hair from run to run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from relay.audio import EARS_RATE_HZ, Int16Array
from relay_benchmarks.espeak import Spoken
from relay_benchmarks.quality_set import SENTENCES, spoken_at_ears_rate

Float = NDArray[np.float64]

NOISE_DBFS = -30.0
SPEECH_DBFS = -26.0
BABBLE_VOICES = ("en-us", "en-us+f2", "en-gb-x-rp", "en-us+m3", "en-us+f4", "en-us+m7", "en-us+edward", "en-us+michael")
FOREIGN = (
    ("de", "Könnten Sie mir bitte sagen, wann der nächste Zug nach Hamburg abfährt und ob ich umsteigen muss?"),
    ("fr", "Je voudrais réserver une table pour quatre personnes demain soir, si possible près de la fenêtre."),
    ("es", "Ayer por la tarde fuimos al mercado y compramos fruta, pan fresco y un poco de queso de cabra."),
    ("it", "Domani mattina partiamo presto perché la strada per le montagne è lunga e piena di curve."),
    ("pl", "Proszę mi powiedzieć, gdzie jest najbliższa apteka i o której godzinie ją otwierają."),
)
_CHORDS = ((0, 4, 7), (-3, 0, 4), (5, 9, 12), (7, 11, 14))  # semitones from A3: I, vi, IV, V
_A3_HZ = 220.0
_BEAT_S = 0.5


def non_speech(seconds: float, seed: int) -> dict[str, Int16Array]:
    """[samples] int16 at 16 kHz of every kind, that long each. Raises EngineUnavailable."""
    samples = max(1, round(seconds * EARS_RATE_HZ))
    rng = np.random.default_rng([seed, 2])
    made: dict[str, Callable[[], Int16Array]] = {
        "silence": lambda: np.zeros(samples, dtype=np.int16),
        "white noise": lambda: _at(NOISE_DBFS, rng.standard_normal(samples)),
        "pink noise": lambda: _at(NOISE_DBFS, pink(samples, rng)),
        "tones": lambda: _at(SPEECH_DBFS, chords(samples)),
        "babble": lambda: _at(SPEECH_DBFS, babble(samples, rng)),
        "foreign speech": lambda: _at(SPEECH_DBFS, foreign(samples)),
    }
    return {kind: make() for kind, make in made.items()}


def pink(samples: int, rng: np.random.Generator) -> Float:
    """[samples] noise whose power falls by 3 dB an octave, above 20 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    hz = np.fft.rfftfreq(samples, 1 / EARS_RATE_HZ)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(hz, 20.0)), samples)


def chords(samples: int) -> Float:
    """[samples] of four chords of plucked harmonic tones, over and over: music without a voice."""
    beat = round(_BEAT_S * EARS_RATE_HZ)
    time_s = np.arange(beat) / EARS_RATE_HZ
    decay = np.exp(-3.0 * time_s) * np.minimum(1.0, time_s / 0.005)
    beats = []
    for chord in _CHORDS:
        tones = [_A3_HZ * 2 ** (semitone / 12) for semitone in (chord[0] - 12, *chord)]
        beats.append(decay * sum(np.sin(2 * np.pi * k * hz * time_s) / k for hz in tones for k in range(1, 7)))
    return np.resize(np.concatenate(np.repeat(beats, 2, axis=0)), samples)


def babble(samples: int, rng: np.random.Generator) -> Float:
    """[samples] of eight voices speaking at once, each from a place of its own. Raises EngineUnavailable."""
    texts = [[SENTENCES[int(i)] for i in rng.permutation(len(SENTENCES))[:3]] for _ in BABBLE_VOICES]
    voices = [Spoken(" ".join(some), voice) for some, voice in zip(texts, BABBLE_VOICES, strict=True)]
    mixed = np.zeros(samples)
    for one in spoken_at_ears_rate(voices):
        mixed += np.resize(np.roll(one, int(rng.integers(len(one)))), samples)
    return mixed


def foreign(samples: int) -> Float:
    """[samples] of sentences in five languages, one after the other. Raises EngineUnavailable."""
    said = spoken_at_ears_rate([Spoken(text, voice) for voice, text in FOREIGN])
    return np.resize(np.concatenate(said), samples).astype(np.float64)


def _at(level_dbfs: float, x: Float) -> Int16Array:
    """Audio whose root mean square is that far below full scale."""
    rms = np.sqrt(np.mean(x**2)) if len(x) else 0.0
    scaled = x * (32768.0 * 10 ** (level_dbfs / 20) / max(float(rms), 1e-12))
    clipped: Int16Array = np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)
    return clipped
