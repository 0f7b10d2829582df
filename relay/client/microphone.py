"""The machine's own microphone and loudspeaker, through PortAudio.

`sounddevice` is imported when a device is opened: it needs the PortAudio library, which many servers do not have and no
command but `talk` and `say` needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.playout import Playback, PlayoutClock
from relay.errors import EngineUnavailable

BLOCK_MS = 20
QUEUE_BLOCKS = 50
"""Input that waits for the event loop: one second; older sound is dropped, a late microphone is worse than a gap."""


def sound_devices() -> Any:
    """The `sounddevice` module. Raises EngineUnavailable when it or PortAudio is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise EngineUnavailable("no sound devices: install them with `pip install sounddevice`") from error
    except OSError as error:  # the module is there, the library it binds is not
        raise EngineUnavailable(
            "no sound devices: the PortAudio library is missing; install it (Debian: apt install libportaudio2; "
            "macOS: brew install portaudio), or use sound files (talk --input and --output, say --out)"
        ) from error
    return sounddevice


class DeviceCard:
    """Microphone and loudspeaker of this machine, as `PacedCard` is a card without devices.

    Args:
        playout: Output, 24 kHz mono; pulled from PortAudio's thread.
        send: Takes each block of input, [480] int16 at 24 kHz.
        report: Takes progress of playback when it is due.
        on_block: Called with each block of input and all output played since the one before.
        device_in: PortAudio's number of the microphone; None: the system's choice.
        device_out: PortAudio's number of the loudspeaker; None: the system's choice.
    """

    def __init__(
        self,
        playout: PlayoutClock,
        send: Callable[[Int16Array], Awaitable[None]],
        *,
        report: Callable[[Playback], Awaitable[None]] | None = None,
        on_block: Callable[[Int16Array, Int16Array], None] | None = None,
        device_in: int | None = None,
        device_out: int | None = None,
    ) -> None:
        self._playout = playout
        self._send = send
        self._report = report
        self._on_block = on_block
        self._devices = (device_in, device_out)

    async def run(self) -> None:
        """Runs until cancelled. Raises EngineUnavailable when a device cannot be opened, and what `send` raises."""
        loop = asyncio.get_running_loop()
        blocks: asyncio.Queue[tuple[Int16Array, Int16Array]] = asyncio.Queue(QUEUE_BLOCKS)

        def put(heard: Int16Array, played: Int16Array) -> None:
            if blocks.full():
                blocks.get_nowait()
            blocks.put_nowait((heard, played))

        def callback(indata: Int16Array, outdata: Int16Array, frames: int, time: Any, status: Any) -> None:
            played = self._playout.pull(frames)
            outdata[:, 0] = played
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(put, indata[:, 0].copy(), played)

        with _stream("Stream", device=self._devices, callback=callback) as stream:
            latency_s = stream.latency[1]
            self._playout.latency_samples = round(latency_s * VOICE_RATE_HZ)
            while True:
                heard, played = await blocks.get()
                await self._send(heard)
                if self._report is not None:
                    for playback in self._playout.reports():
                        await self._report(playback)
                if self._on_block is not None:
                    self._on_block(heard, played)


async def play(pieces: AsyncIterator[Int16Array], device_out: int | None = None) -> None:
    """Plays [samples] int16 pieces of 24 kHz mono as they come, to the end.

    Raises:
        EngineUnavailable: There is no sound device.
    """
    loop = asyncio.get_running_loop()
    playout = PlayoutClock(prebuffer_ms=100)
    over = asyncio.Event()
    complete = False

    def callback(outdata: Int16Array, frames: int, time: Any, status: Any) -> None:
        outdata[:, 0] = playout.pull(frames)
        if complete and not playout.buffered_samples:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(over.set)

    with _stream("OutputStream", device=device_out, callback=callback) as stream:
        first_sample = 0
        async for pcm in pieces:
            playout.push("", first_sample, pcm)
            first_sample += len(pcm)
        complete = True
        await over.wait()
        await asyncio.sleep(stream.latency)  # what was pulled last has yet to leave the device


@contextlib.contextmanager
def _stream(kind: str, **settings: Any) -> Iterator[Any]:
    sounddevice = sound_devices()
    try:
        stream = getattr(sounddevice, kind)(
            samplerate=VOICE_RATE_HZ,
            blocksize=samples_in(BLOCK_MS, VOICE_RATE_HZ),
            channels=1,
            dtype=np.int16,
            latency="low",
            **settings,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise EngineUnavailable(
            f"cannot open the sound device ({reason}); run `relay doctor` to see the devices, or use sound files"
        ) from error
    with stream:
        yield stream
