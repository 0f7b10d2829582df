"""The duplex draft model on streams of samples: front end, encoder and draft model, one frame of 160 ms a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relay_models.draft import SPEECH_FRAMES, DraftModel, Special
from relay_models.ears import Ears
from relay_models.ears_chunk import ChunkStep
from relay_models.framing import ENDLESS, HOP_SAMPLES
from relay_models.state import StreamState

RIGHT = SPEECH_FRAMES - 1
"""Look-ahead of the encoder: the two encoder frames of a frame see each other, which costs no time."""


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
        probabilities = self.model.logits(hidden).float().softmax(-1)
        first = self.model.config.text_tokens
        return Listened(hidden, probabilities[:, first : first + len(Special)]), state
