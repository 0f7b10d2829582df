"""A recogniser's front end, encoder and end head over slots: `relay_models.ears_chunk` for static steps."""

from __future__ import annotations

import torch
from torch import Tensor

from relay_models.ears import Ears
from relay_models.framing import HOP_SAMPLES
from relay_models.slot_ops import Ops
from relay_models.slots import SlotEncoder
from relay_models.state import StreamState


class EarsSlots:
    """A recogniser's streams in slots.

    Args:
        ears: The recogniser, in evaluation mode, its weights final.
        right: Look-ahead in frames; a chunk is of `right` + 1 frames.
        slots: Number of streams.
        ops: How the encoder computes; plain torch when None.

    Attributes:
        state: All that a stream has: copying a row copies the stream. See `SlotEncoder.state`.

    Raises:
        ValueError: The encoder attends in a way that slots are not built for.
    """

    def __init__(self, ears: Ears, right: int, slots: int, *, ops: Ops | None = None) -> None:
        self.slots = slots
        self.encoder = SlotEncoder(ears.encoder, right, slots, ops=ops)
        self._features = ears.features
        self._end = ears.end
        self._front = self._features.fresh_tensors(slots + 1)
        self.state = StreamState({**self._front, **self.encoder.state.tensors})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Inputs of a step of so many rows of nobody: static buffers for `slot_graph.Bucket`."""
        blank = self.encoder.inputs(rows)
        del blank["features"]
        samples = self.encoder.chunk_mels * HOP_SAMPLES
        like = blank["lengths"]
        pcm = like.new_zeros(rows, samples, dtype=torch.float32)
        return {**blank, "pcm": pcm, "counts": like.new_full((rows,), samples)}

    @torch.no_grad()
    def step(
        self, slots: Tensor, pcm: Tensor, counts: Tensor, lengths: Tensor, active: Tensor, fresh: Tensor
    ) -> tuple[Tensor, ...]:
        """The next chunk of each active row; see `SlotEncoder.step` for its other arguments.

        Args:
            slots, active, fresh: Which streams.
            pcm: [rows, chunk samples] at 16 kHz, full scale 1; a stream begins with `framing.LEAD_IN_SAMPLES` zeros.
            counts: [rows] int64, samples of them before the stream's end.
            lengths: [rows] int64, mel frames of each whole stream; `framing.ENDLESS` while its end is not known.

        Returns:
            Frames and validity as of `SlotEncoder.step`, and with that head, the probability that the utterance has
            ended by each frame, [rows, chunk_frames] float32.
        """
        front = StreamState(
            {name: tensor[slots].masked_fill(fresh[:, None], 0) for name, tensor in self._front.items()}
        )
        features, _ = self._features.step(pcm, front, active, counts)
        for name, tensor in self._front.items():
            tensor[slots] = front[name]
        frames, valid = self.encoder.step(slots, features, active, fresh, lengths)
        if self._end is None:
            return frames, valid
        return frames, valid, torch.sigmoid(self._end(frames)[..., 0].float())
