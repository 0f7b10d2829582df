"""A server in this process, on a real port, with models that cost nothing: energy is speech, words are beeps."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from relay.brains import Brain
from relay.config import ServerConfig
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.server import models
from relay.server.app import RelayServer
from tests.fakes import FakeBrain, FakeDialogue

WORD_SAMPLES = 2400


class BeepEars:
    """Every utterance is "beep"."""

    max_slots = 64
    max_batch = 64

    def load(self) -> None: ...
    def open(self, slot: int) -> None: ...
    def close(self, slot: int) -> None: ...
    def unload(self) -> None: ...

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> list[EarsOutput | BaseException]:
        return [EarsOutput("beep" if x.final else "", "" if x.final else "bee", final=x.final) for x in xs]


class BeepVoice:
    """Every word is 100 ms of a square wave."""

    max_slots = 64
    max_batch = 64

    def load(self) -> None:
        self._at: dict[int, int] = {}

    def open(self, slot: int) -> None:
        self._at[slot] = 0

    def close(self, slot: int) -> None:
        del self._at[slot]

    def unload(self) -> None: ...

    def step(self, slots: Sequence[int], xs: Sequence[VoiceInput]) -> list[VoiceOutput | BaseException]:
        outputs: list[VoiceOutput | BaseException] = []
        for slot, x in zip(slots, xs, strict=True):
            at = self._at[slot]
            texts = x.text.split()
            words = [
                SpokenWord(text, at + n * WORD_SAMPLES, at + (n + 1) * WORD_SAMPLES) for n, text in enumerate(texts)
            ]
            self._at[slot] = at + len(texts) * WORD_SAMPLES
            pcm = np.tile(np.repeat(np.array([3000, -3000], dtype=np.int16), 24), len(texts) * WORD_SAMPLES // 48)
            outputs.append(VoiceOutput(pcm, tuple(words), final=x.final))
        return outputs


class EndlessBrain(FakeBrain):
    """The same answer for ever, for any number of sessions at once."""

    def __init__(self, *pieces: str | float) -> None:
        super().__init__([])
        self._pieces = list(pieces)

    @contextlib.asynccontextmanager
    async def dialogue(self) -> AsyncIterator[FakeDialogue]:
        class Endless(list):  # type: ignore[type-arg]
            def pop(inner, _: Any = 0) -> list[str | float]:
                return self._pieces

        yield FakeDialogue(FakeBrain(Endless()))


class Client:
    """A bare websocket client of the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, **event: Any) -> None:
        await self.socket.send(json.dumps(event))

    async def append(self, data: bytes) -> None:
        await self.send(type="input_audio_buffer.append", audio=base64.b64encode(data).decode())

    async def wait_for(self, kind: str) -> dict[str, Any]:
        """Reads up to the next event of this type."""
        async with asyncio.timeout(20):
            while True:
                event = json.loads(await self.socket.recv())
                self.events.append(event)
                if event["type"] == kind:
                    return event

    async def text_turn(self, text: str = "hello") -> dict[str, Any]:
        """Types a message and waits for the reply."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.send(type="conversation.item.create", item=item)
        await self.send(type="response.create")
        return dict((await self.wait_for("response.done"))["response"])


class Stand:
    """The running server."""

    def __init__(self, server: RelayServer) -> None:
        self.server = server
        self.ws_url = server.url.replace("http", "ws", 1) + "/v1/realtime"

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        async with connect(self.ws_url, **options) as socket:
            client = Client(socket)
            await client.wait_for("session.created")
            yield client

    async def until_empty(self) -> None:
        """Waits until no session is left."""
        async with asyncio.timeout(20):
            while self.server._seats.taken:
                await asyncio.sleep(0.01)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`async with serving(**config) as stand`: a server with beeping models, on the cascade."""

    @contextlib.asynccontextmanager
    async def start(
        *, brain: Brain | None = None, voice: type[BeepVoice] = BeepVoice, **config: Any
    ) -> AsyncIterator[Stand]:
        catalog = SimpleNamespace(ears=lambda *_, **__: BeepEars(), voice=lambda *_, **__: voice())
        monkeypatch.setattr(models, "catalog", catalog)
        monkeypatch.setattr(
            models,
            "brains",
            SimpleNamespace(make=lambda _: brain or EndlessBrain("Yes ", "indeed."), engine_of=lambda _: None),
        )
        async with RelayServer(ServerConfig(**{"port": 0, "path": "cascade"} | config)) as server:
            yield Stand(server)

    return start
