"""Sound files in, WAV files out: any rate and channel count becomes mono int16 at the rate asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from relay.audio import Int16Array, to_int16
from relay.errors import AudioFileError

if TYPE_CHECKING:
    import soundfile

_STREAMED_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # what programs write into a WAV header when they cannot seek back


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
    _check_riff(path, size)
    import soundfile  # late, as above

    try:
        sound = soundfile.SoundFile(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioFileError(
            f"{path} is not a sound file that can be read ({_reason(error)}); convert it to WAV or FLAC"
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


def _check_riff(path: Path, size: int) -> None:
    """Refuses a WAV whose samples are cut short: libsndfile silently reads what is there."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
                return
            while len(chunk := file.read(8)) == 8:
                name, length = struct.unpack("<4sI", chunk)
                start = file.tell()
                if name == b"data":
                    if length not in _STREAMED_SIZES and start + length > size:
                        raise AudioFileError(
                            f"{path} is truncated: its header promises {length} bytes of samples and "
                            f"{size - start} are there; copy or record it again"
                        )
                    return
                file.seek(length + length % 2, os.SEEK_CUR)
    except OSError as error:
        raise AudioFileError(f"cannot read {path}: {_reason(error)}; check its permissions") from error


def _reason(error: BaseException) -> str:
    """One short line of why."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return str(text).splitlines()[0].strip().rstrip(".") if str(text) else type(error).__name__
