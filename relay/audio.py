"""Rates, sample formats and the streaming resampler. Everything inside the server is mono int16."""

from __future__ import annotations

import functools
import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Int16Array: TypeAlias = npt.NDArray[np.int16]
Format: TypeAlias = Literal["pcm16", "g711_ulaw", "g711_alaw"]

EARS_RATE_HZ = 16_000
VOICE_RATE_HZ = 24_000
RATE_HZ: dict[Format, int] = {"pcm16": 24_000, "g711_ulaw": 8_000, "g711_alaw": 8_000}
BYTES_PER_SAMPLE: dict[Format, int] = {"pcm16": 2, "g711_ulaw": 1, "g711_alaw": 1}


def samples_in(duration_ms: int, rate_hz: int) -> int:
    """Samples in a whole number of milliseconds, exactly. Raises ValueError if it is not a whole number of samples."""
    samples, rest = divmod(duration_ms * rate_hz, 1000)
    if rest:
        raise ValueError(f"{duration_ms} ms is not a whole number of samples at {rate_hz} Hz")
    return samples


def ms_of(samples: int, rate_hz: int) -> int:
    """Milliseconds of a number of samples, rounded to nearest."""
    return (samples * 1000 + rate_hz // 2) // rate_hz


def _ulaw_table() -> Int16Array:
    """All 256 u-law codes decoded (ITU-T G.711, section 3, table 2a)."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Int16Array:
    """All 256 A-law codes decoded (ITU-T G.711, section 3, table 1a)."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent = (code >> 4) & 7
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent == 0, mantissa, (mantissa + 0x100) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_DECODE = {"g711_ulaw": _ulaw_table(), "g711_alaw": _alaw_table()}


def _encode_table(decode: Int16Array) -> npt.NDArray[np.uint8]:
    """The code whose decoded value is nearest, for every int16, indexed by value + 32768."""
    order = np.argsort(decode, kind="stable")
    levels = decode[order].astype(np.int32)
    edges = (levels[:-1] + levels[1:]) / 2
    values = np.arange(-32768, 32768)
    return order[np.searchsorted(edges, values)].astype(np.uint8)


_ENCODE = {name: _encode_table(table) for name, table in _DECODE.items()}


def decode_bytes(data: bytes, form: Format) -> Int16Array:
    """Little-endian bytes -> [samples] int16 at the format's own rate. Raises ValueError on half a sample."""
    if form == "pcm16":
        if len(data) % 2:
            raise ValueError("pcm16 audio needs an even number of bytes")
        return np.frombuffer(data, dtype="<i2")
    decoded: Int16Array = _DECODE[form][np.frombuffer(data, dtype=np.uint8)]
    return decoded


def encode_bytes(pcm: Int16Array, form: Format) -> bytes:
    """[samples] int16 at the format's own rate -> bytes on the wire (little-endian)."""
    if form == "pcm16":
        return pcm.astype("<i2", copy=False).tobytes()
    return _ENCODE[form][pcm.astype(np.int32) + 32768].tobytes()


def to_int16(x: npt.NDArray[np.floating]) -> Int16Array:
    """Float audio in [-1, 1] -> int16, clipped."""
    y: Int16Array = np.clip(np.rint(x * 32767.0), -32768, 32767).astype(np.int16)
    return y


def to_float32(pcm: Int16Array) -> npt.NDArray[np.float32]:
    """int16 -> float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768.0)


_ZERO_CROSSINGS = 16  # of the kernel on each side: with this window, 80 dB down in the stop band
_KAISER_BETA = 8.0


@functools.cache
def _kernel(up: int, down: int) -> tuple[npt.NDArray[np.float64], int]:
    """The matrix that makes `up` outputs of `down` inputs and their neighbours, and the half length of its filter.

    Windowed sinc, a column an output (Smith, "Digital Audio Resampling", section 2; Kaiser window): [width, up], where
    the first row stands half - 1 inputs before the first output's place.
    """
    cutoff = min(1.0, up / down) * 0.95
    half = math.ceil(_ZERO_CROSSINGS / cutoff)
    places = np.arange(up) * down / up
    offsets = places[None, :] - np.arange(-half + 1, math.floor(places[-1]) + half + 1)[:, None]
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1.0 - (offsets / half) ** 2))) / np.i0(_KAISER_BETA)
    kernel = np.where(np.abs(offsets) < half, np.sinc(offsets * cutoff) * window, 0.0)
    columns: npt.NDArray[np.float64] = (kernel / kernel.sum(axis=0)).astype(np.float64)
    return columns, half


class Resampler:
    """Streaming sample-rate conversion with little delay: 0.8 ms from 24 to 16 kHz.

    A windowed sinc of our own: soxr, which converts whole files well, holds back 20 to 120 ms of a stream at these
    rates. Output n stands at input time n * from_hz / to_hz. Inputs go in groups of from_hz / gcd(from_hz, to_hz),
    and every group is the same small matrix product.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._kernel, self._half = _kernel(self._up, self._down)
        self.reset()

    def reset(self) -> None:
        """Forgets the past."""
        self._held = np.zeros(self._half - 1, dtype=np.float64)
        self._taken = 0
        self._given = 0

    def step(self, pcm: Int16Array, *, last: bool = False) -> Int16Array:
        """[samples] in -> the samples that are ready; with `last`, all that remain, and the stream begins anew."""
        if self._up == self._down:
            return pcm
        self._taken += len(pcm)
        x = np.concatenate((self._held, pcm), dtype=np.float64, casting="unsafe")
        if last:
            x = np.concatenate((x, np.zeros(self._half + len(self._kernel) + self._down, dtype=np.float64)))
        width = len(self._kernel)
        groups = max(0, (len(x) - width) // self._down + 1)
        stride = x.itemsize
        windows = np.ndarray((groups, width), np.float64, x, strides=(self._down * stride, stride))
        y = (windows @ self._kernel).reshape(-1)
        np.rint(y, out=y)
        np.minimum(y, 32767.0, out=y)
        np.maximum(y, -32768.0, out=y)
        resampled: Int16Array = y.astype(np.int16)
        if last:
            resampled = resampled[: -(-self._taken * self._up // self._down) - self._given]
            self.reset()
        else:
            self._held = x[groups * self._down :]
            self._given += len(resampled)
        return resampled


class Framer:
    """Cuts a stream into frames of a fixed length on the sample clock; what does not fill a frame waits."""

    def __init__(self, frame_samples: int) -> None:
        self.frame_samples = frame_samples
        self._rest = np.empty(0, dtype=np.int16)

    def step(self, pcm: Int16Array) -> list[Int16Array]:
        """The frames completed by these samples, each [frame_samples]."""
        joined = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        whole = len(joined) // self.frame_samples * self.frame_samples
        self._rest = joined[whole:].copy()
        return [joined[at : at + self.frame_samples] for at in range(0, whole, self.frame_samples)]
