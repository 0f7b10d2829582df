"""The duplex draft model over slots: frames and whole drafts as static steps, so that they can be CUDA graphs.

A draft's tokens follow one another on the device: the host is asked for nothing between them, and sees them when a
block of `BLOCK` is done, which holds all of a draft that is to be verified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relay_models.draft_config import Special
from relay_models.draft_stream import DraftStream
from relay_models.drafting import MAX_TOKENS
from relay_models.state import StreamState

BLOCK = MAX_TOKENS + 1


class DraftSlots:
    """The model's streams in slots.

    Args:
        stream: The model and what it hears through, on their device, their weights final.
        banned: [vocabulary] bool, tokens that no draft says.
        slots: Number of streams.

    Attributes:
        state: Buffers of `slots` + 1 rows: the last one belongs to rows that only fill a batch up, and stays as it is.
    """

    def __init__(self, stream: DraftStream, banned: Tensor, slots: int) -> None:
        self._stream = stream
        self._slots = slots
        self.state = stream.fresh_state(slots + 1)
        self._decoded = tuple(stream.model.fresh_tensors(1))
        self._device = self.state[self._decoded[0]].device
        self._banned = banned.to(self._device)
        self._begin = stream.model.config.token(Special.BOS)
        self._forks: dict[int, StreamState] = {}

    def reset(self, slot: int) -> None:
        """Gives a slot fresh state."""
        for tensor in self.state.tensors.values():
            tensor[slot] = 0

    def _nobody(self, rows: int) -> dict[str, Tensor]:
        slots = torch.full((rows,), self._slots, device=self._device)
        return {"slots": slots, "active": torch.zeros_like(slots, dtype=torch.bool)}

    def listen_inputs(self, rows: int) -> dict[str, Tensor]:
        """Inputs of `listen` for so many rows of nobody: static buffers for `slot_graph.Bucket`."""
        nobody = self._nobody(rows)
        pcm = torch.zeros(rows, self._stream.chunk_samples, device=self._device)
        return {**nobody, "pcm": pcm, "previous": torch.zeros_like(nobody["slots"])}

    @torch.no_grad()
    def listen(self, slots: Tensor, pcm: Tensor, previous: Tensor, active: Tensor) -> tuple[Tensor]:
        """The next frame of each active row's slot; see `DraftStream.step`.

        Args:
            slots: [rows] int64; none twice, but for `slots` of the constructor, which only inactive rows may name.
            pcm: [rows, chunk_samples].
            previous: [rows] int64.
            active: [rows] bool.

        Returns:
            [rows, 5] float32, the probability of each `Special`.
        """
        part = StreamState({name: tensor[slots] for name, tensor in self.state.tensors.items()})
        listened, _ = self._stream.step(pcm, previous, part, active)
        for name, tensor in self.state.tensors.items():
            tensor[slots] = part[name]
        return (listened.specials,)

    def draft_inputs(self, rows: int) -> dict[str, Tensor]:
        """Inputs of `draft` for so many rows of nobody, and room for their forks."""
        nobody = self._nobody(rows)
        fork = {name: torch.zeros_like(self.state[name][:1]).repeat_interleave(rows, 0) for name in self._decoded}
        self._forks[rows] = StreamState(fork)
        return {**nobody, "previous": torch.zeros_like(nobody["slots"]), "begin": nobody["active"].clone()}

    @torch.no_grad()
    def draft(self, slots: Tensor, previous: Tensor, begin: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next `BLOCK` tokens of each active row's draft, on a fork of its slot, whose state stays.

        Args:
            slots: As in `listen`; for a block that does not begin, the same rows as for the one before.
            previous: [rows] int64, the token before; of no meaning where a draft begins.
            begin: [rows] bool, drafts that begin; the others go on from the block before.
            active: [rows] bool.

        Returns:
            Tokens [rows, BLOCK] int64, hidden states [rows, BLOCK, hidden_size], and the log-probability, entropy and
            margin of each token [rows, BLOCK, 3] float32; see `drafting.Chosen`.
        """
        model, fork = self._stream.model, self._forks[len(slots)]
        for name, tensor in fork.tensors.items():
            fresh = begin.reshape(-1, *(1,) * (tensor.dim() - 1))
            tensor.copy_(torch.where(fresh, self.state[name][slots], tensor))
        previous = previous.masked_fill(begin, self._begin)
        tokens, hiddens, numbers = [], [], []
        for _ in range(BLOCK):
            hidden, _ = model.decode(previous, fork, active)
            previous, *sure = model.choose(hidden, self._banned)
            tokens.append(previous)
            hiddens.append(hidden.float())
            numbers.append(torch.stack(sure, dim=1))
        return torch.stack(tokens, 1), torch.stack(hiddens, 1), torch.stack(numbers, 1)
