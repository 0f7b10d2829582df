"""Keeps the reply that the loudspeaker plays from being taken for the user's voice.

Two ways, both sans-IO and on one clock: each takes what the microphone heard and what was played meanwhile, and gives
what to send. `Canceller` subtracts the echo (WebRTC's audio processing, the echo canceller of browsers), so that both
may talk at once. `Guard` needs nothing but numpy: it holds the microphone shut while a reply is heard in it, and opens
when somebody is louder, in some part of the spectrum, than the echo can be.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.errors import EngineUnavailable, UsageError

FRAME_MS = 10
FRAME_SAMPLES = samples_in(FRAME_MS, VOICE_RATE_HZ)

Mode = Literal["auto", "cancel", "guard", "off"]
MODES: tuple[Mode, ...] = ("auto", "cancel", "guard", "off")


class EchoControl(Protocol):
    """Takes the echo out of a microphone."""

    def step(self, heard: Int16Array, played: Int16Array) -> Int16Array:
        """What to send.

        Args:
            heard: [samples] int16, 24 kHz, a whole number of 10 ms frames.
            played: [samples] int16 handed to the loudspeaker meanwhile: it has not been heard earlier.

        Raises:
            ValueError: The two differ in length, or it is no whole number of frames.
        """
        ...


class Through:
    """No echo control: for headphones."""

    def step(self, heard: Int16Array, played: Int16Array) -> Int16Array:
        """As in `EchoControl`."""
        _check(heard, played)
        return heard


class Canceller:
    """WebRTC's echo canceller (AEC3), which finds the delay of the devices by itself.

    Raises:
        EngineUnavailable: The package `pywebrtc-audio` is missing.
    """

    def __init__(self) -> None:
        try:
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:
            raise EngineUnavailable("echo cancellation is not installed: pip install 'relay-dialogue[talk]'") from error
        self._processor: Any = AudioProcessor(sample_rate=VOICE_RATE_HZ, echo_cancellation=True)

    def step(self, heard: Int16Array, played: Int16Array) -> Int16Array:
        """As in `EchoControl`."""
        _check(heard, played)
        clean: Int16Array = self._processor.process(heard, played)
        return clean


_EDGES_HZ = np.unique(np.round(np.geomspace(200.0, 7000.0, 19) / 50.0)).astype(np.intp) * 50
_BINS = _EDGES_HZ * 2 * FRAME_SAMPLES // VOICE_RATE_HZ
_BANDS = len(_BINS) - 1
_WINDOW = np.hanning(2 * FRAME_SAMPLES + 1)[:-1]
_LAGS = 50  # frames: the echo comes at most half a second after it was played
_NOISE_FRAMES = 150
_FAINT_DBFS = -75.0  # mean of the bands: what is played more softly is not heard back
_SMOOTHING = 0.6  # of the power of a band, from frame to frame
_LAG_MEMORY = 0.995
_MEAN_RATE = 0.02
_DECAY_DB = 0.8  # of an echo in a room, a frame: a reverberation time of 0.75 s
_QUANTILE = 0.8  # of the gain between what is played and what is heard of it
_MARGIN_DB = 5.0
_COLD_MARGIN_DB = 15.0  # more, as long as the gain is hardly known
_WARM_FRAMES = 100
_EXCESS_DB = 15.0  # that one band can add at most
_OPENS_AT_DB = 0.8
_OPEN_FRAMES = 25

_Bands = npt.NDArray[np.float64]


class Guard:
    """Half duplex that lets the user break in.

    While a reply sounds, room noise is sent instead of what is heard, until somebody speaks over it. That is decided
    by level and correlation: the delay of the echo is where the spectra heard follow those played most closely; behind
    that delay every band of what was played, decaying as in a room, times a gain that is learned, is the echo that
    must be expected (power-domain echo estimation: Avendano 2001; Faller and Chen 2005). What exceeds it in enough
    bands is somebody else: two voices seldom fill the same bands at the same time. The gain is a high quantile,
    learned by small steps, so that a user who speaks over the reply moves it little.

    Args:
        seed: Of the noise that is sent while the microphone is shut.

    Attributes:
        is_open: Whether what is heard was sent at the last frame.
    """

    def __init__(self, seed: int = 0) -> None:
        self.is_open = True
        self._noise = np.random.default_rng(seed)
        self._last = np.zeros((2, FRAME_SAMPLES))
        self._power = np.zeros((2, _BANDS))
        self._played = np.full((_LAGS + 2, _BANDS), -120.0)  # smoothed levels, newest first
        self._shape = np.zeros((_LAGS, _BANDS))  # levels over their mean, newest first
        self._mean = np.full((2, _BANDS), -80.0)
        self._product = np.zeros(_LAGS)
        self._energy = np.full(_LAGS, 1e-9)
        self._heard_levels: deque[_Bands] = deque(maxlen=_NOISE_FRAMES)
        self._expected = np.full(_BANDS, -120.0)
        self._gain_db = np.zeros(_BANDS)
        self._learned = np.zeros(_BANDS)
        self._warm_frames = 0
        self._excess_db = 0.0
        self._open_frames = 0

    def step(self, heard: Int16Array, played: Int16Array) -> Int16Array:
        """As in `EchoControl`."""
        _check(heard, played)
        out = heard.copy()
        for at in range(0, len(heard), FRAME_SAMPLES):
            frame = slice(at, at + FRAME_SAMPLES)
            floor_dbfs = self._listen(heard[frame], played[frame])
            if not self.is_open:
                level = 32768.0 * 10.0 ** (float(np.mean(floor_dbfs)) / 20.0)
                out[frame] = np.rint(self._noise.normal(0.0, max(1.0, level), FRAME_SAMPLES))
        return out

    def _listen(self, heard: Int16Array, played: Int16Array) -> _Bands:
        """Takes one frame and decides `is_open`; gives the room's noise by band."""
        levels = self._levels(np.stack((heard, played)).astype(np.float64))
        (near, far), (near_db, far_db) = levels, _db(self._power)
        self._heard_levels.append(near_db)
        floor_dbfs: _Bands = np.min(np.stack(self._heard_levels), axis=0) + 3.0
        self._played[1:] = self._played[:-1]
        self._played[0] = far_db
        sounding = bool(self._played[:_LAGS].mean(axis=1).max() > _FAINT_DBFS)
        lag = self._find_lag(near, np.maximum(far, -80.0), sounding=sounding)
        around = self._played[max(0, lag - 2) : lag + 2].max(axis=0)
        self._expected = np.maximum(around, self._expected - _DECAY_DB)
        if not sounding:
            self._excess_db, self._open_frames, self.is_open = 0.0, 0, True
            return floor_dbfs
        self._warm_frames += 1
        cold = max(0.0, 1.0 - self._warm_frames / _WARM_FRAMES)
        self._learn_gain(near_db, floor_dbfs)
        echo_db = _db(10.0 ** ((self._expected + self._gain_db) / 10.0) + 10.0 ** (floor_dbfs / 10.0))
        over_db = np.clip(near_db - echo_db - _MARGIN_DB - cold * _COLD_MARGIN_DB, 0.0, _EXCESS_DB)
        self._excess_db += 0.2 * (float(over_db.mean()) - self._excess_db)
        self._open_frames = _OPEN_FRAMES if self._excess_db > _OPENS_AT_DB else max(0, self._open_frames - 1)
        self.is_open = self._open_frames > 0
        return floor_dbfs

    def _levels(self, frames: npt.NDArray[np.float64]) -> _Bands:
        """[2, bands] dBFS of two streams' next frames, [2, 240]; smooths `_power` on the way."""
        spectrum = np.abs(np.fft.rfft(np.concatenate((self._last, frames), axis=1) * _WINDOW, axis=1)) ** 2
        power: _Bands = np.add.reduceat(spectrum, _BINS, axis=1)[:, :-1] / (2 * FRAME_SAMPLES * 32768.0**2)
        self._last = frames
        self._power = _SMOOTHING * self._power + (1.0 - _SMOOTHING) * power
        return _db(power)

    def _find_lag(self, near: _Bands, far: _Bands, *, sounding: bool) -> int:
        """Frames by which what is heard follows what is played: where their spectra correlate best."""
        self._mean += _MEAN_RATE * (np.stack((near, far)) - self._mean)
        self._shape[1:] = self._shape[:-1]
        self._shape[0] = far - self._mean[1]
        if sounding and self._excess_db < _OPENS_AT_DB / 2:  # what another voice says has no lag
            self._product = _LAG_MEMORY * self._product + self._shape @ (near - self._mean[0])
            self._energy = _LAG_MEMORY * self._energy + np.sum(self._shape**2, axis=1)
        return int(np.argmax(self._product / np.sqrt(self._energy)))

    def _learn_gain(self, near_db: _Bands, floor_dbfs: _Bands) -> None:
        """Moves each band's gain towards the quantile of what is heard over what was played; not while in doubt."""
        known = (self._expected > _FAINT_DBFS) & (near_db > floor_dbfs + 3.0)
        self._learned += known
        rate_db = np.maximum(0.1, 6.0 / (1.0 + self._learned / 10.0))
        if self._excess_db > _OPENS_AT_DB / 2:
            rate_db *= 0.1
        above = near_db - self._expected > self._gain_db
        self._gain_db += known * rate_db * np.where(above, _QUANTILE, _QUANTILE - 1.0)
        np.clip(self._gain_db, -70.0, 10.0, out=self._gain_db)


def _db(power: _Bands) -> _Bands:
    return np.asarray(10.0 * np.log10(power + 1e-12))


def echo_control(mode: Mode) -> EchoControl:
    """The echo control of a name: `cancel`, `guard`, `off`, or `auto`, which is `cancel` where that is installed.

    Raises:
        EngineUnavailable: `cancel` is asked for and not installed.
        UsageError: There is no mode of that name.
    """
    if mode == "off":
        return Through()
    if mode == "guard":
        return Guard()
    if mode not in MODES:
        raise UsageError(f"there is no echo control {mode!r}; choose one of {', '.join(MODES)}")
    try:
        return Canceller()
    except EngineUnavailable:
        if mode == "cancel":
            raise
        return Guard()


def _check(heard: Int16Array, played: Int16Array) -> None:
    if len(heard) != len(played) or len(heard) % FRAME_SAMPLES:
        raise ValueError(f"{len(heard)} samples heard and {len(played)} played are not the same {FRAME_MS} ms frames")
