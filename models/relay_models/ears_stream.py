"""The recogniser on streams of samples: any number of slots, pieces of any length, one chunk a step.

The samples wait in a queue until they fill a chunk. Everything behind the queue goes chunk by chunk with shapes that
never change, whatever the callers send.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from relay_models.decoding import Emissions, GreedyCTC, GreedyTransducer
from relay_models.ears import Ears
from relay_models.ears_chunk import ChunkStep
from relay_models.framing import ENDLESS, HOP_SAMPLES, LEAD_IN_SAMPLES, SUBSAMPLING, frame_counts
from relay_models.state import StreamState, valid_positions, write_rows


@dataclass(frozen=True, slots=True)
class Heard:
    """What one step made of its chunks.

    Attributes:
        emissions: Tokens that were said.
        frames: [rows, chunk_frames, size], the encoder's frames.
        valid: [rows, chunk_frames] bool, which of them lie inside their stream; none of a row that had no whole chunk.
        end_probabilities: [rows, chunk_frames] float32, that the utterance has ended by then; None without that head.
    """

    emissions: Emissions
    frames: Tensor
    valid: Tensor
    end_probabilities: Tensor | None


class EarsStream:
    """Steps a recogniser.

    Args:
        ears: The recogniser, in evaluation mode, its weights final.
        right: Look-ahead in frames, one of the encoder's `rights`; the default one when None.
        head: `transducer` or `ctc`.

    Raises:
        ValueError: The head is unknown, or the recogniser has none of that name.
    """

    def __init__(self, ears: Ears, *, right: int | None = None, head: str = "transducer") -> None:
        self._chunk = ChunkStep(ears, ears.config.encoder.rights[0] if right is None else right)
        self.encoder = self._chunk.encoder
        self.chunk_samples = self.encoder.chunk_mels * HOP_SAMPLES
        self._decoder: GreedyTransducer | GreedyCTC
        if head == "transducer":
            self._decoder = GreedyTransducer(ears.predictor, ears.joint)
        elif head == "ctc" and ears.ctc is not None:
            self._decoder = GreedyCTC(ears.ctc)
        else:
            raise ValueError(f"this recogniser has no head called {head!r}")

    def fresh_state(self, rows: int, *, push_samples: int) -> StreamState:
        """State for `rows` streams that are sent `push_samples` at a time at most."""
        device = self._chunk.features.window.device
        return StreamState(
            {
                # One sample more than can wait: padding is written there.
                "queue.samples": torch.zeros(rows, self.chunk_samples + push_samples + 1, device=device),
                "queue.received": torch.zeros(rows, dtype=torch.int64, device=device),
                "queue.ended": torch.zeros(rows, dtype=torch.bool, device=device),
                **self._chunk.fresh_tensors(rows),
                **self._decoder.fresh_tensors(rows),
            }
        )

    def push(self, pcm: Tensor, counts: Tensor, state: StreamState) -> StreamState:
        """Queues samples. Between two pushes, `step` until no row is `ready`.

        Args:
            pcm: [rows, samples] at 16 kHz, int16 or floating with full scale 1; as many samples as the state was made
                for, at most.
            counts: [rows] int64, how many of them are each row's.
            state: Of `fresh_state`; advanced in place.
        """
        queue = state["queue.samples"]
        samples = pcm.float() if pcm.is_floating_point() else pcm.float() / 32768
        if samples.shape[1] > queue.shape[1] - self.chunk_samples - 1:
            raise ValueError(f"{samples.shape[1]} samples pushed into a state made for fewer")
        places = self._waiting(state)[:, None] + torch.arange(samples.shape[1], device=queue.device)
        places = places.where(valid_positions(counts, samples.shape[1]), queue.shape[1] - 1)
        queue.scatter_(1, places, samples)
        state["queue.received"].add_(counts)
        return state

    def end(self, mask: Tensor, state: StreamState) -> StreamState:
        """The streams of `mask` [rows] bool end here; the steps that follow give what is left of them."""
        state["queue.ended"].logical_or_(mask)
        return state

    def ready(self, state: StreamState) -> Tensor:
        """Rows that the next step would advance: [rows] bool."""
        done = state["encoder.position"] - self.encoder.delay_frames >= frame_counts(self._lengths(state))
        return torch.where(state["queue.ended"], ~done, self._waiting(state) >= self.chunk_samples)

    @torch.no_grad()
    def step(self, state: StreamState) -> tuple[Heard, StreamState]:
        """One chunk of every ready row; the others stay as they are."""
        active, queue = self.ready(state), state["queue.samples"]
        pcm, counts = queue[:, : self.chunk_samples], self._waiting(state).clamp(0, self.chunk_samples)
        chunk = self._chunk(pcm, counts, self._lengths(state), state, active)
        write_rows(queue, functional.pad(queue[:, self.chunk_samples :], (0, self.chunk_samples)), active)
        emissions, _ = self._decoder.step(chunk.frames, chunk.valid, state)
        return Heard(emissions, *chunk), state

    def _waiting(self, state: StreamState) -> Tensor:
        """Samples in each row's queue, the zeros before its first sample included: [rows] int64."""
        taken = state["encoder.position"] * SUBSAMPLING * HOP_SAMPLES
        return state["queue.received"] + LEAD_IN_SAMPLES - taken

    def _lengths(self, state: StreamState) -> Tensor:
        """Mel frames of each whole stream, as far as known: [rows] int64."""
        return (state["queue.received"] // HOP_SAMPLES).where(state["queue.ended"], ENDLESS)
