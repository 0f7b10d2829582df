from __future__ import annotations

import asyncio
import json
import os
import pty
import termios
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import relay
from relay.client import Dialogue, PlayoutClock, connect
from relay.client.duplex import Room
from relay.client.files import load
from relay.commands import keys
from relay.commands.talk import PushToTalk, TalkOptions, talk
from relay.errors import BrainUnavailable, StageFailed, UsageError
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
    # Several times: it may be asked before the turn's end is certain as well.
    broken = FakeBrain([[BrainUnavailable("the language model is away")]] * 9)

    async def main() -> int:
        async with serving(brain=broken) as stand:
            return await talk(TalkOptions(stand.server.url, input=QUESTION))

    assert asyncio.run(main()) == 0
    assert "the language model is away" in capsys.readouterr().out


def test_push_to_talk_sends_only_between_two_presses(serving: Any) -> None:
    speech = load(QUESTION, 24_000)

    async def main() -> tuple[list[str], list[str]]:
        async with asyncio.timeout(30), serving() as stand, connect(stand.server.url) as client:
            playout = PlayoutClock(prebuffer_ms=0)
            dialogue = Dialogue(client, playout)
            await dialogue.start()
            button = PushToTalk(client, dialogue, playout)
            await button.start()
            following = asyncio.create_task(dialogue.run())
            await button.append(speech)  # nobody pressed
            await button.press()
            assert button.pressed
            await button.append(speech[:24_000])
            await button.press()
            await dialogue.until(lambda: any(reply.over for reply in dialogue.replies.values()))
            await button.press()  # over a reply that is still being played
            assert not playout.buffered_samples
            following.cancel()
            return [reply.text for reply in dialogue.replies.values()], dialogue.errors

    replies, errors = asyncio.run(main())
    assert replies == ["Yes indeed."]
    assert errors == []


def test_keys_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, keyboard = pty.openpty()

    async def main() -> list[str]:
        found = []
        async with asyncio.timeout(20):
            async for key in keys.pressed():
                found.append(key)
                if len(found) == 2:
                    return found
                os.write(terminal, b"x")
        raise AssertionError

    with os.fdopen(keyboard, "r") as stdin, os.fdopen(terminal, "wb", buffering=0):
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(stdin)
        os.write(terminal, b" ")
        assert asyncio.run(main()) == [" ", "x"]
        assert termios.tcgetattr(stdin) == before


def test_push_to_talk_needs_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    async def main() -> None:
        async for _ in keys.pressed():
            pass

    with (tmp_path / "empty").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(UsageError, match="needs a terminal"):
            asyncio.run(main())
