"""Noise suppression in the running server: only where a model is loaded, and only for sessions that ask."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from relay.config import ServerConfig
from relay.engine.ears import EarsInput, EarsOutput
from relay.errors import WeightsError
from relay.server import models as server_models
from relay.server.app import RelayServer
from tests.engine.tiny_dpdfnet import write_model
from tests.server.conftest import BeepEars, BeepVoice, EndlessBrain, Stand

LEVEL = 8_000


class LoudnessEars(BeepEars):
    """Tells how loud the utterance was at most, in thousandths of the level that was sent."""

    def open(self, slot: int) -> None:
        self.loudest = 0

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> list[EarsOutput | BaseException]:
        (x,) = xs
        self.loudest = max(self.loudest, int(np.abs(x.pcm.astype(int)).max(initial=0)))
        if not x.final:
            return [EarsOutput("", "")]
        text, self.loudest = str(self.loudest * 1000 // LEVEL), 0
        return [EarsOutput(text, "", final=True)]


async def loudness(client: Any) -> int:
    """What the ears hear of a tone, in thousandths of its level."""
    tone = np.rint(LEVEL * np.sin(np.arange(6_000) * 2 * np.pi * 440 / 24_000)).astype("<i2")
    await client.append(tone.tobytes())
    await client.send(type="input_audio_buffer.commit")
    done = await client.wait_for("conversation.item.input_audio_transcription.completed")
    return int(done["transcript"])


def session(noise_reduction: dict[str, str] | None) -> dict[str, Any]:
    audio = {"turn_detection": None, "noise_reduction": noise_reduction, "transcription": {"model": "relay"}}
    return {"type": "realtime", "audio": {"input": audio}}


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = SimpleNamespace(ears=lambda *_, **__: LoudnessEars(), voice=lambda *_, **__: BeepVoice())
    monkeypatch.setattr(server_models, "catalog", catalog)
    monkeypatch.setattr(
        server_models,
        "brains",
        SimpleNamespace(make=lambda _: EndlessBrain("Yes ", "indeed."), engine_of=lambda _: None),
    )


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("loaded", [False, True])
def test_a_session_that_asks_is_heard_through_the_model(tmp_path: Path, loaded: bool) -> None:
    model = write_model(tmp_path / "model.onnx", gated=True)  # closed at first, it swallows most of a short tone
    config = ServerConfig(port=0, path="cascade", noise_suppression=model if loaded else None)

    async def main() -> tuple[list[int], str]:
        async with RelayServer(config) as server:
            heard = []
            async with Stand(server).client() as client:
                for noise_reduction in (None, {"type": "near_field"}, None):
                    await client.send(type="session.update", session=session(noise_reduction))
                    heard.append(await loudness(client))
            async with httpx.AsyncClient() as http:
                return heard, (await http.get(f"{server.url}/metrics")).text

    (before, asked, after), metrics = asyncio.run(main())
    assert before == after == pytest.approx(1000, abs=20)
    assert asked < 800 if loaded else asked == before
    assert f"relay_noise_suppression_delay_seconds {0.05 if loaded else 0.0}\n" in metrics


@pytest.mark.usefixtures("models")
def test_a_server_does_not_start_with_a_file_of_another_kind(tmp_path: Path) -> None:
    async def main() -> None:
        async with RelayServer(ServerConfig(port=0, noise_suppression=tmp_path / "missing.onnx")):
            pass

    with pytest.raises(WeightsError, match="there is no noise suppression model"):
        asyncio.run(main())
