"""One chunk of a batch of streams, from samples to encoder frames: what both runners compute."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from relay_models.ears import Ears
from relay_models.state import StreamState
from relay_models.streaming import EncoderStream


class Chunk(NamedTuple):
    """What the encoder made of a chunk.

    Attributes:
        frames: [rows, chunk_frames, size].
        valid: [rows, chunk_frames] bool, which of them lie inside their stream; none of an inactive row.
        ends: [rows, chunk_frames] float32, probability that the utterance has ended by then; None without that head.
    """

    frames: Tensor
    valid: Tensor
    ends: Tensor | None


class ChunkStep(nn.Module):
    """Front end, encoder and end head of a recogniser, with one look-ahead.

    Args:
        ears: The recogniser, in evaluation mode, its weights final.
        right: Look-ahead in frames; a chunk is of `right` + 1 frames.
    """

    def __init__(self, ears: Ears, right: int) -> None:
        super().__init__()
        self.features = ears.features
        self.encoder = EncoderStream(ears.encoder, right)
        self.end = ears.end

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams, all zero."""
        return {**self.features.fresh_tensors(rows), **self.encoder.fresh_tensors(rows)}

    def forward(self, pcm: Tensor, counts: Tensor, lengths: Tensor, state: StreamState, active: Tensor) -> Chunk:
        """The next chunk of each active stream.

        Args:
            pcm: [rows, chunk samples] at 16 kHz, full scale 1; a stream begins with `framing.LEAD_IN_SAMPLES` zeros.
            counts: [rows] int64, samples of them before the stream's end.
            lengths: [rows] int64, mel frames of each whole stream; `framing.ENDLESS` while its end is not known.
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool; other rows keep their state and give frames of no meaning.
        """
        features, _ = self.features.step(pcm, state, active, counts)
        frames, valid, _ = self.encoder.step(features, state, active, lengths)
        ends = None if self.end is None else torch.sigmoid(self.end(frames)[..., 0].float())
        return Chunk(frames, valid, ends)
