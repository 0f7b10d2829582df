"""The machine's own microphone and loudspeaker, through PortAudio, at whatever rate they run."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np

from relay.audio import VOICE_RATE_HZ, Framer, Int16Array, Resampler
from relay.client.devices import choose, open_stream
from relay.client.echo import FRAME_SAMPLES, EchoControl, Through
from relay.client.playout import Playback, PlayoutClock
from relay.errors import EngineUnavailable

BLOCK_SAMPLES = 2 * FRAME_SAMPLES
QUEUE_BLOCKS = 50
"""Input that waits for the event loop: one second; older sound is dropped, a late microphone is worse than a gap."""
STALLED_S = 5.0


class DeviceCard:
    """Microphone and loudspeaker of this machine, as `PacedCard` is a card without devices.

    Args:
        playout: Output, 24 kHz mono; pulled from PortAudio's thread.
        send: Takes each block of input, [480] int16 at 24 kHz.
        report: Takes progress of playback when it is due.
        on_block: Called with each block of input, as it is sent, and the output played meanwhile.
        echo: Takes the echo of the output out of the input; None: nothing does.
        device_in: Number or name of the microphone; None: the system's choice.
        device_out: Number or name of the loudspeaker; None: the system's choice.
    """

    def __init__(
        self,
        playout: PlayoutClock,
        send: Callable[[Int16Array], Awaitable[None]],
        *,
        report: Callable[[Playback], Awaitable[None]] | None = None,
        on_block: Callable[[Int16Array, Int16Array], None] | None = None,
        echo: EchoControl | None = None,
        device_in: str | None = None,
        device_out: str | None = None,
    ) -> None:
        self._playout = playout
        self._send = send
        self._report = report
        self._on_block = on_block
        self._echo = echo or Through()
        self._asked = (device_in, device_out)

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            UsageError: A device that was asked for is none.
            EngineUnavailable: A device cannot be opened, or was unplugged while it was in use.
            RelayError: What `send` and `report` raise.
        """
        devices = (choose(self._asked[0], "input"), choose(self._asked[1], "output"))
        loop = asyncio.get_running_loop()
        blocks: asyncio.Queue[tuple[Int16Array, Int16Array] | None] = asyncio.Queue(QUEUE_BLOCKS)

        def put(block: tuple[Int16Array, Int16Array] | None) -> None:
            if blocks.full():
                blocks.get_nowait()
            blocks.put_nowait(block)

        def tell(block: tuple[Int16Array, Int16Array] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(put, block)

        rates = _Rates(self._playout.pull)

        def callback(indata: Int16Array, outdata: Int16Array, frames: int, time: Any, status: Any) -> None:
            outdata[:, 0] = rates.play(frames)
            for block in rates.hear(indata[:, 0]):
                tell(block)

        with open_stream(
            "Stream",
            devices=devices,
            blocksize=0,
            callback=lambda *block: callback(*block) if rates.ready else block[1].fill(0),
            finished_callback=lambda: tell(None),
        ) as stream:
            rates.run_at(int(stream.samplerate))
            self._playout.latency_samples = round(stream.latency[1] * VOICE_RATE_HZ)
            while True:
                heard, played = await self._next(blocks, " or ".join(dict.fromkeys(d.name for d in devices)))
                heard = self._echo.step(heard, played)
                await self._send(heard)
                if self._report is not None:
                    for playback in self._playout.reports():
                        await self._report(playback)
                if self._on_block is not None:
                    self._on_block(heard, played)

    async def _next(
        self, blocks: asyncio.Queue[tuple[Int16Array, Int16Array] | None], names: str
    ) -> tuple[Int16Array, Int16Array]:
        try:
            async with asyncio.timeout(STALLED_S):  # `wait_for` of Python 3.11 loses a Ctrl-C that comes with a block
                block = await blocks.get()
        except TimeoutError:
            block = None
        if block is None:
            raise EngineUnavailable(f"{names} was unplugged or has stopped; connect it and call again")
        return block


class _Rates:
    """Between the devices' rate and ours, on PortAudio's thread.

    What was played and what was heard meanwhile leave in blocks of the same length. The reference of the echo control
    is what was pulled, at our rate; resampling the output delays the sound by a millisecond, never brings it forward.
    """

    def __init__(self, pull: Callable[[int], Int16Array]) -> None:
        self.ready = False
        self._pull = pull
        self._heard = Framer(BLOCK_SAMPLES)
        self._played = Framer(BLOCK_SAMPLES)
        self._references: list[Int16Array] = []
        self._waiting: Int16Array = np.empty(0, dtype=np.int16)

    def run_at(self, rate_hz: int) -> None:
        """The devices run at this rate. Call once; callbacks before it are silent."""
        self._rate_hz = rate_hz
        self._in, self._out = Resampler(rate_hz, VOICE_RATE_HZ), Resampler(VOICE_RATE_HZ, rate_hz)
        self.ready = True

    def play(self, frames: int) -> Int16Array:
        """The next [frames] for the loudspeaker."""
        parts, have = [self._waiting], len(self._waiting)
        while have < frames:
            pcm = self._pull(max(1, math.ceil((frames - have) * VOICE_RATE_HZ / self._rate_hz)))
            self._references += self._played.step(pcm)
            parts.append(self._out.step(pcm))
            have += len(parts[-1])
        whole = np.concatenate(parts)
        self._waiting = whole[frames:]
        return whole[:frames]

    def hear(self, pcm: Int16Array) -> list[tuple[Int16Array, Int16Array]]:
        """Blocks of input that are complete, each with the output played meanwhile."""
        pairs = []
        for heard in self._heard.step(self._in.step(pcm.copy())):
            silence: Int16Array = np.zeros(BLOCK_SAMPLES, dtype=np.int16)
            pairs.append((heard, self._references.pop(0) if self._references else silence))
        return pairs


async def play(pieces: AsyncIterator[Int16Array], device_out: str | None = None) -> None:
    """Plays [samples] int16 pieces of 24 kHz mono as they come, to the end.

    Raises:
        UsageError: The device that was asked for is none.
        EngineUnavailable: There is no sound device, or it was unplugged.
    """
    loop = asyncio.get_running_loop()
    playout = PlayoutClock(prebuffer_ms=100)
    rates = _Rates(playout.pull)
    over = asyncio.Event()
    complete = False

    def end() -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    def callback(outdata: Int16Array, frames: int, time: Any, status: Any) -> None:
        outdata[:, 0] = rates.play(frames) if rates.ready else 0
        if complete and not playout.buffered_samples:
            end()

    device = choose(device_out, "output")
    with open_stream(
        "OutputStream", devices=(device,), blocksize=0, callback=callback, finished_callback=end
    ) as stream:
        rates.run_at(int(stream.samplerate))
        first_sample = 0
        async for pcm in pieces:
            playout.push("", first_sample, pcm)
            first_sample += len(pcm)
        complete = True
        await over.wait()
        if playout.buffered_samples:
            raise EngineUnavailable(f"{device.name} was unplugged or has stopped; connect it and try again")
        await asyncio.sleep(stream.latency)  # what was pulled last has yet to leave the device
