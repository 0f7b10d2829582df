"""Binary frames of the subprotocol `relay.v1`: audio without base64. Everything else stays JSON in text frames.

Client to server: the raw audio bytes in the session's input format, and nothing else; a frame is one
`input_audio_buffer.append`.

Server to client: a header of 16 bytes, little-endian, then the raw audio bytes in the response's output format. The
header is a whole number of samples long, so that a view of the frame's buffer from byte 16 on is aligned.

| byte | type   | meaning                                                                              |
|------|--------|--------------------------------------------------------------------------------------|
| 0    | uint8  | kind of frame: 1 = audio of a response; a client skips the kinds that it does not know |
| 1    | uint8  | format: 0 = pcm16 (24 kHz, little-endian), 1 = g711_ulaw (8 kHz), 2 = g711_alaw (8 kHz) |
| 2    | uint16 | 0                                                                                    |
| 4    | uint32 | number of the response, announced as `response.relay.index` in `response.created`     |
| 8    | uint64 | position of the first sample in that response's output, at the format's rate          |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from relay.audio import BYTES_PER_SAMPLE, Format

KIND_AUDIO = 1
_FORMATS: tuple[Format, ...] = ("pcm16", "g711_ulaw", "g711_alaw")
_FORMAT_CODE = {form: code for code, form in enumerate(_FORMATS)}
_HEADER = struct.Struct("<BBHIQ")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """A binary frame from the server.

    Attributes:
        response_index: Number of the response.
        first_sample: Position of the first sample in the response's output.
        form: Format of the data.
        data: Audio bytes, a whole number of samples.
    """

    response_index: int
    first_sample: int
    form: Format
    data: bytes


def encode_audio(frame: AudioFrame) -> bytes:
    """The frame's bytes."""
    header = _HEADER.pack(KIND_AUDIO, _FORMAT_CODE[frame.form], 0, frame.response_index, frame.first_sample)
    return header + frame.data


def decode_audio(data: bytes) -> AudioFrame | None:
    """The frame in these bytes; None for a kind that this version does not know.

    Raises:
        ValueError: The frame is shorter than its header, of an unknown format, or ends within a sample.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"A binary frame has at least {HEADER_BYTES} bytes, this one {len(data)}")
    kind, code, _, response_index, first_sample = _HEADER.unpack_from(data)
    if kind != KIND_AUDIO:
        return None
    if code >= len(_FORMATS):
        raise ValueError(f"Unknown audio format {code} in a binary frame")
    form = _FORMATS[code]
    body = data[HEADER_BYTES:]
    if len(body) % BYTES_PER_SAMPLE[form]:
        raise ValueError("A binary frame ends within a sample")
    return AudioFrame(response_index, first_sample, form, body)
