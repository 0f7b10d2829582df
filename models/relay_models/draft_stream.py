"""The duplex draft model in torch on streams of samples, one frame of 160 ms a step; and drafts from their forks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relay_models.draft import DraftModel
from relay_models.draft_config import RIGHT
from relay_models.drafting import MAX_TOKENS, MAX_WORDS, Chosen, Drafted, Drafting, Integers
from relay_models.ears import Ears
from relay_models.ears_chunk import ChunkStep
from relay_models.framing import ENDLESS, HOP_SAMPLES
from relay_models.state import StreamState
from relay_models.tokenizer import ChatTokenizer

__all__ = ["RIGHT", "DraftStream", "Drafter", "Listened"]


@dataclass(frozen=True, slots=True)
class Listened:
    """What one frame gave.

    Attributes:
        hidden: [rows, hidden_size].
        specials: [rows, 5] float32, probability of each `Special` at this frame.
    """

    hidden: Tensor
    specials: Tensor


class DraftStream:
    """Steps the model from samples. A stream's audio begins with `framing.LEAD_IN_SAMPLES` zeros.

    Args:
        ears: The recogniser whose encoder it listens through, in evaluation mode, its weights final.
        model: The draft model, likewise.

    Raises:
        ValueError: The two do not fit each other.
    """

    def __init__(self, ears: Ears, model: DraftModel) -> None:
        encoder = ears.config.encoder
        if encoder.size != model.config.speech_size:
            raise ValueError(f"ears of width {encoder.size} with a draft model for {model.config.speech_size}")
        if encoder.windows or RIGHT not in encoder.rights:
            raise ValueError(f"a draft model needs ears with a look-ahead of {RIGHT} frame, in chunks")
        self.model = model
        self._chunk = ChunkStep(ears, RIGHT)
        self.chunk_samples = self._chunk.encoder.chunk_mels * HOP_SAMPLES

    def fresh_state(self, rows: int) -> StreamState:
        """State for `rows` streams."""
        return StreamState({**self._chunk.fresh_tensors(rows), **self.model.fresh_tensors(rows)})

    @torch.no_grad()
    def step(self, pcm: Tensor, previous: Tensor, state: StreamState, active: Tensor) -> tuple[Listened, StreamState]:
        """The next frame of each active stream.

        Args:
            pcm: [rows, chunk_samples] at 16 kHz, full scale 1.
            previous: [rows] int64, what was said at the frame before; `SIL` at the first.
            state: Of `fresh_state`; advanced in place.
            active: [rows] bool; other rows keep their state and give results of no meaning.
        """
        rows = len(pcm)
        counts = torch.full((rows,), self.chunk_samples, device=pcm.device)
        chunk = self._chunk(pcm, counts, torch.full_like(counts, ENDLESS), state, active)
        hidden, _ = self.model.listen(chunk.frames, previous, state, active)
        return Listened(hidden, self.model.specials(hidden)), state


class Drafter:
    """Drafts replies.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Of its text.

    Raises:
        ValueError: The tokenizer is another model's.
    """

    def __init__(self, model: DraftModel, tokenizer: ChatTokenizer) -> None:
        self._model = model
        self._drafting = Drafting(model.config, tokenizer)
        self._banned = torch.from_numpy(self._drafting.banned).to(model.decoder.lm_head.weight.device)

    @torch.no_grad()
    def draft(
        self, state: StreamState, rows: Sequence[int], *, max_tokens: int = MAX_TOKENS, max_words: int = MAX_WORDS
    ) -> list[Drafted]:
        """What the model would say if these streams' turns had ended now. The state is not changed.

        Args:
            state: Of `DraftModel.fresh_state`, or one that holds its tensors among others.
            rows: Streams to draft for; not empty.
            max_tokens: Bound of a draft's tokens.
            max_words: Bound of its words.
        """
        model = self._model
        fork = StreamState({name: state[name][list(rows)].clone() for name in model.fresh_tensors(1)})
        active = torch.ones(len(rows), dtype=torch.bool, device=self._banned.device)

        def step(previous: Integers) -> Chosen:
            hidden, _ = model.decode(torch.from_numpy(previous).to(active.device), fork, active)
            token, *sure = model.choose(hidden, self._banned)
            # Together, so that a GPU is waited for once more only.
            numbers = torch.cat((hidden.float(), torch.stack(sure, dim=1)), dim=1).cpu().numpy()
            numbers = numbers[:, None]
            return Chosen(
                token.cpu().numpy()[:, None], numbers[..., : -len(sure)], *np.moveaxis(numbers[..., -len(sure) :], 2, 0)
            )

        return self._drafting.run(step, len(rows), max_tokens=max_tokens, max_words=max_words)
