"""Runs the verifier on the host, whatever the draft model runs on: it is smaller than what asking a GPU would cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relay.engine.draft import Draft, Judgement
from relay.engine.engine import Steps
from relay.errors import WeightsError
from relay_models import loading
from relay_models.host_verifier import HostVerifier, load_host_verifier

_DUE_S = 0.02  # somebody waits in silence for the first words


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft to judge, and how sure the recogniser is of what it answers."""

    draft: Draft
    confidence: float


class VerifierRunner:
    """The verifier.

    Args:
        folder: Folder of the model.
        max_slots: How many drafts may wait to be judged.
    """

    def __init__(self, folder: Path, *, max_slots: int = 64) -> None:
        self.max_slots = max_slots
        self.max_batch = max_slots
        self._folder = folder
        self._model: HostVerifier

    def load(self) -> None:
        """Loads the weights. Raises WeightsError."""
        try:
            self._model = load_host_verifier(self._folder)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error

    def open(self, slot: int) -> None:
        """Nothing to prepare."""

    def close(self, slot: int) -> None:
        """Nothing to drop."""

    def unload(self) -> None:
        """Frees the weights."""
        del self._model

    def step(self, slots: Sequence[int], xs: Sequence[Judged]) -> Sequence[Judgement | BaseException]:
        """Judges drafts, one by one."""
        return [self._judge(x) for x in xs]

    def _judge(self, x: Judged) -> Judgement | BaseException:
        try:
            if x.draft.evidence is None:
                raise ValueError("a draft that does not say how it was made")
            judged = self._model.judge(x.draft.evidence, x.confidence)
        except Exception as error:
            return error
        return Judgement(judged.probability, judged.words)


class EngineVerifier:
    """A `Verifier` in front of an engine of `VerifierRunner`, of this process or of another.

    Attributes:
        engine: The engine.
    """

    def __init__(self, engine: Steps[Judged, Judgement]) -> None:
        self.engine = engine

    async def judge(self, draft: Draft, confidence: float) -> Judgement:
        """See `Verifier`. Raises EngineBusy when too many drafts wait."""
        due_s = asyncio.get_running_loop().time() + _DUE_S
        async with self.engine.slot() as slot:
            return await self.engine.step(slot, Judged(draft, confidence), deadline_s=due_s)
