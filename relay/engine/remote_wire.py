"""What a gateway and a process with engines say to each other: frames, messages, values and errors. Sans-IO.

A frame is its length in four bytes, big end first, and as many bytes of MessagePack: one message. Values are what the
engines take and give, by field, with arrays as their shape and raw bytes (an extension type); what comes is checked
against the type that is due. Both ends are processes of one server, and of one version.
"""

from __future__ import annotations

import builtins
import struct
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import msgspec
import numpy as np

import relay.errors
from relay.audio import Int16Array
from relay.engine.brain import BrainInput, BrainOutput
from relay.engine.draft import DraftInput, DraftOutput, Judgement
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.load import Measures
from relay.engine.verifier import Judged
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.errors import RelayError

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""More than any step takes or gives: a minute of audio at 24 kHz is 3 MB."""
HEADER = struct.Struct("!I")
_ARRAY = 1
_BUILTIN_ERRORS = frozenset(
    {
        "ArithmeticError",
        "AssertionError",
        "IndexError",
        "KeyError",
        "LookupError",
        "NotImplementedError",
        "RuntimeError",
    }
    | {"TypeError", "ValueError", "ZeroDivisionError"}
)

KINDS: dict[str, tuple[Any, Any]] = {
    "ears": (EarsInput, EarsOutput),
    "voice": (VoiceInput, VoiceOutput),
    "brain": (BrainInput, BrainOutput),
    "denoise": (EarsInput, Int16Array),
    "draft": (DraftInput, DraftOutput),
    "verifier": (Judged, Judgement),
    "seats": (None, None),
}
"""What each engine takes and gives. A seat is a slot that is never stepped."""


class Open(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Asks for a slot of an engine; the result is its number."""

    id: int
    engine: str


class Step(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Steps a slot; the result is what the engine gave."""

    id: int
    engine: str
    slot: int
    x: msgspec.Raw
    deadline_s: float


class Close(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Gives a slot back; the result is nothing."""

    id: int
    engine: str
    slot: int


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The gateway takes callers now."""


class Welcome(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """First message to a gateway: what it needs to know of the engines of this process.

    Attributes:
        engines: Names of those that there are.
        capacity: Sessions that they are for, over all gateways; 0: they set no bound.
        denoiser_delay_s: By how much noise suppression is late.
    """

    engines: list[str]
    capacity: int
    denoiser_delay_s: float = 0.0


class Result(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The answer to a request."""

    id: int
    y: msgspec.Raw


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The error that a request gave: its class, arguments and fields, as far as they are texts."""

    id: int
    kind: str
    args: list[str]
    fields: dict[str, str | None]


class Seated(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """How it stands with sessions, over all gateways.

    Attributes:
        taken: How many there are.
        refusal: Why nobody else is let in although seats are free; None when somebody is.
    """

    taken: int
    refusal: str | None = None


class Loads(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """How near the engines of this process are to their limits, by name."""

    loads: dict[str, Measures]


Up: TypeAlias = Open | Step | Close | Ready
Down: TypeAlias = Welcome | Result | Failed | Seated | Loads


class FrameError(RelayError):
    """A frame is too large, or holds no message of its direction."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Messages <-> frames, for the direction that comes in.

    Attributes:
        incoming: `Up` or `Down`.
    """

    incoming: Any

    def decode(self, body: bytes) -> Any:
        """The message of a frame's body. Raises FrameError."""
        try:
            return msgspec.msgpack.decode(body, type=self.incoming)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: text that is no UTF-8
            raise FrameError(f"not a message between gateway and engine: {error}") from error


def body_bytes(header: bytes) -> int:
    """Length of the body that follows a header. Raises FrameError for one that is too large."""
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes is larger than {MAX_FRAME_BYTES}")
    return int(length)


def frame(message: Up | Down) -> bytes:
    """A message as it is sent. Raises FrameError when it is too large."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is larger than {MAX_FRAME_BYTES}; split the input")
    return HEADER.pack(len(body)) + body


def pack(value: object) -> msgspec.Raw:
    """A value of an engine as it is sent."""
    return msgspec.Raw(msgspec.msgpack.encode(value, enc_hook=_from_array))


def unpack(raw: msgspec.Raw, kind: Any) -> Any:
    """A value of the type that is due. Raises FrameError when it is none."""
    try:
        return msgspec.msgpack.decode(raw, type=kind, dec_hook=_to_array)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"not what this engine takes or gives: {error}") from error


def _from_array(value: object) -> msgspec.msgpack.Ext:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        shape = struct.pack(f"!B{value.ndim}I", value.ndim, *value.shape)
        return msgspec.msgpack.Ext(_ARRAY, shape + np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        raise TypeError(f"{type(value).__name__} is no plain number; give int() or float() of it")
    raise TypeError(f"{type(value).__name__} cannot be sent to or from an engine process")


def _to_array(kind: Any, value: object) -> Any:
    """An array of the type that `npt.NDArray` says."""
    if not isinstance(value, msgspec.msgpack.Ext) or value.code != _ARRAY:
        raise ValueError("an array is due")
    data = bytearray(value.data)
    begin = 1 + 4 * data[0] if data else 1
    if len(data) < begin:
        raise ValueError("an array without its shape")
    shape = struct.unpack_from(f"!{data[0]}I", data, 1)
    flat = np.frombuffer(data[begin:], dtype=get_args(get_args(kind)[1])[0])
    return flat.reshape(shape)


def failed(request_id: int, error: BaseException) -> Failed:
    """An error as it is sent: of this project by its class, a common one of Python by its name, else as text."""
    kind = type(error).__name__
    if not isinstance(error, RelayError) and kind not in _BUILTIN_ERRORS:
        return Failed(request_id, "RuntimeError", [f"{kind}: {error}"], {})
    if getattr(relay.errors, kind, type(error)) is not type(error) or kind == "FrameError":
        return Failed(request_id, "RelayError", [str(error)], {})
    fields = {name: value for name, value in vars(error).items() if value is None or isinstance(value, str)}
    return Failed(request_id, kind, [str(arg) for arg in error.args], fields)


def error_of(message: Failed) -> BaseException:
    """The error that was sent."""
    kind = getattr(builtins, message.kind, None) if message.kind in _BUILTIN_ERRORS else None
    kind = kind or getattr(relay.errors, message.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RelayError(f"{message.kind}: {' '.join(message.args)}")
    error: Exception = kind.__new__(kind, *message.args)  # constructors differ; what they keep are args and fields
    error.args = tuple(message.args)
    vars(error).update(message.fields)
    return error
