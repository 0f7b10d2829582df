"""Speech for training the ears, said by synthesisers that run in process, on as many cores as there are.

eSpeak NG (formant synthesis; many accents and voice variants) and Flite (diphones: kal16; statistical parametric voices
built from recorded people: awb, rms) are called through their C libraries. What is said, by whom and how is a function
of (seed, worker, index), so a shard can be made again (but for eSpeak's noise, which goes on from clip to clip).

    python -m relay_models.training.ears_synthesis ROOT OUT --worker 0 --kind espeak

ROOT holds `texts.xz` and `tts/` with the libraries: `libespeak-ng.so`, `espeak-ng-data/`, and Debian's
`libflite.so.1`, `libflite_cmulex.so.1`, `libflite_usenglish.so.1`, `libflite_cmu_us_*.so.1` and `libasound.so.2`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from relay_models.training.ears_data import RATE_HZ, Clips, load_texts, words

Pcm = NDArray[np.int16]

ACCENTS = ("en-us",) * 8 + ("en",) * 3 + ("en-gb-x-rp",) * 2 + (
    "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc", "en-us-nyc")  # fmt: skip
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex", "Alicia", "Andrea", "Andy",
    "Annie", "Denis", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike",
    "Nguyen", "Reed", "Tweaky", "adam", "anika", "announcer", "antonio", "aunty", "belinda", "benjamin", "boris",
    "caleb", "david", "ed", "edward", "edward2", "fast", "grandma", "grandpa", "gustave", "ian", "iven", "iven2",
    "iven3", "iven4", "john", "kaukovalta", "linda", "marcelo", "max", "michel", "miguel", "norbert", "pablo",
    "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph2", "steph3", "travis", "victor",
    "zac", "RicishayMax", "RicishayMax2", "RicishayMax3", "Storm", "Diogo",
)  # fmt: skip
HELD_OUT_VARIANTS = ("klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6")
"""eSpeak's Klatt-style voices, for judging only; the other voice for judging only is Flite's slt."""
FLITE_PITCH_HZ = {"awb": 120.0, "rms": 100.0, "kal16": 100.0, "slt": 180.0}
KINDS = ("espeak", "awb", "rms", "kal16")
"""Kinds of worker that make training speech."""

LONGEST_S = 14.3
_QUIET = 150
_PEAK = 16_000


class SynthesisError(Exception):
    """A synthesiser cannot be started, or a voice is missing."""


class Synthesiser(Protocol):
    """Says a sentence in a voice drawn from its own."""

    def say(self, text: str, chance: np.random.Generator) -> tuple[Pcm, int, str]:
        """Samples, their rate and the name of the voice."""


class Espeak:
    """eSpeak NG; one instance a process, since the library is global.

    Args:
        root: Folder of `libespeak-ng.so` and `espeak-ng-data`.
        variants: Voice variants to draw from.
        bare: Share of clips in an accent's own voice, without a variant.

    Raises:
        SynthesisError: The library or its data cannot be loaded.
    """

    _SYNCHRONOUS, _UTF8 = 2, 1
    _RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

    def __init__(self, root: Path, variants: Sequence[str] = VARIANTS, *, bare: float = 0.06) -> None:
        try:
            self._library = ctypes.CDLL(str(root / "libespeak-ng.so"))
        except OSError as error:
            raise SynthesisError(f"eSpeak NG cannot be loaded: {error}") from error
        self._rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, str(root).encode(), 0)
        if self._rate <= 0:
            raise SynthesisError(f"eSpeak NG finds no data in {root}")
        self._variants, self._bare = variants, bare
        self._pieces: list[bytes] = []
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(self._take)  # must live as long as the library may call it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, count * 2))
        return 0

    def say(self, text: str, chance: np.random.Generator) -> tuple[Pcm, int, str]:
        """See `Synthesiser`; accent, variant, rate (words a minute), pitch and its range are drawn."""
        voice = str(chance.choice(ACCENTS))
        if chance.random() >= self._bare:
            voice += "+" + str(chance.choice(self._variants))
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SynthesisError(f"eSpeak NG has no voice {voice}")
        self._library.espeak_SetParameter(self._RATE, int(chance.triangular(105, 165, 270)), 0)
        self._library.espeak_SetParameter(self._PITCH, int(chance.integers(15, 86)), 0)
        self._library.espeak_SetParameter(self._RANGE, int(chance.integers(20, 86)), 0)
        self._library.espeak_SetParameter(self._VOLUME, 60, 0)
        self._pieces.clear()
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, self._UTF8, None, None)
        return np.frombuffer(b"".join(self._pieces), np.int16), self._rate, voice


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("rate", ctypes.c_int),
        ("count", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class Flite:
    """One voice of Flite.

    Args:
        root: Folder of Flite's libraries.
        voice: A key of `FLITE_PITCH_HZ`.

    Raises:
        SynthesisError: A library is missing.
    """

    def __init__(self, root: Path, voice: str) -> None:
        try:
            for name in ("asound.so.2", "flite.so.1", "flite_cmulex.so.1", "flite_usenglish.so.1"):
                library = ctypes.CDLL(str(root / f"lib{name}"), mode=ctypes.RTLD_GLOBAL)
                self._library = library if name == "flite.so.1" else getattr(self, "_library", library)
            data = ctypes.CDLL(str(root / f"libflite_cmu_us_{voice}.so.1"))
        except OSError as error:
            raise SynthesisError(f"Flite cannot be loaded: {error}") from error
        flite = self._library
        flite.flite_init()
        flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
        flite.flite_text_to_wave.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
        flite.feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)
        flite.delete_wave.argtypes = (ctypes.POINTER(_Wave),)
        register = getattr(data, f"register_cmu_us_{voice}")
        register.restype, register.argtypes = ctypes.c_void_p, (ctypes.c_char_p,)
        self._voice = register(None)
        self._features = ctypes.cast(self._voice, ctypes.POINTER(ctypes.c_void_p))[1]  # second field of cst_voice
        self._name = voice
        self._data = data

    def say(self, text: str, chance: np.random.Generator) -> tuple[Pcm, int, str]:
        """See `Synthesiser`; pace, mean pitch and its spread are drawn."""
        settings = {
            b"duration_stretch": chance.triangular(0.75, 1.0, 1.35),
            b"int_f0_target_mean": FLITE_PITCH_HZ[self._name] * chance.uniform(0.8, 1.5),
            b"int_f0_target_stddev": chance.uniform(6, 25),
        }
        for name, value in settings.items():
            self._library.feat_set_float(self._features, name, value)
        wave = self._library.flite_text_to_wave(text.encode(), self._voice)
        samples = np.ctypeslib.as_array(wave[0].samples, (wave[0].count,)).copy()
        rate = wave[0].rate
        self._library.delete_wave(wave)
        return samples, rate, self._name


def open_synthesiser(kind: str, root: Path) -> Synthesiser:
    """A synthesiser by kind: `espeak`, `espeak-held-out`, or a Flite voice. Raises SynthesisError."""
    if kind == "espeak":
        return Espeak(root)
    if kind == "espeak-held-out":
        return Espeak(root, HELD_OUT_VARIANTS, bare=0.0)
    return Flite(root, kind)


def finish(samples: Pcm, rate_hz: int) -> Pcm | None:
    """A clip as it is stored: 16 kHz, silence trimmed to 0.1 s before and 0.15 s after, peak at half scale.

    None when there is nothing to hear, or it is too short or too long to be of use.
    """
    if len(samples) < rate_hz // 4:
        return None
    x = soxr.resample(samples.astype(np.float32), rate_hz, RATE_HZ, quality="MQ") if rate_hz != RATE_HZ else samples
    x = x.astype(np.float32)
    loud = np.flatnonzero(np.abs(x) > _QUIET)
    if not len(loud):
        return None
    x = x[max(0, loud[0] - RATE_HZ // 10) : loud[-1] + RATE_HZ * 15 // 100]
    if not RATE_HZ // 3 <= len(x) <= LONGEST_S * RATE_HZ:
        return None
    return np.rint(x * (_PEAK / np.abs(x).max())).astype(np.int16)


def synthesise(
    synthesiser: Synthesiser, texts: Sequence[str], seed: int, worker: int, *, first: int, count: int
) -> Clips:
    """Clips number `first` to `first + count` of a worker; those of no use are left out.

    Each worker goes through all sentences in an order of its own, again and again, in other voices each time.
    """
    order = np.random.default_rng((seed, worker)).permutation(len(texts))
    parts = []
    for index in range(first, first + count):
        chance = np.random.default_rng((seed, worker, index))
        text = texts[order[index % len(order)]]
        samples, rate_hz, voice = synthesiser.say(text, chance)
        clip = finish(samples, rate_hz)
        if clip is not None:
            parts.append((clip, words(text), voice))
    return Clips.join(parts)


def write_shard(clips: Clips, out: Path, name: str) -> None:
    """Writes NAME.npy and NAME.json; a reader that sees the second finds both whole."""
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / f"{name}.npy", clips.audio)
    index = {"lengths": clips.lengths, "texts": clips.texts, "names": clips.names}
    part = out / f"{name}.part"
    part.write_text(json.dumps(index), encoding="utf-8")
    part.rename(out / f"{name}.json")


def read_shard(index: Path) -> Clips:
    """Reads a shard by its .json file, and removes nothing."""
    values = json.loads(index.read_text(encoding="utf-8"))
    return Clips(np.load(index.with_suffix(".npy")), values["lengths"], values["texts"], values["names"])


def judged(synthesiser: Synthesiser, texts: Sequence[str]) -> Clips:
    """Clips for judging a voice by, one for each sentence."""
    return synthesise(synthesiser, texts, seed=1, worker=0, first=0, count=len(texts))


def main() -> None:
    """Command line: one worker, until its time is over; or a set for judging."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=(*KINDS, "slt", "espeak-held-out"), required=True)
    parser.add_argument("--judge", metavar="NAME", help="say 60 sentences of judge.xz into OUT/clips/NAME instead")
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    synthesiser = open_synthesiser(args.kind, args.root / "tts")
    if args.judge:
        clips = judged(synthesiser, load_texts(args.root / "judge.xz")[:60])
        clips.save(args.out / "clips" / args.judge, compression=0.3)
        return
    texts = load_texts(args.root / "texts.xz")
    first, shard, count = 0, 0, 64
    while time.monotonic() < end:
        started = time.monotonic()
        clips = synthesise(synthesiser, texts, args.seed, args.worker, first=first, count=count)
        write_shard(clips, args.out, f"{args.kind}-{args.worker:02}-{shard:04}")
        first, shard = first + count, shard + 1
        # Shards grow until one takes about ten seconds, so that the first ones come early.
        count = min(2 * count, max(64, int(count * 10 / (time.monotonic() - started))))


if __name__ == "__main__":
    main()
