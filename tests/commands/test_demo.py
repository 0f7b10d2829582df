"""`relay demo`: a real server process, real models, a real socket, real time."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

import relay
from relay.client.files import load
from relay.commands.bench_paths import path_of
from relay.commands.demo import ask
from relay.commands.own_server import own_server
from relay.errors import BrainUnavailable, ConnectionFailed, StageFailed
from tests.fakes import FakeBrain
from tests.server.conftest import BeepVoice

QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"


@pytest.mark.parametrize("path", ["cascade", None])
def test_one_spoken_question_through_a_real_server(tmp_path: Path, path: str | None) -> None:
    output = tmp_path / "reply.wav"
    command = [sys.executable, "-m", "relay", "demo", "--json", "--output", str(output)]
    environ = {**os.environ, "RELAY_PATH": path or ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["transcript"] == "can you help me find a restaurant"
    assert len(result["reply"].split()) >= 2
    assert result["status"] == "completed"
    stages, always = set(result["stages_ms"]), {"endpointing", "ears", "voice_first", "transport", "playout"}
    if path == "cascade":
        assert (result["path"], stages - always) == ("cascade", {"llm_first"})
    else:  # the default: whether the draft begins the reply, the verifier says, and who is first
        assert result["path"] in ("relay", "cascade")
        assert set() < stages - always <= {"draft", "verify", "llm_first"}
    assert always <= stages
    total = sum(result["stages_ms"].values()) + result["unaccounted_ms"]
    assert total == pytest.approx(result["onset_ms"], abs=0.5)
    pcm, rate_hz = soundfile.read(output, dtype="int16")
    assert rate_hz == 24_000
    assert len(pcm) / rate_hz == pytest.approx(result["audio_s"], abs=0.001)
    assert np.abs(pcm).max() > 3000


@pytest.mark.skipif(importlib.util.find_spec("pocketsphinx") is None, reason="needs the baseline recogniser")
def test_beside_another_recogniser_the_draft_model_hears_for_itself() -> None:
    async def main() -> None:
        async with own_server({**os.environ, "RELAY_EARS": "baseline", "RELAY_PATH": ""}) as url:
            assert await path_of(url) == "relay"
            turn = await ask(url, load(QUESTION, 24_000))
        assert turn.reply.status == "completed"
        assert len(turn.spoken)

    asyncio.run(main())


def test_the_process_ends_with_the_block() -> None:
    async def main() -> str:
        async with own_server(os.environ) as url:
            with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 5):
                pass
            return url

    url = asyncio.run(main())
    with pytest.raises(OSError), socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 5):
        pass


def test_a_server_that_cannot_start_says_why() -> None:
    async def main() -> None:
        async with own_server({**os.environ, "RELAY_EARS": "no-such-engine"}):
            pass

    with pytest.raises(ConnectionFailed, match="no-such-engine"):
        asyncio.run(main())


class SilentVoice(BeepVoice):
    """Speaks digital silence."""

    def step(self, slots: Any, xs: Any) -> list[Any]:
        return [type(out)(out.pcm * 0, out.words, out.final) for out in super().step(slots, xs)]  # type: ignore[union-attr]


def test_a_silent_reply_is_a_failure(serving: Any) -> None:
    async def main() -> None:
        async with serving(voice=SilentVoice) as stand:
            await ask(stand.server.url, load(QUESTION, 24_000))

    with pytest.raises(StageFailed, match="silent"):
        asyncio.run(main())


def test_an_apology_is_heard_and_reported(serving: Any) -> None:
    async def main() -> None:
        # Several times: it may be asked before the turn's end is certain as well.
        brain = FakeBrain([[BrainUnavailable("the language model is away")]] * 9)
        async with serving(brain=brain) as stand:
            turn = await ask(stand.server.url, load(QUESTION, 24_000))
        assert turn.reply.status == "failed"
        assert turn.reply.failure is not None
        assert "away" in turn.reply.failure
        assert len(turn.spoken)

    asyncio.run(main())
