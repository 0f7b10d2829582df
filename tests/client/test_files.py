from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from relay.client.files import load, read_blocks, write_wav
from relay.errors import AudioFileError


def tone(rate_hz: int, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_any_rate_and_channel_count_becomes_mono_at_the_rate_asked_for(
    tmp_path: Path, rate_hz: int, channels: int, suffix: str
) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.repeat(tone(rate_hz, 1.5)[:, None], channels, axis=1), rate_hz)
    pcm = load(path, 24_000)
    assert abs(len(pcm) - 36_000) <= 2
    spectrum = np.abs(np.fft.rfft(pcm.astype(float)))
    assert abs(np.argmax(spectrum) * 24_000 / len(pcm) - 440) < 2
    assert 0.45 < np.abs(pcm[2_000:-2_000]).max() / 32768 < 0.55


def test_blocks_join_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(44_100, 1.0), 44_100)
    blocks, whole = np.concatenate(list(read_blocks(path, 16_000, 0.03))), load(path, 16_000)
    assert len(blocks) == len(whole)
    assert np.abs(blocks.astype(int) - whole).max() <= 3  # soxr dithers by place in its input


def test_a_file_that_is_not_a_number_is_silence_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.full(1000, np.nan, dtype=np.float32), 24_000, subtype="FLOAT")
    assert not load(path, 24_000).any()


def test_a_header_of_a_program_that_could_not_seek_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "streamed.wav"
    soundfile.write(path, tone(24_000, 0.5), 24_000)
    data = bytearray(path.read_bytes())
    data[40:44] = data[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(load(path, 24_000)) == 12_000


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.wav", None, "give the name"),
        ("empty.wav", b"", "is empty"),
        ("text.wav", b"this is not sound at all\n" * 9, "not a sound file"),
        ("header.wav", b"RIFF", "not a sound file"),
        ("text.mp3", b"this is not sound at all\n" * 9, "no sound in it"),
        ("head.ogg", b"OggS", "truncated"),
        ("page.ogg", b"OggS" + b"\0" * 100, "truncated"),
        ("head.flac", b"fLaC" + b"\0" * 100, "not a sound file"),
        ("noise.wav", bytes(range(7, 250)) * 20, "not a sound file"),
    ],
)
def test_what_is_not_sound_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioFileError, match=says) as caught:
        load(path, 16_000)
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="folder"):
        load(tmp_path, 16_000)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_16"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("wav", "ULAW"),
        ("flac", "PCM_24"),
        ("mp3", "MPEG_LAYER_III"),
        ("ogg", "VORBIS"),
        ("ogg", "OPUS"),
        ("aiff", "PCM_16"),
        ("au", "PCM_16"),
        ("w64", "PCM_16"),
        ("rf64", "PCM_16"),
    ],
)
def test_every_usual_format_is_read_whole_and_refused_when_cut(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, subtype: str
) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.repeat(tone(16_000, 2.0)[:, None], 2, axis=1), 16_000, subtype=subtype)
    pcm = load(path, 16_000)
    assert abs(len(pcm) - 32_000) <= 20
    assert 0.45 < np.median(np.abs(pcm)) / 32768 * np.sqrt(2) < 0.55
    whole = path.read_bytes()
    for share in (0.02, 0.5, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(AudioFileError, match=r"truncated|damaged|not a sound file|no samples") as caught:
            load(path, 16_000)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [b"FORM\0\0\0\0AIFF", b".snd\0\0\0\x18\xff\xff\xff\xff"], ids=["aiff", "au"])
def test_a_header_without_a_length_promises_nothing(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / ("tone.aiff" if header.startswith(b"FORM") else "tone.au")
    soundfile.write(path, tone(16_000, 0.5), 16_000)
    path.write_bytes(header + path.read_bytes()[len(header) :])
    assert abs(len(load(path, 16_000)) - 8_000) <= 2


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0, dtype=np.int16), 16_000)
    with pytest.raises(AudioFileError, match="no samples"):
        load(path, 16_000)


def test_writing_where_one_cannot_says_so(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="choose another place"):
        write_wav(tmp_path / "no" / "such.wav", np.zeros(10, dtype=np.int16), 24_000)
