"""Devices, with PortAudio replaced: these machines have no microphone."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from relay.audio import Int16Array
from relay.client.devices import choose, sound_devices
from relay.client.microphone import DeviceCard, play
from relay.client.playout import Playback, PlayoutClock
from relay.errors import EngineUnavailable, UsageError


class PortAudioError(Exception):
    pass


NATIVE_HZ = 24_000  # of the fake devices; another rate is refused
REFUSAL: list[Exception] = []


class Stream:
    """Calls back from a thread of its own, as fast as it can, until it is closed; in blocks of changing length."""

    latency: Any = (0.01, 0.02)

    def __init__(
        self, *, callback: Callable[..., None], finished_callback: Callable[[], None], device: Any, **settings: Any
    ) -> None:
        assert settings["channels"] == 1
        if REFUSAL:
            raise REFUSAL[0]
        if settings["samplerate"] != NATIVE_HZ:
            raise PortAudioError("Invalid sample rate", -9997)
        self.samplerate = settings["samplerate"]
        self.device = device
        self.callback = callback
        self.finished = finished_callback
        self.played: list[Int16Array] = []
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.work)
        STREAMS.append(self)

    def start(self) -> None:
        self.thread.start()

    def close(self) -> None:
        self.closed.set()
        self.thread.join()

    def work(self) -> None:
        lengths = itertools.cycle((64, 480, 333))
        while not self.closed.wait(0.001):
            out = np.zeros((next(lengths), 1), dtype=np.int16)
            self.call(out)
            self.played.append(out[:, 0])

    def call(self, out: Int16Array) -> None:
        self.callback(np.full_like(out, 7), out, len(out), None, None)


class OutputStream(Stream):
    latency = 0.02

    def call(self, out: Int16Array) -> None:
        self.callback(out, len(out), None, None)


STREAMS: list[Stream] = []
DEVICES = [("Built-in Microphone", 1, 0), ("Built-in Speakers", 0, 2), ("USB Headset", 1, 2), ("USB Camera", 2, 0)]


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    STREAMS.clear()
    REFUSAL.clear()
    monkeypatch.setattr(sys.modules[__name__], "NATIVE_HZ", 24_000)
    fake = SimpleNamespace(
        Stream=Stream,
        OutputStream=OutputStream,
        PortAudioError=PortAudioError,
        query_hostapis=lambda: [{"name": "Core Audio"}],
        query_devices=lambda: [
            {
                "index": index,
                "name": name,
                "hostapi": 0,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": 44_100.0,
            }
            for index, (name, inputs, outputs) in enumerate(DEVICES)
        ],
        default=SimpleNamespace(device=[0, 1]),
    )
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
    played = np.concatenate(STREAMS[0].played)
    assert np.array_equal(played[np.flatnonzero(played)[0] :][:3000], reply)
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


async def nothing(pcm: Int16Array) -> None: ...


@pytest.mark.usefixtures("sounddevice")
@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 16_000, 8_000])
def test_a_device_of_another_rate_is_resampled(monkeypatch: pytest.MonkeyPatch, rate_hz: int) -> None:
    monkeypatch.setattr(sys.modules[__name__], "NATIVE_HZ", rate_hz)
    monkeypatch.setattr("relay.client.devices._RATES_HZ", (24_000, 48_000, 44_100, 16_000, 8_000))
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)).astype(np.int16)
    heard: list[Int16Array] = []

    async def main() -> None:
        playout = PlayoutClock(prebuffer_ms=0)
        playout.push("a", 0, tone)

        async def send(pcm: Int16Array) -> None:
            heard.append(pcm)
            if playout.played_samples("a") == len(tone):
                raise Ending

        async with asyncio.timeout(30):
            await DeviceCard(playout, send).run()

    with pytest.raises(Ending):
        asyncio.run(main())
    assert STREAMS[0].samplerate == rate_hz
    assert (np.abs(np.concatenate(heard)[960:] - 7) <= 1).all()  # a constant stays one
    played = np.concatenate(STREAMS[0].played).astype(float)
    sounding = played[np.flatnonzero(played)[0] :][: rate_hz // 2]
    assert abs(np.argmax(np.abs(np.fft.rfft(sounding))) * rate_hz / len(sounding) - 440) < 4


@pytest.mark.usefixtures("sounddevice")
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PortAudioError("Device unavailable", -9985), "it is busy; close the program"),
        (PortAudioError("Invalid device\nmore", -9996), "--list-devices"),
        (PortAudioError("Invalid number of channels", -9998), "does not do mono"),
        (PortAudioError("Invalid sample rate", -9997), "none of the usual sample rates"),
        (PortAudioError("Illegal combination of I/O devices", -9993), "do not work together"),
        (ValueError("something else"), "--list-devices"),
    ],
)
def test_a_device_that_does_not_open_is_explained(error: Exception, says: str) -> None:
    REFUSAL.append(error)
    with pytest.raises(EngineUnavailable, match=says) as caught:
        asyncio.run(DeviceCard(PlayoutClock(), nothing).run())
    assert "\n" not in str(caught.value)
    assert "Built-in Microphone with Built-in Speakers" in str(caught.value)


@pytest.mark.usefixtures("sounddevice")
def test_a_device_that_stops_is_said_to_be_unplugged() -> None:
    async def main() -> None:
        async def send(pcm: Int16Array) -> None:
            STREAMS[0].finished()

        async with asyncio.timeout(20):
            await DeviceCard(PlayoutClock(), send).run()

    with pytest.raises(EngineUnavailable, match="unplugged"):
        asyncio.run(main())
    assert not STREAMS[0].thread.is_alive()


@pytest.mark.parametrize("turns", range(6))
def test_a_call_that_is_cancelled_as_a_block_arrives_ends(turns: int) -> None:
    async def main() -> None:
        blocks: asyncio.Queue[tuple[Int16Array, Int16Array] | None] = asyncio.Queue()
        silence = np.zeros(480, dtype=np.int16)
        waiting = asyncio.create_task(DeviceCard(PlayoutClock(), nothing)._next(blocks, "it"))
        await asyncio.sleep(0.01)
        blocks.put_nowait((silence, silence))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_cancelled = waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled() == was_cancelled

    asyncio.run(main())


@pytest.mark.usefixtures("sounddevice")
@pytest.mark.parametrize(
    ("asked", "kind", "index"),
    [(None, "input", 0), (None, "output", 1), ("2", "input", 2), ("headset", "output", 2), ("USB Camera", "input", 3)],
)
def test_devices_are_chosen_by_number_and_by_name(asked: str | None, kind: Any, index: int) -> None:
    assert choose(asked, kind).index == index


@pytest.mark.usefixtures("sounddevice")
@pytest.mark.parametrize(
    ("asked", "kind", "says"),
    [
        ("usb", "input", "means several devices; choose one of: 2 USB Headset, 3 USB Camera"),
        ("3", "output", "is no loudspeaker"),
        ("nothing", "input", "is no microphone; choose one of: 0 Built-in"),
    ],
)
def test_what_names_no_device_is_wrong_use(asked: str, kind: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose(asked, kind)


@pytest.mark.usefixtures("sounddevice")
def test_a_machine_without_a_microphone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "DEVICES", [("Built-in Speakers", 0, 2)])
    with pytest.raises(EngineUnavailable, match="there is no microphone; connect one"):
        choose(None, "input")


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
