from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import relay
from relay.client.duplex import Room
from relay.commands.talk import TalkOptions, talk
from relay.errors import BrainUnavailable, StageFailed
from tests.fakes import FakeBrain

QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"


def stereo_at(path: Path, rate_hz: int) -> Path:
    """The question as a stereo file of another rate, cut right after its last word."""
    import soxr

    pcm, from_hz = soundfile.read(QUESTION)
    out = soxr.resample(pcm[: round(2.5 * from_hz)], from_hz, rate_hz)
    soundfile.write(path, np.stack([out, out], axis=1), rate_hz)
    return path


def test_a_file_is_spoken_and_the_dialogue_recorded(
    serving: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "dialogue.wav"

    async def main() -> int:
        async with serving() as stand:
            options = TalkOptions(stand.server.url, input=stereo_at(tmp_path / "in.flac", 44_100), output=recording)
            return await talk(options)

    assert asyncio.run(main()) == 0
    out, err = capsys.readouterr()
    assert out == "you: beep\nrelay: Yes indeed.\n"
    assert err == ""
    track, rate_hz = soundfile.read(recording, dtype="int16")
    assert rate_hz == 24_000
    user, agent = track[:, 0], track[:, 1]
    assert np.abs(user[: 24_000 * 2]).max() > 8000
    assert (user != 0).mean() > 0.99  # the room is never silent
    assert (np.abs(agent) == 3000).sum() == 2 * 2400
    assert np.flatnonzero(agent)[0] > np.flatnonzero(np.abs(user) > 2000)[-1]  # the reply comes after the words


def test_json_lines(serving: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> int:
        async with serving() as stand:
            return await talk(TalkOptions(stand.server.url, input=QUESTION, json=True))

    assert asyncio.run(main()) == 0
    user, reply = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert user == {"type": "user", "text": "beep"}
    assert (reply["type"], reply["text"], reply["status"]) == ("reply", "Yes indeed.", "completed")
    assert reply["audio_s"] == 0.2
    assert reply["metrics"]["path"] == "cascade"


def test_a_file_without_speech_is_an_error_that_says_so(serving: Any, tmp_path: Path) -> None:
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, Room().read(24_000), 24_000)

    async def main() -> None:
        async with serving() as stand:
            await talk(TalkOptions(stand.server.url, input=noise, output=tmp_path / "out.wav"))

    with pytest.raises(StageFailed, match="heard no speech"):
        asyncio.run(main())
    assert (tmp_path / "out.wav").exists()  # what there was is recorded all the same


def test_a_failing_brain_is_heard_and_reported(serving: Any, capsys: pytest.CaptureFixture[str]) -> None:
    broken = FakeBrain([[BrainUnavailable("the language model is away")]])

    async def main() -> int:
        async with serving(brain=broken) as stand:
            return await talk(TalkOptions(stand.server.url, input=QUESTION))

    assert asyncio.run(main()) == 0
    assert "the language model is away" in capsys.readouterr().out
