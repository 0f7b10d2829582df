"""Devices, with PortAudio replaced: these machines have neither the library nor a microphone."""

from __future__ import annotations

import asyncio
import builtins
import sys
import threading
from collections.abc import AsyncIterator, Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from relay.audio import Int16Array
from relay.client.microphone import DeviceCard, play, sound_devices
from relay.client.playout import Playback, PlayoutClock
from relay.errors import EngineUnavailable


class PortAudioError(Exception):
    pass


class Stream:
    """Calls back from a thread of its own, as fast as it can, until it is closed."""

    latency: Any = (0.01, 0.02)

    def __init__(self, *, callback: Callable[..., None], device: Any, **settings: Any) -> None:
        assert settings["samplerate"] == 24_000
        assert settings["channels"] == 1
        if device == "broken" or device == ("broken", None):
            raise PortAudioError("Invalid device\n[PaErrorCode -9996]")
        self.callback = callback
        self.blocksize = settings["blocksize"]
        self.played: list[Int16Array] = []
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.work)
        STREAMS.append(self)

    def __enter__(self) -> Stream:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closed.set()
        self.thread.join()

    def work(self) -> None:
        while not self.closed.wait(0.001):
            out = np.zeros((self.blocksize, 1), dtype=np.int16)
            self.call(out)
            self.played.append(out[:, 0])

    def call(self, out: Int16Array) -> None:
        self.callback(np.full_like(out, 7), out, len(out), None, None)


class OutputStream(Stream):
    latency = 0.02

    def call(self, out: Int16Array) -> None:
        self.callback(out, len(out), None, None)


STREAMS: list[Stream] = []


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    STREAMS.clear()
    fake = SimpleNamespace(Stream=Stream, OutputStream=OutputStream, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)


class Ending(Exception):
    pass


@pytest.mark.usefixtures("sounddevice")
def test_a_device_card_sends_what_it_hears_and_plays_what_it_is_given() -> None:
    reply = np.arange(1, 3001, dtype=np.int16)
    sent: list[Int16Array] = []
    reports: list[Playback] = []
    pairs: list[tuple[int, int]] = []

    async def main() -> None:
        playout = PlayoutClock(prebuffer_ms=0)
        playout.push("a", 0, reply)

        async def send(pcm: Int16Array) -> None:
            sent.append(pcm)

        async def report(playback: Playback) -> None:
            reports.append(playback)
            if playback.played_samples == len(reply):
                raise Ending

        card = DeviceCard(playout, send, report=report, on_block=lambda h, p: pairs.append((len(h), len(p))))
        async with asyncio.timeout(20):
            await card.run()

    with pytest.raises(Ending):
        asyncio.run(main())
    assert all(len(pcm) == 480 and (pcm == 7).all() for pcm in sent)
    assert set(pairs) == {(480, 480)}
    assert np.array_equal(np.concatenate(STREAMS[0].played)[:3000], reply)
    assert reports[-1] == Playback("a", 3000)
    assert not STREAMS[0].thread.is_alive()


@pytest.mark.usefixtures("sounddevice")
def test_play_ends_when_the_last_sample_has_been_pulled() -> None:
    async def pieces() -> AsyncIterator[Int16Array]:
        for at in range(0, 5000, 500):
            await asyncio.sleep(0)
            yield np.arange(at + 1, at + 501, dtype=np.int16)

    async def main() -> None:
        async with asyncio.timeout(20):
            await play(pieces())

    asyncio.run(main())
    played = np.concatenate(STREAMS[0].played)
    assert played[played != 0].tolist() == list(range(1, 5001))


@pytest.mark.usefixtures("sounddevice")
def test_a_device_that_does_not_open_is_explained() -> None:
    async def nothing(pcm: Int16Array) -> None: ...

    with pytest.raises(EngineUnavailable, match=r"relay doctor") as caught:
        asyncio.run(DeviceCard(PlayoutClock(), nothing, device_in="broken").run())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "says"), [(OSError("PortAudio library not found"), "apt install libportaudio2"), (ImportError(), "pip")]
)
def test_a_missing_library_is_explained(monkeypatch: pytest.MonkeyPatch, error: Exception, says: str) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "sounddevice":
            raise error
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineUnavailable, match=says):
        sound_devices()
