"""A full-duplex sound card without a sound card: files and benchmarks speak and listen through it in real time.

One clock runs both directions, as on a real card. A block of input spans `block_ms` and is sent the moment it is
complete; a block of output is pulled at that same moment and sounds during the next `block_ms`. Position p of either
stream is the instant `started_s + p / rate`, so times are read off sample positions and need no stopwatch.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.playout import Playback, PlayoutClock

ROOM_NOISE_DBFS = -60.0


class Source(Protocol):
    """Where input comes from."""

    def read(self, samples: int) -> Int16Array:
        """Exactly [samples] int16, 24 kHz; room noise when there is nothing to say."""
        ...


class PacedCard:
    """Reads a source, sends it, and pulls the playout clock, block by block as real time passes.

    When the event loop is held up, the blocks that are due follow at once, and `latest_ms` says how far behind it was.

    Args:
        source: Input.
        playout: Output; its rate is 24 kHz.
        send: Takes each block of input.
        report: Takes progress of playback when it is due; None: not reported.
        on_block: Called with each block of input and the block of output that begins when it ends.
        block_ms: Length of a block.
    """

    def __init__(
        self,
        source: Source,
        playout: PlayoutClock,
        send: Callable[[Int16Array], Awaitable[None]],
        *,
        report: Callable[[Playback], Awaitable[None]] | None = None,
        on_block: Callable[[Int16Array, Int16Array], None] | None = None,
        block_ms: int = 10,
    ) -> None:
        self.block_samples = samples_in(block_ms, VOICE_RATE_HZ)
        self.block_ms = block_ms
        self.sent_samples = 0
        self.latest_ms = 0.0
        self.started_s = 0.0
        self._source = source
        self._playout = playout
        self._send = send
        self._report = report
        self._on_block = on_block

    async def run(self) -> None:
        """Runs until cancelled. Raises what `send` and `report` raise."""
        loop = asyncio.get_running_loop()
        self.started_s = loop.time()
        self._playout.now = lambda: math.ceil(self.position_at(loop.time()))
        # The first input block ends one block after the start; until then the output plays nothing.
        self._playout.pull(self.block_samples)
        due_s = self.started_s
        for block in range(1, 2**62):
            due_s = self.started_s + block * self.block_samples / VOICE_RATE_HZ
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            self.latest_ms = max(self.latest_ms, (loop.time() - due_s) * 1000.0)
            played = self._playout.pull(self.block_samples)
            heard = self._source.read(self.block_samples)
            await self._send(heard)
            self.sent_samples += len(heard)
            if self._report is not None:
                for playback in self._playout.reports():
                    await self._report(playback)
            if self._on_block is not None:
                self._on_block(heard, played)

    def position_at(self, loop_s: float) -> float:
        """The position in both streams at a time of the event loop's clock."""
        return (loop_s - self.started_s) * VOICE_RATE_HZ


class Recorder:
    """Both tracks of a dialogue on one clock: pass `add` as a card's `on_block`."""

    def __init__(self) -> None:
        self._heard: list[Int16Array] = []
        self._played: list[Int16Array] = []

    def add(self, heard: Int16Array, played: Int16Array) -> None:
        """Adds a block of input and the block of output that begins when it ends."""
        if not self._heard:
            self._played.append(np.zeros_like(played))  # the output's first block sounded before any input was whole
        self._heard.append(heard)
        self._played.append(played)

    def heard(self) -> Int16Array:
        """[samples] int16: all input so far."""
        return _joined(self._heard)

    def played(self) -> Int16Array:
        """[samples] int16: all output so far, one block longer than the input."""
        return _joined(self._played)

    def stereo(self) -> Int16Array:
        """[samples, 2] int16: input left, output right, sample by sample what was heard at the same instant."""
        heard, played = self.heard(), self.played()
        return np.stack([heard, played[: len(heard)]], axis=1)


class Room:
    """Endless quiet room noise, coloured, never digital silence, from a seeded generator.

    The spectrum falls by 6 dB an octave above 200 Hz, roughly as in a quiet room; 8 s of it are made once, circularly,
    and repeated without a seam.
    """

    def __init__(self, seed: int = 0, level_dbfs: float = ROOM_NOISE_DBFS) -> None:
        self._pcm = _room_noise(seed, level_dbfs)
        self._at = 0

    def read(self, samples: int) -> Int16Array:
        """The next [samples] int16, 24 kHz."""
        index = np.arange(self._at, self._at + samples) % len(self._pcm)
        self._at = (self._at + samples) % len(self._pcm)
        return self._pcm[index]


class Script:
    """A room in which things are said when asked: a `Source` for files and benchmarks."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room()
        self._queue: list[Int16Array] = []
        self._queued = 0
        self.position = 0

    def say(self, pcm: Int16Array) -> int:
        """Says [samples] int16, 24 kHz, after all that was asked before; returns the position of its first sample."""
        start = self.position + self._queued
        self._queue.append(pcm)
        self._queued += len(pcm)
        return start

    @property
    def silent(self) -> bool:
        """Whether all has been said."""
        return not self._queue

    def read(self, samples: int) -> Int16Array:
        """As in `Source`."""
        out = self._room.read(samples).astype(np.int32)
        at = 0
        while self._queue and at < samples:
            take = min(samples - at, len(self._queue[0]))
            out[at : at + take] += self._queue[0][:take]
            rest = self._queue[0][take:]
            if len(rest):
                self._queue[0] = rest
            else:
                self._queue.pop(0)
            at += take
        self._queued -= at
        self.position += samples
        return np.clip(out, -32768, 32767).astype(np.int16)


@functools.lru_cache(maxsize=4)
def _room_noise(seed: int, level_dbfs: float) -> Int16Array:
    rng = np.random.default_rng(seed)
    samples = 8 * VOICE_RATE_HZ
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency_hz = np.fft.rfftfreq(samples, 1 / VOICE_RATE_HZ)
    noise = np.fft.irfft(spectrum / np.maximum(frequency_hz / 200.0, 1.0), samples)
    noise *= 32768.0 * 10.0 ** (level_dbfs / 20.0) / np.sqrt(np.mean(noise**2))
    pcm = np.rint(noise).astype(np.int16)
    pcm[pcm == 0] = 1
    return pcm


def _joined(blocks: list[Int16Array]) -> Int16Array:
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int16)
