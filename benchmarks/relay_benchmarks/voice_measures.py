"""How alike two sayings of one sentence sound, by figures that need no listener: spectra, pitch, and what is at a seam.

Frames lie 10 ms apart, in the middle of hops of `HOP_SAMPLES` at 24 kHz. numpy alone.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in

Float = NDArray[np.float64]
Ints = NDArray[np.int64]

HOP_SAMPLES = samples_in(10, VOICE_RATE_HZ)
CEPSTRA = 13
"""Mel-cepstral coefficients that are compared, from the first on: without the zeroth, which is loudness."""
SEAM_MS = 30
"""To each side of a seam, how much is looked at."""
LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0

_WINDOW_SAMPLES, _TRANSFORM_SAMPLES = samples_in(25, VOICE_RATE_HZ), 1024
_BANDS, _TOP_HZ = 40, 8_000.0
_FLOOR = 1e-4
"""Of a band's magnitude, against the loudest band of all: -80 dB."""
_PITCH_SAMPLES = samples_in(25, VOICE_RATE_HZ)
_APERIODIC = 0.2
"""YIN's threshold: a frame whose smallest normalised difference is above it is unvoiced."""
_QUIET = 10 ** (-40 / 20)
"""Of the loudest frame: what is quieter is unvoiced."""
_FEWEST_FRAMES = 20


def _frames(samples: Float, width: int) -> Float:
    """Stretches of `width` around the middle of every hop: [samples] -> [hops, width]."""
    side = (width - HOP_SAMPLES) // 2
    padded = np.pad(samples, (side, width))
    return np.lib.stride_tricks.sliding_window_view(padded, width)[::HOP_SAMPLES][: len(samples) // HOP_SAMPLES]


@functools.cache
def _bands() -> Float:
    """Triangular filters, equally wide on the mel scale of 2595 log10(1 + f / 700): [bins, bands]."""
    top = 2595 * math.log10(1 + _TOP_HZ / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_TRANSFORM_SAMPLES, 1 / VOICE_RATE_HZ)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)).clip(min=0)
    filters: Float = triangles / triangles.sum(axis=0)
    return filters


def log_bands(pcm: Int16Array) -> Float:
    """Natural logarithms of mel bands' magnitudes: [samples] int16 at 24 kHz -> [hops, bands]."""
    window = np.hanning(_WINDOW_SAMPLES)
    magnitudes = np.abs(np.fft.rfft(_frames(pcm / 32768, _WINDOW_SAMPLES) * window, _TRANSFORM_SAMPLES)) @ _bands()
    logarithms: Float = np.log(np.maximum(magnitudes, _FLOOR * max(magnitudes.max(initial=0), 1e-9)))
    return logarithms


def mel_cepstra(pcm: Int16Array) -> Float:
    """Coefficients 1 to `CEPSTRA` of ln|S| = c0 + sum of c_m cos(m w), w on the mel scale: [hops, CEPSTRA]."""
    order = np.arange(1, CEPSTRA + 1)
    basis = np.cos(np.pi * (np.arange(_BANDS)[:, None] + 0.5) * order / _BANDS)
    return log_bands(pcm) @ basis * (2 / _BANDS)


def warped(one: Float, other: Float) -> tuple[Ints, Ints]:
    """Dynamic time warping (Sakoe and Chiba 1978): the pairs of frames along the cheapest path.

    Args:
        one, other: [frames, values], compared by Euclidean distance; both with a frame at least.

    Returns:
        Frame numbers of the first and of the second, [steps] each.
    """
    cost = np.sqrt(np.maximum(((one[:, None] - other[None]) ** 2).sum(axis=2), 0))
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        before = np.minimum(np.minimum(total[row, column], total[row, column + 1]), total[row + 1, column])
        total[row + 1, column + 1] = before + cost[row, column]
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        row, column = path[-1]
        steps = ((row - 1, column - 1), (row - 1, column), (row, column - 1))
        path.append(min((step for step in steps if min(step) >= 0), key=lambda step: total[step[0] + 1, step[1] + 1]))
    first, second = np.array(path[::-1]).T
    return first, second


def pitch_hz(pcm: Int16Array) -> Float:
    """Pitch of every hop in Hz, nan where there is none: [samples] int16 at 24 kHz -> [hops].

    YIN (de Cheveigne and Kawahara 2002), steps 1 to 5: the first lag at which the normalised difference dips below a
    threshold, between samples by a parabola; then the median over five frames.
    """
    longest, shortest = int(VOICE_RATE_HZ / LOWEST_HZ), int(VOICE_RATE_HZ / HIGHEST_HZ)
    frames = _frames(pcm / 32768, _PITCH_SAMPLES + longest + 1)
    if not len(frames):
        return np.zeros(0)
    base = frames[:, :_PITCH_SAMPLES]
    size = 1 << (frames.shape[1] + _PITCH_SAMPLES - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(base, size).conj() * np.fft.rfft(frames, size), size)[:, : longest + 2]
    squares = np.pad(np.cumsum(frames**2, axis=1), ((0, 0), (1, 0)))
    energy = squares[:, _PITCH_SAMPLES:] - squares[:, : longest + 2]
    difference = np.maximum(energy[:, :1] + energy - 2 * products, 0)
    lags = np.arange(1, longest + 2)
    normal = np.ones_like(difference)
    normal[:, 1:] = difference[:, 1:] * lags / np.maximum(np.cumsum(difference[:, 1:], axis=1), 1e-12)
    level = np.sqrt(energy[:, 0] / _PITCH_SAMPLES)
    found = np.full(len(frames), np.nan)
    for number in np.flatnonzero(level > _QUIET * level.max()):
        row = normal[number]
        below = np.flatnonzero(row[shortest:longest] < _APERIODIC)
        if len(below):
            lag = shortest + int(below[0])
            while lag < longest and row[lag + 1] < row[lag]:
                lag += 1
            left, middle, right = row[lag - 1], row[lag], row[min(lag + 1, longest)]
            bend = left + right - 2 * middle
            found[number] = VOICE_RATE_HZ / (lag + (0.5 * (left - right) / bend if bend > 1e-12 else 0.0))
    return _median_of_five(found)


def _median_of_five(values: Float) -> Float:
    """Of each value and its neighbours that are known, where it is known itself: a single octave error goes."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, constant_values=np.nan), 5)
    known = ~np.isnan(values)
    smooth = values.copy()
    smooth[known] = np.nanmedian(around[known], axis=1)
    return smooth


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two sayings of one sentence, compared along their warping path.

    Attributes:
        distortion_db: Mel-cepstral distance (Kubichek 1993), 10 / ln 10 * sqrt(2 * sum of squares), its mean.
        pitch_correlation: Pearson's, of log pitch over pairs of frames that are voiced in both; None with too few.
        pitch_semitones: Root mean square of the difference of log pitch over the same pairs, means taken away.
        length_ratio: Length of the first, of the second.
    """

    distortion_db: float
    pitch_correlation: float | None
    pitch_semitones: float | None
    length_ratio: float


def likeness(one: Int16Array, other: Int16Array) -> Likeness:
    """Compares [samples] int16 at 24 kHz without silence around. Raises ValueError when one is shorter than a hop."""
    cepstra = mel_cepstra(one), mel_cepstra(other)
    if not min(map(len, cepstra)):
        raise ValueError("there is nothing to compare")
    first, second = warped(*cepstra)
    apart = cepstra[0][first] - cepstra[1][second]
    distortion = 10 / math.log(10) * np.sqrt(2 * (apart**2).sum(axis=1)).mean()
    pitches = np.log(pitch_hz(one)[first]), np.log(pitch_hz(other)[second])
    both = ~np.isnan(pitches[0]) & ~np.isnan(pitches[1])
    correlation = semitones = None
    if both.sum() >= _FEWEST_FRAMES:
        x, y = (values[both] - values[both].mean() for values in pitches)
        if x.any() and y.any():
            correlation = float((x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()))
        semitones = float(np.sqrt(((x - y) ** 2).mean()) * 12 / math.log(2))
    return Likeness(float(distortion), correlation, semitones, len(one) / len(other))


@dataclass(frozen=True, slots=True)
class Seam:
    """What a listener could notice where two pieces meet.

    Attributes:
        flux_db: Spectral flux: root mean square over mel bands of the change from the frame before to the one after.
        pitch_jump_semitones: From the last voiced frame before to the first one after, within `SEAM_MS` each; None
            where one side is unvoiced.
    """

    flux_db: float
    pitch_jump_semitones: float | None


def seam(pcm: Int16Array, sample: int) -> Seam:
    """Looks at a place in [samples] int16 at 24 kHz; `sample` is the first of the second piece.

    Raises ValueError when it is not inside.
    """
    hop = round(sample / HOP_SAMPLES)
    bands = log_bands(pcm)
    if not 0 < hop < len(bands):
        raise ValueError(f"sample {sample} is not inside the sound")
    # A frame's window reaches over its neighbours: those next to the seam would each hold some of the other side.
    before, after = bands[max(0, hop - 2)], bands[min(len(bands) - 1, hop + 1)]
    flux = 20 / math.log(10) * math.sqrt(float(((after - before) ** 2).mean()))
    near = SEAM_MS * VOICE_RATE_HZ // 1000 // HOP_SAMPLES
    pitch = pitch_hz(pcm)
    left = [hertz for hertz in pitch[max(0, hop - near) : hop] if not math.isnan(hertz)]
    right = [hertz for hertz in pitch[hop : hop + near] if not math.isnan(hertz)]
    jump = abs(12 * math.log2(right[0] / left[-1])) if left and right else None
    return Seam(flux, jump)
