"""Stand-ins for the fast path's models: instant or slow on the virtual clock, and failing on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from relay.engine.draft import Draft, DraftInput, DraftOutput, Judgement, Signals
from relay.errors import EngineBusy

Scripted = tuple[float, str | Exception | None]
"""A delay in seconds, and the words of a draft (None: no draft at all)."""


@dataclass
class ScriptedDrafter:
    """Drafts the texts of `script`, the last one again and again; fails at the step `fails_at`.

    `signals`, if any, are what it makes of all that it hears, up to the newest sample.
    """

    script: list[Scripted] = field(default_factory=lambda: [(0.01, "Well you see")])
    busy: bool = False
    fails_at: int | None = None
    step_s: float = 0.0
    open_slots: int = 0
    steps: int = 0
    heard_samples: int = 0
    told: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    judgement: Judgement | None = None
    """Of the verifier, where the drafter is to have asked it."""
    signals: Signals | None = None

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        if self.busy:
            raise EngineBusy("all slots of the draft engine are taken")
        self.open_slots += 1
        try:
            yield 0
        finally:
            self.open_slots -= 1

    async def step(self, slot: int, x: DraftInput, *, deadline_s: float = 0.0) -> DraftOutput:
        self.steps += 1
        if self.fails_at is not None and self.steps >= self.fails_at:
            self.fails_at = None
            raise RuntimeError("the draft model tripped")
        await asyncio.sleep(self.step_s)
        self.heard_samples += len(x.pcm)
        self.told += [x.words] if x.words else []
        self.told += [f"({x.ended})"] if x.ended else []
        if not x.draft_words:
            return DraftOutput(self._signals(x))
        self.asked.append(x.draft_words)
        self.confidences.append(x.confidence)
        delay_s, text = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await asyncio.sleep(delay_s)
        if isinstance(text, Exception):
            raise text
        if text is None:
            return DraftOutput(self._signals(x))
        return DraftOutput(self._signals(x), Draft(tuple(text.split())[: x.draft_words], judgement=self.judgement))

    def _signals(self, x: DraftInput) -> Signals | None:
        if self.signals is not None and len(x.pcm):
            self.signals = replace(self.signals, until_sample=x.until_sample)
        return self.signals


@dataclass
class ScriptedVerifier:
    """Gives the judgements of `script`, the last one again and again."""

    script: list[tuple[float, Judgement | Exception]] = field(default_factory=lambda: [(0.0, Judgement(0.9, 7))])
    confidences: list[float] = field(default_factory=list)

    async def judge(self, draft: Draft, confidence: float) -> Judgement:
        self.confidences.append(confidence)
        delay_s, judged = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await asyncio.sleep(delay_s)
        if isinstance(judged, Exception):
            raise judged
        return judged
