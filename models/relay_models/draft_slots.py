"""The duplex draft model over slots: frames and whole drafts as static steps, so that they can be CUDA graphs.

A draft's tokens follow one another on the device, and the verifier follows them: the host is asked for nothing between,
and sees all of it when a block of `BLOCK` tokens is done, which holds the whole of a draft that is to be verified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relay_models.draft_config import Special
from relay_models.draft_stream import DraftStream
from relay_models.drafting import MAX_TOKENS, Drafting
from relay_models.state import StreamState
from relay_models.verifier import DraftBatch, Verifier

BLOCK = MAX_TOKENS + 1


class Judging:
    """The verifier on a block of tokens as they left the model: what `Drafting` cuts and `HostVerifier` judges.

    Args:
        verifier: In evaluation mode, on its device, its weights final.
        drafting: The rules of drafts.

    Raises:
        ValueError: The verifier judges shorter drafts only.
    """

    def __init__(self, verifier: Verifier, drafting: Drafting) -> None:
        if verifier.config.max_tokens < MAX_TOKENS:
            raise ValueError(f"a verifier of {verifier.config.max_tokens} tokens; drafts have up to {MAX_TOKENS}")
        self._verifier = verifier
        self._begins = torch.from_numpy(drafting.begins).to(verifier.query.device)
        self._end = drafting.end

    def cut(self, tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """The whole words of each row.

        Args:
            tokens: [rows, BLOCK] int64; what follows a row's end has no meaning.
            words: [rows] int64, bound of each.

        Returns:
            [rows] int64 each: how many tokens are kept, and how many words they are.
        """
        ended = tokens == self._end
        before = ended.cumsum(1) - ended.long()  # how many ends
        places = torch.arange(tokens.shape[1], device=tokens.device)
        # A word is whole where the next one begins, or the turn ends.
        ends = (self._begins[tokens] | ended) & (before == 0) & (places > 0)
        kept = ends & (ends.cumsum(1) <= words[:, None])
        return (kept * places).amax(1), kept.sum(1)

    def judge(
        self, tokens: Tensor, hidden: Tensor, numbers: Tensor, confidence: Tensor, words: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Verifier.judge`.

        Args:
            tokens, hidden, numbers: As `DraftSlots.draft` gives them, of drafts that begin with the block.
            confidence: [rows] float32, how sure the recogniser is of what each answers.
            words: [rows] int64, most words of each.
        """
        log_probability, entropy, margin = numbers.unbind(-1)
        scalars = torch.stack((entropy, log_probability, margin, confidence[:, None].expand_as(entropy)), dim=-1)
        kept, whole = self.cut(tokens, words)
        return self._verifier.judge(DraftBatch(hidden[:, :MAX_TOKENS], scalars[:, :MAX_TOKENS], kept, whole))


class DraftSlots:
    """The model's streams in slots.

    Args:
        stream: The model and what it hears through, on their device, their weights final.
        drafting: The rules of drafts.
        slots: Number of streams.
        judging: Judges every draft behind its last token, on the same device; None: nobody does here.

    Attributes:
        state: Buffers of `slots` + 1 rows: the last one belongs to rows that only fill a batch up, and stays as it is.
    """

    def __init__(self, stream: DraftStream, drafting: Drafting, slots: int, *, judging: Judging | None = None) -> None:
        self._stream = stream
        self._slots = slots
        self.state = stream.fresh_state(slots + 1)
        self._decoded = tuple(stream.model.fresh_tensors(1))
        self._device = self.state[self._decoded[0]].device
        self._banned = torch.from_numpy(drafting.banned).to(self._device)
        self._judging = judging
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
        none = torch.zeros_like(nobody["slots"])
        asked = {} if self._judging is None else {"confidence": none.float(), "words": none.clone()}
        return {**nobody, "previous": none, "begin": nobody["active"].clone(), **asked}

    @torch.no_grad()
    def draft(
        self,
        slots: Tensor,
        previous: Tensor,
        begin: Tensor,
        active: Tensor,
        confidence: Tensor | None = None,
        words: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The next `BLOCK` tokens of each active row's draft, on a fork of its slot, whose state stays.

        Args:
            slots: As in `listen`; for a block that does not begin, the same rows as for the one before.
            previous: [rows] int64, the token before; of no meaning where a draft begins.
            begin: [rows] bool, drafts that begin; the others go on from the block before.
            active: [rows] bool.
            confidence, words: See `Judging.judge`; where there is one.

        Returns:
            Tokens [rows, BLOCK] int64, hidden states [rows, BLOCK, hidden_size], and the log-probability, entropy and
            margin of each token [rows, BLOCK, 3] float32; see `drafting.Chosen`. With `judging` also what it thinks of
            each draft; see `Verifier.judge`. It has no meaning for a block that does not begin.
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
        block = torch.stack(tokens, 1), torch.stack(hiddens, 1), torch.stack(numbers, 1)
        if self._judging is None or confidence is None or words is None:
            return block
        return *block, *self._judging.judge(*block, confidence, words)
