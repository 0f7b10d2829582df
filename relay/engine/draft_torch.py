"""Runs the duplex draft model and the verifier in torch, behind the engine contract."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from relay.audio import Int16Array
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Draft, DraftInput, DraftOutput, Judgement
from relay.engine.engine import Engine
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading
from relay_models.framing import LEAD_IN_SAMPLES

if TYPE_CHECKING:
    from relay_models.draft import DraftModel
    from relay_models.draft_stream import DraftStream
    from relay_models.drafting import Drafted, Drafter
    from relay_models.state import StreamState
    from relay_models.tokenizer import ChatTokenizer
    from relay_models.verifier import Verifier

_TOKENS_A_WORD = 3  # the bound of a long draft


@dataclass(slots=True)
class _Slot:
    """What of a slot is not in the model's state.

    Attributes:
        waiting: Samples that do not fill a frame yet.
        previous: Token said at the frame before.
        to_say: Tokens of a reply of ours that are still to be said, one a frame.
        in_turn: A reply has begun and not ended.
        begin_probability: Of the newest frame.
    """

    waiting: Int16Array
    previous: int
    to_say: deque[int] = field(default_factory=deque)
    in_turn: bool = False
    begin_probability: float | None = None


class TorchDraftRunner:
    """The draft model. Every slot is a row of its state; a step gathers the rows that have a frame to hear.

    Args:
        ears: Folder of the recogniser whose encoder it hears through.
        draft: Folder of the model.
        tokenizer: tokenizer.json of its text.
        device: Torch device.
        max_slots: How many sessions may be followed.
    """

    def __init__(
        self, ears: Path, draft: Path, tokenizer: Path, *, device: Literal["cpu", "cuda"] = "cpu", max_slots: int = 64
    ) -> None:
        self.max_slots = max_slots
        self.max_batch = max_slots
        self._folders = (ears, draft, tokenizer)
        self._device = device
        self._slots: dict[int, _Slot] = {}
        self._model: DraftModel
        self._stream: DraftStream
        self._drafter: Drafter
        self._tokenizer: ChatTokenizer
        self._state: StreamState

    def load(self) -> None:
        """Loads all weights. Raises EngineUnavailable without torch or device, WeightsError."""
        try:
            import torch

            from relay_models.draft import load_draft
            from relay_models.draft_stream import DraftStream
            from relay_models.drafting import Drafter
            from relay_models.ears import load_ears
            from relay_models.tokenizer import ChatTokenizer
        except ImportError as error:
            raise EngineUnavailable("the draft model needs torch: pip install 'relay-dialogue[gpu]'") from error
        if self._device == "cpu":
            torch.set_num_threads(1)  # single tokens are small products: more threads only wait for each other
        ears_folder, draft_folder, tokenizer_path = self._folders
        try:
            self._tokenizer = ChatTokenizer.load(tokenizer_path)
            self._model = load_draft(draft_folder).to(self._device)
            self._stream = DraftStream(load_ears(ears_folder).to(self._device), self._model)
            self._drafter = Drafter(self._model, self._tokenizer)
        except (loading.WeightsError, ValueError) as error:
            raise WeightsError(str(error)) from error
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
            raise EngineUnavailable(f"torch cannot use {self._device!r}: {' '.join(str(error).split())}") from error
        assert self._stream.chunk_samples == DRAFT_FRAME_SAMPLES
        with torch.no_grad():
            self._state = self._stream.fresh_state(self.max_slots)

    def open(self, slot: int) -> None:
        """Gives a slot fresh state."""
        import torch

        self._state.reset(torch.arange(self.max_slots, device=self._device) == slot)
        self._slots[slot] = _Slot(np.zeros(LEAD_IN_SAMPLES, np.int16), self._token("SIL"))

    def close(self, slot: int) -> None:
        """Drops a slot."""
        del self._slots[slot]

    def unload(self) -> None:
        """Frees everything."""
        self._slots.clear()
        del self._model, self._stream, self._drafter, self._state

    def step(self, slots: Sequence[int], xs: Sequence[DraftInput]) -> Sequence[DraftOutput | BaseException]:
        """See `DraftInput`."""
        for slot, x in zip(slots, xs, strict=True):
            state = self._slots[slot]
            state.waiting = np.concatenate((state.waiting, x.pcm))
        while hearing := [slot for slot in slots if len(self._slots[slot].waiting) >= DRAFT_FRAME_SAMPLES]:
            self._hear(hearing)
        for slot, x in zip(slots, xs, strict=True):
            self._say(self._slots[slot], x)
        drafts = self._draft({slot: x.draft_words for slot, x in zip(slots, xs, strict=True) if x.draft_words})
        return [DraftOutput(self._slots[slot].begin_probability, drafts.get(slot)) for slot in slots]

    def _hear(self, slots: Sequence[int]) -> None:
        """One frame of each of these slots."""
        import torch

        from relay_models.draft import Special
        from relay_models.state import StreamState

        rows = [self._slots[slot] for slot in slots]
        pcm = np.stack([row.waiting[:DRAFT_FRAME_SAMPLES] for row in rows]).astype(np.float32) / 32768
        index = torch.tensor(list(slots), device=self._device)
        part = StreamState({name: tensor[index] for name, tensor in self._state.tensors.items()})
        previous = torch.tensor([row.previous for row in rows], device=self._device)
        listened, _ = self._stream.step(
            torch.from_numpy(pcm).to(self._device), previous, part, torch.ones_like(previous, dtype=torch.bool)
        )
        for name, tensor in self._state.tensors.items():
            tensor[index] = part[name]
        begins = listened.specials[:, Special.BOS].tolist()
        for row, begin in zip(rows, begins, strict=True):
            row.waiting = row.waiting[DRAFT_FRAME_SAMPLES:]
            row.previous = row.to_say.popleft() if row.to_say else self._token("SIL")
            row.begin_probability = begin

    def _say(self, row: _Slot, x: DraftInput) -> None:
        """What is said on our side becomes the model's history, one token a frame, whatever it would have said."""
        if x.words:
            row.to_say.extend([] if row.in_turn else [self._token("BOS")])
            row.to_say.extend(self._tokenizer.encode(f" {x.words}" if row.in_turn else x.words))
            row.in_turn = True
        if x.ended == "whole" and row.in_turn:
            row.to_say.append(self._token("EOS"))
        if x.ended == "broken" and (row.in_turn or row.to_say):
            row.to_say.clear()
            row.to_say.append(self._token("STP"))
        if x.ended:
            row.in_turn = False

    def _draft(self, words: dict[int, int]) -> dict[int, Draft]:
        from relay_models.drafting import MAX_TOKENS

        drafts: dict[int, Draft] = {}
        for wanted in set(words.values()):
            slots = [slot for slot, count in words.items() if count == wanted]
            bound = max(MAX_TOKENS, _TOKENS_A_WORD * wanted) if wanted > MAX_TOKENS else MAX_TOKENS
            for slot, made in zip(
                slots, self._drafter.draft(self._state, slots, max_tokens=bound, max_words=wanted), strict=True
            ):
                drafts[slot] = Draft(self._words(made), made.complete, made)
        return drafts

    def _words(self, made: Drafted) -> tuple[str, ...]:
        ends = (0, *made.word_ends)
        parts = [self._tokenizer.decode(made.tokens[a:b]).strip() for a, b in pairwise(ends)]
        return tuple(part or "-" for part in parts)

    def _token(self, name: str) -> int:
        from relay_models.draft import Special

        return self._model.config.token(Special[name])


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft to judge, and how sure the recogniser is of what it answers."""

    draft: Draft
    confidence: float


class TorchVerifierRunner:
    """The verifier, on the CPU: it is smaller than what it would cost to ask a GPU.

    Args:
        folder: Folder of the model.
        max_slots: How many drafts may wait to be judged.
    """

    def __init__(self, folder: Path, *, max_slots: int = 64) -> None:
        self.max_slots = max_slots
        self.max_batch = max_slots
        self._folder = folder
        self._model: Verifier

    def load(self) -> None:
        """Loads the weights. Raises EngineUnavailable without torch, WeightsError."""
        try:
            from relay_models.verifier import load_verifier
        except ImportError as error:
            raise EngineUnavailable("the verifier needs torch: pip install 'relay-dialogue[gpu]'") from error
        try:
            self._model = load_verifier(self._folder)
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
        """Judges drafts together."""
        drafts = [cast("Drafted", x.draft.evidence) for x in xs]
        judged = self._model.judge(drafts, [x.confidence for x in xs])
        return [Judgement(each.probability, each.words) for each in judged]


class EngineVerifier:
    """A `Verifier` in front of an engine of `TorchVerifierRunner`."""

    def __init__(self, engine: Engine[Judged, Judgement]) -> None:
        self._engine = engine

    async def judge(self, draft: Draft, confidence: float) -> Judgement:
        """See `Verifier`. Raises EngineBusy when too many drafts wait."""
        async with self._engine.slot() as slot:
            return await self._engine.step(slot, Judged(draft, confidence))
