"""Stand-ins for models in tests of timing: instant or slow on the virtual clock, and failing on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from relay.audio import VOICE_RATE_HZ
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.errors import EngineBusy
from relay.events import Message, Piece, ToolOffer

WORD_SAMPLES = VOICE_RATE_HZ // 4  # the fake voice takes 250 ms a word


@dataclass
class FakeEars:
    """Hears the texts of `script`, one an utterance; an exception there is raised in the middle of its utterance.

    With a `word_delay_ms` it is a streaming recogniser, whose early words can be believed.
    """

    script: list[str | Exception]
    delay_s: float = 0.0
    open_slots: int = 0
    heard_samples: list[int] = field(default_factory=list)
    word_delay_ms: int | None = None

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        self.open_slots += 1
        try:
            yield 0
        finally:
            self.open_slots -= 1

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> EarsOutput:
        await asyncio.sleep(self.delay_s)
        if not self.heard_samples or self.heard_samples[-1] < 0:
            self.heard_samples.append(0)
        self.heard_samples[-1] += len(x.pcm)
        text = self.script[0]
        if isinstance(text, Exception):
            self.script.pop(0)
            raise text
        if not x.final:
            return EarsOutput("", text, word_delay_ms=self.word_delay_ms)
        self.script.pop(0)
        self.heard_samples.append(-1)
        return EarsOutput(text, "", final=True, word_delay_ms=self.word_delay_ms)


@dataclass
class FakeVoice:
    """Speaks each word as 250 ms of a constant; raises `failure` at the word `fails_at`."""

    delay_s: float = 0.0
    fails_at: int | None = None
    busy: bool = False
    open_slots: int = 0

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        if self.busy:
            raise EngineBusy("all slots of the voice engine are taken")
        self.open_slots += 1
        self._position = 0
        try:
            yield 0
        finally:
            self.open_slots -= 1

    async def step(self, slot: int, x: VoiceInput, *, deadline_s: float = 0.0) -> VoiceOutput:
        await asyncio.sleep(self.delay_s)
        words = []
        for text in x.text.split():
            if self.fails_at is not None and self._position // WORD_SAMPLES >= self.fails_at:
                raise RuntimeError("the loudspeaker caught fire")
            words.append(SpokenWord(text, self._position, self._position + WORD_SAMPLES))
            self._position += WORD_SAMPLES
        pcm = np.full(len(words) * WORD_SAMPLES, 1000, dtype=np.int16)
        return VoiceOutput(pcm, tuple(words), final=x.final)


@dataclass
class WordwiseVoice(FakeVoice):
    """Speaks one word a step."""

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        async with super().slot():
            slot = max(self._waiting, default=0) + 1
            self._waiting[slot] = []
            yield slot

    def __post_init__(self) -> None:
        self._waiting: dict[int, list[str]] = {}

    async def step(self, slot: int, x: VoiceInput, *, deadline_s: float = 0.0) -> VoiceOutput:
        waiting = self._waiting[slot]
        waiting += x.text.split()
        output = await super().step(slot, replace(x, text=waiting.pop(0) if waiting else ""))
        return replace(output, final=x.final and not waiting)


@dataclass
class FakeBrain:
    """Answers with the scripts' pieces in turn: a float is a pause in seconds, an exception is raised."""

    scripts: list[list[Piece | float | Exception]]
    name: str = "fake"
    knows_ends: bool = False
    ends: dict[str, float] = field(default_factory=dict)
    asked: list[list[Message]] = field(default_factory=list)
    offered: list[ToolOffer | None] = field(default_factory=list)
    running: int = 0

    async def __aenter__(self) -> FakeBrain:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def script_for(self, messages: Sequence[Message]) -> Sequence[Piece | float | Exception]:
        return self.scripts.pop(0)

    @contextlib.asynccontextmanager
    async def dialogue(self) -> AsyncIterator[FakeDialogue]:
        yield FakeDialogue(self)


@dataclass
class ConsistentBrain(FakeBrain):
    """Gives the same script to the same question, whenever it is asked."""

    def script_for(self, messages: Sequence[Message]) -> Sequence[Piece | float | Exception]:
        question = repr([(message.role, message.text) for message in messages])  # the ids of calls are random
        return self.scripts[zlib.crc32(question.encode()) % len(self.scripts)]


class FakeDialogue:
    """One dialogue of a `FakeBrain`; the scripts are shared."""

    def __init__(self, brain: FakeBrain) -> None:
        self._brain = brain
        self._is_replying = False

    async def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncIterator[Piece]:
        self._brain.asked.append(list(messages))
        self._brain.offered.append(tools)
        assert not self._is_replying, "a dialogue makes one reply at a time"
        self._is_replying = True
        self._brain.running += 1
        try:
            for piece in self._brain.script_for(messages):
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                elif isinstance(piece, Exception):
                    raise piece
                else:
                    yield piece
        finally:
            self._is_replying = False
            self._brain.running -= 1

    async def end_probability(self, messages: Sequence[Message]) -> float | None:
        return self._brain.ends.get(messages[-1].text)


class MemoryTransport:
    """A connection in memory; `read_delay_s` makes the client a slow reader."""

    def __init__(self, read_delay_s: float = 0.0) -> None:
        self._inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._read_delay_s = read_delay_s
        self.received: list[tuple[float, dict[str, Any]]] = []
        self._news = asyncio.Event()

    # The session's side.

    async def receive(self) -> str | bytes | None:
        return await self._inbox.get()

    async def send(self, frame: str | bytes) -> None:
        await asyncio.sleep(self._read_delay_s)
        assert isinstance(frame, str)
        self.received.append((asyncio.get_running_loop().time(), json.loads(frame)))
        self._news.set()

    # The client's side.

    def push(self, **event: Any) -> None:
        self._inbox.put_nowait(json.dumps(event))

    def leave(self) -> None:
        self._inbox.put_nowait(None)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for _, event in self.received if event["type"] == kind]

    def times(self, kind: str) -> list[float]:
        return [at for at, event in self.received if event["type"] == kind]

    async def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of this type, as soon as it has come."""
        async with asyncio.timeout(300):
            while len(self.events(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.events(kind)[count - 1]
