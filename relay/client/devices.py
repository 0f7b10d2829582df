"""Sound devices by number or name, and what to do when one cannot be used.

`sounddevice` is imported when a device is asked for: it needs the PortAudio library, which many servers do not have and
no command but `talk` and `say` needs.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from relay.audio import VOICE_RATE_HZ
from relay.errors import EngineUnavailable, UsageError

Kind = Literal["input", "output"]
KINDS: tuple[Kind, Kind] = ("input", "output")
_NAMES: dict[Kind, str] = {"input": "microphone", "output": "loudspeaker"}
CLOSE_TIMEOUT_S = 3.0
_FILES = "or use sound files (talk --input and --output, say --out)"
_RATES_HZ = (VOICE_RATE_HZ, 48_000, 44_100, 16_000)

# portaudio.h, PaErrorCode
_INVALID_CHANNELS, _INVALID_RATE, _INVALID_DEVICE, _BAD_COMBINATION, _UNAVAILABLE = -9998, -9997, -9996, -9993, -9985
_ADVICE = {
    _INVALID_CHANNELS: "the device does not do mono; choose another with --device-in and --device-out",
    _INVALID_DEVICE: "there is no such device; `relay talk --list-devices` lists them",
    _BAD_COMBINATION: "the two devices do not work together; choose both of one kind (`relay talk --list-devices`)",
    _UNAVAILABLE: "it is busy; close the program that uses it, or choose another (`relay talk --list-devices`)",
}


@dataclass(frozen=True, slots=True)
class Device:
    """One sound device.

    Attributes:
        index: PortAudio's number.
        name: Its name.
        host: The system that it belongs to: ALSA, Core Audio, Windows WASAPI, ...
        inputs: Channels it records.
        outputs: Channels it plays.
        rate_hz: Its own rate.
        default_for: What the system uses it for when nothing is chosen.
    """

    index: int
    name: str
    host: str
    inputs: int
    outputs: int
    rate_hz: float
    default_for: tuple[Kind, ...]

    def does(self, kind: Kind) -> bool:
        """Whether it can record, or play."""
        return (self.inputs if kind == "input" else self.outputs) > 0


def sound_devices() -> Any:
    """The `sounddevice` module. Raises EngineUnavailable when it or PortAudio is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise EngineUnavailable("no sound devices: install them with `pip install sounddevice`") from error
    except OSError as error:  # the module is there, the library it binds is not
        raise EngineUnavailable(
            "no sound devices: the PortAudio library is missing; install it (Debian: apt install libportaudio2; "
            f"macOS: brew install portaudio), {_FILES}"
        ) from error
    return sounddevice


def list_devices() -> list[Device]:
    """All sound devices. Raises EngineUnavailable."""
    module = sound_devices()
    hosts = [host["name"] for host in module.query_hostapis()]
    chosen = module.default.device
    return [
        Device(
            found["index"],
            found["name"],
            hosts[found["hostapi"]],
            found["max_input_channels"],
            found["max_output_channels"],
            found["default_samplerate"],
            tuple(kind for at, kind in enumerate(KINDS) if chosen[at] == found["index"]),
        )
        for found in module.query_devices()
    ]


def choose(asked: str | None, kind: Kind) -> Device:
    """The device of a number or of a part of a name, or the system's own choice.

    Raises:
        UsageError: No device, or more than one, is meant.
        EngineUnavailable: There is no such device at all.
    """
    devices = [device for device in list_devices() if device.does(kind)]
    name, flag = _NAMES[kind], f"--device-{kind.removesuffix('put')}"
    if not devices:
        raise EngineUnavailable(f"there is no {name}; connect one, {_FILES}")
    if asked is None:
        return next((device for device in devices if kind in device.default_for), devices[0])
    exact = [device for device in devices if asked in (str(device.index), device.name)]
    found = exact or [device for device in devices if asked.casefold() in device.name.casefold()]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{device.index} {device.name}" for device in found or devices)
    what = "means several devices" if found else f"is no {name}"
    raise UsageError(f"{flag} {asked!r} {what}; choose one of: {listed}")


@contextmanager
def open_stream(kind: str, *, devices: tuple[Device, ...], **settings: Any) -> Iterator[Any]:
    """A PortAudio stream at the first rate that the devices take: 24, 48, 44.1, 16 kHz, then their own.

    Args:
        kind: `Stream` or `OutputStream`.
        devices: The input and the output device, or the output device.
        settings: For `sounddevice`; the callback may be called before the stream is there.

    Yields:
        The running stream; its `samplerate` says which rate it is.

    Raises:
        EngineUnavailable: No device can be opened; the message says why.
    """
    module = sound_devices()
    index = [device.index for device in devices]
    # Pulse and PipeWire, which on Linux stand behind ALSA, stall with the little buffers that hardware is content with.
    latency = 0.1 if any(device.host == "ALSA" for device in devices) else "low"
    for rate_hz in dict.fromkeys((*_RATES_HZ, *(int(device.rate_hz) for device in devices))):
        try:
            stream = getattr(module, kind)(
                samplerate=rate_hz,
                channels=1,
                dtype="int16",
                device=index if len(index) > 1 else index[0],
                latency=latency,
                **settings,
            )
            break
        except (module.PortAudioError, ValueError) as error:
            code = error.args[1] if len(error.args) > 1 else None
            refusal = error
            if code != _INVALID_RATE:
                raise EngineUnavailable(_refused(devices, error, code)) from error
    else:
        raise EngineUnavailable(_refused(devices, refusal, _INVALID_RATE)) from refusal
    try:
        try:
            stream.start()
        except module.PortAudioError as error:
            raise EngineUnavailable(_refused(devices, error, error.args[1] if len(error.args) > 1 else None)) from error
        yield stream
    finally:
        _close(module, stream)


def _close(module: Any, stream: Any) -> None:
    """Closes a stream. PortAudio waits for ever for a device that is gone: then it is left behind, at exit too."""
    closing = threading.Thread(target=stream.close, daemon=True)
    closing.start()
    closing.join(CLOSE_TIMEOUT_S)
    if closing.is_alive():
        atexit.unregister(module._exit_handler)


def _refused(devices: tuple[Device, ...], error: Exception, code: int | None) -> str:
    names = " with ".join(dict.fromkeys(device.name for device in devices))
    if code == _INVALID_RATE:
        return f"{names} takes none of the usual sample rates; choose another with --device-in and --device-out"
    reason = " ".join(str(error.args[0] if error.args else error).split())
    advice = _ADVICE.get(code or 0, f"`relay talk --list-devices` lists all; choose another, {_FILES}")
    return f"cannot open {names} ({reason}): {advice}"
