"""Runs the duplex draft model in torch: on a GPU as CUDA graphs, frames and whole drafts; elsewhere step by step.

With a verifier, a graph goes from a slot's state over all tokens of a draft to what is thought of it, and what the host
waits for comes in one copy. Between, it would cost a fetch, a launch and a hop to another thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from relay.engine.draft import DRAFT_FRAME_SAMPLES, Judgement
from relay.engine.learned_draft import Floats, Forked, Integers, LearnedDraft
from relay.engine.torch_steps import own_stream, powers, static_steps
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading
from relay_models.drafting import MAX_TOKENS, Chosen, Drafting
from relay_models.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from relay_models.draft_slots import DraftSlots, Judging
    from relay_models.draft_stream import Drafter, DraftStream
    from relay_models.slot_pipeline import Pipeline
    from relay_models.state import StreamState


_MAX_BATCH = 64


class TorchDraftRunner(LearnedDraft):
    """The draft model. Every slot is a row of its state; a step gathers the rows that have a frame to hear.

    Args:
        ears: Folder of the recogniser whose encoder it hears through.
        draft: Folder of the model.
        tokenizer: tokenizer.json of its text.
        device: Torch device.
        max_slots: How many sessions may be followed.
        static: Steps of a few sizes, drafts in blocks of tokens; None: on a GPU.
        verifier: Folder of the verifier that judges drafts in the same step, where steps are static.
    """

    def __init__(
        self,
        ears: Path,
        draft: Path,
        tokenizer: Path,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        max_slots: int = 64,
        static: bool | None = None,
        verifier: Path | None = None,
    ) -> None:
        super().__init__(ears, draft, tokenizer, max_slots=max_slots, max_batch=min(max_slots, _MAX_BATCH))
        self._device = device
        self._static = device == "cuda" if static is None else static
        self._verifier_folder = verifier
        self._stream: DraftStream
        self._drafter: Drafter
        self._state: StreamState
        self._slots_of_model: DraftSlots
        self._listening: Pipeline
        self._decoding: Pipeline
        self._drafting: Drafting

    def load(self) -> None:
        """Loads all weights. Raises EngineUnavailable without torch or device, WeightsError."""
        try:
            import torch

            from relay_models.draft import load_draft
            from relay_models.draft_stream import Drafter, DraftStream
            from relay_models.ears import load_ears
        except ImportError as error:
            raise EngineUnavailable("the draft model needs torch: pip install 'relay-dialogue[gpu]'") from error
        if self._device == "cpu":
            torch.set_num_threads(1)  # single tokens are small products: more threads only wait for each other
        try:
            own_stream(self._device)
            self._tokenizer = ChatTokenizer.load(self._tokenizer_path)
            model = load_draft(self._draft_folder).to(self._device)
            self._config = model.config
            self._stream = DraftStream(load_ears(self._ears_folder).to(self._device), model)
            self._drafter = Drafter(model, self._tokenizer)
            self._drafting = Drafting(self._config, self._tokenizer)
            judging = self._load_judging() if self._static else None
        except (loading.WeightsError, ValueError) as error:
            raise WeightsError(str(error)) from error
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
            raise EngineUnavailable(f"torch cannot use {self._device!r}: {' '.join(str(error).split())}") from error
        assert self._stream.chunk_samples == DRAFT_FRAME_SAMPLES
        if self._static:
            self._prepare_static(judging)
            return
        with torch.no_grad():
            self._state = self._stream.fresh_state(self.max_slots)

    def _load_judging(self) -> Judging | None:
        """The verifier behind a draft's tokens. Raises ValueError or `relay_models`' WeightsError."""
        from relay_models.draft_slots import Judging
        from relay_models.verifier import load_verifier

        if self._verifier_folder is None:
            return None
        verifier = load_verifier(self._verifier_folder).to(self._device)
        ours, its = self._config.decoder.hidden_size, verifier.config.hidden_size
        if its != ours:
            raise ValueError(f"a verifier of states of {its} numbers with a draft model of {ours}; they do not fit")
        return Judging(verifier, self._drafting)

    def _prepare_static(self, judging: Judging | None) -> None:
        from relay_models.draft_slots import DraftSlots

        slots = DraftSlots(self._stream, self._drafting, self.max_slots, judging=judging)
        sizes = powers(self.max_batch)
        self._listening = static_steps(slots.listen, slots.listen_inputs, sizes, name="draft model")
        self._decoding = static_steps(slots.draft, slots.draft_inputs, sizes, name="draft model")
        self._slots_of_model, self._state = slots, slots.state

    def _reset(self, slot: int) -> None:
        import torch

        if self._static:
            self._slots_of_model.reset(slot)
            return
        self._state.reset(torch.arange(self.max_slots, device=self._device) == slot)

    def _release(self, slot: int) -> None:
        """Rows are kept, to be used again."""

    def unload(self) -> None:
        """Frees everything."""
        self._slots.clear()
        del self._stream, self._drafter, self._state
        if self._static:
            del self._slots_of_model, self._listening, self._decoding

    def _listen(self, slots: Sequence[int], pcm: Floats, previous: Integers) -> Floats:
        import torch

        from relay_models.state import StreamState

        specials: Floats
        if self._static:
            (specials,) = self._listening.start(slots=np.array(slots), pcm=pcm, previous=previous).results()
            return specials
        index = torch.tensor(list(slots), device=self._device)
        part = StreamState({name: tensor[index] for name, tensor in self._state.tensors.items()})
        said = torch.from_numpy(previous).to(self._device)
        listened, _ = self._stream.step(
            torch.from_numpy(pcm).to(self._device), said, part, torch.ones_like(said, dtype=torch.bool)
        )
        for name, tensor in self._state.tensors.items():
            tensor[index] = part[name]
        specials = listened.specials.cpu().numpy()
        return specials

    def _fork(self, slots: Sequence[int], confidences: Floats, max_tokens: int, max_words: int) -> list[Forked]:
        if not self._static:
            made = self._drafter.draft(self._state, slots, max_tokens=max_tokens, max_words=max_words)
            return [(each, None) for each in made]
        begin = np.ones(len(slots), dtype=np.bool_)
        judged: list[Judgement | None] = [None] * len(slots)

        def block(previous: Integers) -> Chosen:
            words = np.full(len(slots), max_words)
            step = self._decoding.start(
                slots=np.array(slots), previous=previous, begin=begin, confidence=confidences, words=words
            )
            begin[:] = False  # the others continue it
            tokens, hidden, numbers, *thought = step.results()
            if thought and max_tokens <= MAX_TOKENS:  # the draft is this block, no more
                judged[:] = map(Judgement, *(each.tolist() for each in thought))
            return Chosen(tokens, hidden, *np.moveaxis(numbers, 2, 0))

        drafts = self._drafting.run(block, len(slots), max_tokens=max_tokens, max_words=max_words)
        return list(zip(drafts, judged, strict=True))
