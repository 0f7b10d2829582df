"""The voice over slots: words read and 80 ms spoken as static steps, so that they can be CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from relay_models.state import StreamState
from relay_models.voice import Voice
from relay_models.voice_plan import POSITIONS, STEP_FRAMES


class VoiceSlots:
    """A voice's replies in slots; its first speaker says them.

    Args:
        voice: In evaluation mode, on its device, its weights final.
        slots: Number of replies.

    Attributes:
        state: Buffers of `slots` + 1 rows: the last one belongs to rows that only fill a batch up, and stays as it is.
    """

    def __init__(self, voice: Voice, slots: int) -> None:
        voice.vocoder.keep_basis()
        self._voice = voice
        self._slots = slots
        self.state = StreamState(voice.fresh_tensors(slots + 1))

    def read_inputs(self, rows: int, width: int) -> dict[str, Tensor]:
        """Inputs of `read` for so many empty windows of `width` symbols: static buffers for `slot_graph.Bucket`."""
        ids = torch.zeros(rows, width, dtype=torch.int64, device=self._voice.speakers.weight.device)
        return {"ids": ids, "places": ids.clone()}  # padding has the number 0

    @torch.no_grad()
    def read(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """See `Voice.encode`."""
        return self._voice.encode(ids, places, torch.zeros_like(ids[:, 0]))

    def speak_inputs(self, rows: int) -> dict[str, Tensor]:
        """Inputs of `speak` for so many rows of nobody: static buffers for `slot_graph.Bucket`."""
        like = self._voice.speakers.weight
        slots = torch.full((rows,), self._slots, device=like.device)
        nobody = torch.zeros_like(slots, dtype=torch.bool)
        return {
            "slots": slots,
            "vectors": like.new_zeros(rows, STEP_FRAMES, self._voice.config.size),
            "positions": like.new_zeros(rows, STEP_FRAMES, POSITIONS),
            "valid": nobody[:, None].repeat(1, STEP_FRAMES),
            "fresh": nobody.clone(),
            "active": nobody,
        }

    @torch.no_grad()
    def speak(
        self, slots: Tensor, vectors: Tensor, positions: Tensor, valid: Tensor, fresh: Tensor, active: Tensor
    ) -> tuple[Tensor]:
        """The next 80 ms of each active row's slot; see `Voice.step`.

        Args:
            slots: [rows] int64; none twice, but for `slots` of the constructor, which only inactive rows may name.
            vectors: [rows, STEP_FRAMES, size].
            positions: [rows, STEP_FRAMES, POSITIONS].
            valid: [rows, STEP_FRAMES] bool.
            fresh: [rows] bool, replies that begin: whatever the slot held before is forgotten.
            active: [rows] bool.

        Returns:
            [rows, STEP_FRAMES * HOP_SAMPLES] float32, full scale 1.
        """
        part = StreamState(
            {
                name: tensor[slots].masked_fill((fresh & active).reshape(-1, *(1,) * (tensor.dim() - 1)), 0)
                for name, tensor in self.state.tensors.items()
            }
        )
        samples, _ = self._voice.step(vectors, positions, valid, part, active)
        for name, tensor in self.state.tensors.items():
            tensor[slots] = part[name]
        return (samples,)
