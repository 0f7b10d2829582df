"""Sound files in, WAV files out: any rate and channel count becomes mono int16 at the rate asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soxr

from relay.audio import Int16Array, to_int16
from relay.errors import AudioFileError

if TYPE_CHECKING:
    import soundfile

_STREAMED_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # what programs write into a header when they cannot seek back
_LONGEST_OGG_PAGE = 65_307
_HEAD_BYTES = 28  # enough for the sizes in the headers that are read here


def read_blocks(path: Path, rate_hz: int, block_s: float = 1.0) -> Iterator[Int16Array]:
    """Reads a sound file piece by piece, so that an hour of sound needs no hour of memory.

    Args:
        path: Anything that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...), any rate, any number of channels.
        rate_hz: Rate of what is returned.
        block_s: Length of one read of the file.

    Yields:
        [samples] int16 mono at `rate_hz`; the mean of the channels.

    Raises:
        AudioFileError: The file is missing, empty, truncated or not audio.
    """
    with _open(path) as sound:
        resampler = soxr.ResampleStream(sound.samplerate, rate_hz, 1, dtype="float32")
        frames = 0
        while len(block := _read(sound, path, max(1, round(block_s * sound.samplerate)))):
            frames += len(block)
            yield to_int16(resampler.resample_chunk(np.nan_to_num(block.mean(axis=1))))
        if frames < sound.frames and sound.frames < 2**60:  # libsndfile gives 2**63 - 1 when it cannot know
            raise AudioFileError(
                f"{path} is truncated: {frames} of {sound.frames} frames could be read; copy or record it again"
            )
        yield to_int16(resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True))


def load(path: Path, rate_hz: int) -> Int16Array:
    """A whole sound file as [samples] int16 mono at `rate_hz`. Raises AudioFileError as `read_blocks` does."""
    return np.concatenate(list(read_blocks(path, rate_hz)))


def write_wav(path: Path, pcm: Int16Array, rate_hz: int) -> None:
    """Writes [samples] or [samples, channels] int16 as a 16-bit WAV. Raises AudioFileError if it cannot."""
    import soundfile  # late: commands that only listen do without libsndfile

    try:
        soundfile.write(path, pcm, rate_hz, subtype="PCM_16", format="WAV")
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioFileError(f"cannot write {path}: {_reason(error)}; choose another place") from error


def _open(path: Path) -> soundfile.SoundFile:
    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise AudioFileError(f"cannot read {path}: {_reason(error)}; give the name of a sound file") from error
    if path.is_dir():
        raise AudioFileError(f"{path} is a folder; give the name of a sound file")
    if not size:
        raise AudioFileError(f"{path} is empty; record or copy it again")
    _check_whole(path, size)
    import soundfile  # late, as above

    try:
        sound = soundfile.SoundFile(path)
    except (OSError, soundfile.SoundFileError) as error:
        reason = _reason(error)
        if "does not exist" in reason:  # what libsndfile says of an MP3 without a frame
            reason = "there is no sound in it"
        raise AudioFileError(
            f"{path} is not a sound file that can be read ({reason}); convert it to WAV or FLAC"
        ) from error
    if not sound.frames:
        sound.close()
        raise AudioFileError(f"{path} holds no samples; record it again")
    return sound


def _read(sound: soundfile.SoundFile, path: Path, frames: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    import soundfile  # already loaded

    try:
        block: np.ndarray[tuple[int, int], np.dtype[np.float32]] = sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise AudioFileError(f"{path} is damaged ({_reason(error)}); copy or record it again") from error
    return block


def _check_whole(path: Path, size: int) -> None:
    """Refuses a file that is cut short, in the formats of which libsndfile silently reads what is there."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head[:4] == b"OggS":
                file.seek(max(0, size - _LONGEST_OGG_PAGE))
                if not _ends_ogg(file.read()):
                    raise AudioFileError(f"{path} is truncated: the stream in it has no end; copy or record it again")
                return
            file.seek(0)
            promised = _riff_size(file) if head[:4] == b"RIFF" and head[8:12] == b"WAVE" else _promised_size(head)
    except OSError as error:
        raise AudioFileError(f"cannot read {path}: {_reason(error)}; check its permissions") from error
    if promised > size:
        raise AudioFileError(
            f"{path} is truncated: its header promises {promised} bytes and {size} are there; copy or record it again"
        )


def _riff_size(file: BinaryIO) -> int:
    """Bytes of a WAV up to the end of its samples, as its header promises; 0 where it promises nothing."""
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            return 0 if length in _STREAMED_SIZES else file.tell() + length
        file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _promised_size(head: bytes) -> int:
    """Bytes that the header of an AIFF, AU, RF64 or W64 file promises; 0 for others, and where it promises nothing."""
    if len(head) < _HEAD_BYTES:
        return 0
    if head[:4] == b"FORM":
        length = struct.unpack_from(">I", head, 4)[0]
        return 0 if length in _STREAMED_SIZES else 8 + length
    if head[:4] == b".snd":
        offset, length = struct.unpack_from(">II", head, 4)
        return 0 if length in _STREAMED_SIZES else offset + length
    if head[:4] == b"riff":
        return int(struct.unpack_from("<Q", head, 16)[0])
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return 8 + int(struct.unpack_from("<Q", head, 20)[0])
    return 0


def _ends_ogg(tail: bytes) -> bool:
    """Whether the last page of an Ogg stream is whole and says that it is the last (RFC 3533, section 6)."""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 or len(tail) < at + 27 + tail[at + 26]:
        return False
    lacing = tail[at + 27 : at + 27 + tail[at + 26]]
    return bool(tail[at + 5] & 4) and len(tail) >= at + 27 + len(lacing) + sum(lacing)


def _reason(error: BaseException) -> str:
    """One short line of why."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return str(text).splitlines()[0].strip().rstrip(".") if str(text) else type(error).__name__
