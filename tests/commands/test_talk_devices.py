"""`relay talk` at a virtual sound card: a process of its own, real PortAudio, a private PulseAudio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import relay
from tests import sound_card as virtual
from tests.server.conftest import EndlessBrain
from tests.sound_card import SoundCard

pytestmark = [
    pytest.mark.skipif(virtual.missing() is not None, reason=str(virtual.missing())),
    pytest.mark.timeout(240),
]
QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"


@pytest.fixture
def card(tmp_path: Path) -> Iterator[SoundCard]:
    folder = tmp_path / "card"
    folder.mkdir()
    with virtual.sound_card(folder) as running:
        yield running


@contextlib.asynccontextmanager
async def talking(card: SoundCard, url: str, *flags: str) -> AsyncIterator[Process]:
    """`relay talk`, stopped at the end whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "talk", "--url", url, *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=card.variables,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def lines_until(process: Process, start: str, say: Any) -> list[str]:
    """What it prints up to a line that begins so; the question is asked again until then."""
    assert process.stdout is not None
    lines: list[str] = []
    player = say()
    try:
        while not (lines and lines[-1].startswith(start)):
            try:
                line = await asyncio.wait_for(process.stdout.readline(), 8)
            except TimeoutError:
                player.kill()
                player.wait()
                player = say()
                continue
            assert line, (await process.stderr.read()).decode() if process.stderr else ""
            lines.append(line.decode().rstrip())
    finally:
        player.kill()
        player.wait()
    return lines


def test_a_spoken_turn_and_ctrl_c(card: SoundCard, serving: Any, tmp_path: Path) -> None:
    recording = tmp_path / "dialogue.wav"

    async def main() -> tuple[list[str], int, str]:
        async with (
            asyncio.timeout(200),
            serving() as stand,
            talking(card, stand.server.url, "--output", str(recording)) as process,
        ):
            lines = await lines_until(process, "relay:", lambda: card.say(QUESTION))
            lines += await lines_until(process, "you:", lambda: card.say(QUESTION))  # the first reply has been played
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert process.returncode is not None
            return lines, process.returncode, err.decode()

    lines, status, err = asyncio.run(main())
    assert lines[0] == "you: beep"
    assert any(line.startswith("relay: Yes indeed.") for line in lines)
    assert status == 130
    assert "Traceback" not in err
    track, rate_hz = soundfile.read(recording, dtype="int16")
    assert rate_hz == 24_000
    assert np.abs(track[:, 0]).max() > 1000
    assert (np.abs(track[:, 1]) == 3000).sum() > 2400  # the reply, as it went to the loudspeaker


def test_a_device_that_is_unplugged_ends_the_call_and_keeps_the_conversation(
    card: SoundCard, serving: Any, tmp_path: Path
) -> None:
    recording = tmp_path / "dialogue.wav"

    async def main() -> tuple[int | None, str]:
        async with (
            asyncio.timeout(200),
            serving(brain=EndlessBrain(*[f"word{n} " for n in range(100)])) as stand,
            talking(card, stand.server.url, "--output", str(recording)) as process,
        ):
            await lines_until(process, "you:", lambda: card.say(QUESTION))
            card.unplug()
            _, err = await process.communicate()
            return process.returncode, err.decode()

    status, err = asyncio.run(main())
    assert status == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("relay: error: ")
    assert "unplugged" in last
    assert "Traceback" not in err
    assert len(soundfile.read(recording)[0])


def test_devices_are_listed_and_named(card: SoundCard) -> None:
    talk = [sys.executable, "-m", "relay", "talk"]
    listed = subprocess.run(
        [*talk, "--list-devices", "--json"], env=card.variables, capture_output=True, text=True, check=True
    )
    devices = json.loads(listed.stdout)["devices"]
    assert {"index", "name", "host", "rate_hz"} <= devices[0].keys()
    assert any("input" in device["default_for"] for device in devices)
    wrong = subprocess.run([*talk, "--device-in", "no such thing"], env=card.variables, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "is no microphone; choose one of: " in wrong.stderr
