"""The language model over slots: caches in static buffers, any few of them a step, so that steps can be CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from relay_models.decoder import Decoder
from relay_models.state import valid_positions
from relay_models.token_draw import draw_tokens, packed_width


class DecoderSlots:
    """A decoder's streams in slots. How many entries of a slot are valid is the caller's to know.

    Args:
        decoder: The model, in evaluation mode, on its device.
        slots: Number of streams.
        dtype: Type of the caches.

    Attributes:
        entries: [slots + 1, context + 1, layers, 2, kv_heads, head_dim]; the last slot belongs to rows that only fill a
            batch up, the last place to padding.
    """

    def __init__(self, decoder: Decoder, slots: int, *, dtype: torch.dtype = torch.float16) -> None:
        self._decoder = decoder
        self._slots = slots
        self.entries = decoder.fresh_state(slots + 1, dtype=dtype)["entries"]

    def inputs(self, rows: int, width: int) -> dict[str, Tensor]:
        """Inputs of a step of so many rows of nobody, of `width` tokens: static buffers for `slot_graph.Bucket`."""
        zeros = torch.zeros(rows, dtype=torch.int64, device=self.entries.device)
        set_bytes = packed_width(self._decoder.config.vocab_size)
        return {
            "slots": zeros + self._slots,
            "tokens": zeros[:, None].repeat(1, width),
            "lengths": zeros.clone(),
            "counts": zeros.clone(),
            "sampling": torch.ones(rows, 3, dtype=torch.float64, device=self.entries.device),
            "sets": torch.zeros(rows, 2, set_bytes, dtype=torch.uint8, device=self.entries.device),
            "active": zeros.bool(),
        }

    @torch.no_grad()
    def step(
        self, slots: Tensor, tokens: Tensor, lengths: Tensor, counts: Tensor, sampling: Tensor, sets: Tensor,
        active: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Appends tokens to the active rows' streams, and draws what comes next.

        Args:
            slots: [rows] int64; none twice, but for `slots` of the constructor, which only inactive rows may name.
            tokens: [rows, width] int64, padded at the end.
            lengths: [rows] int64, how many entries of each slot are valid: the new ones are written behind them.
            counts: [rows] int64, how many tokens each row really gets, at least one.
            sampling, sets: How the tokens after each row's last are drawn; see `token_draw.draw_tokens`.
            active: [rows] bool; other rows' slots keep their entries, and what is drawn for them means nothing.

        Returns:
            The drawn tokens [rows] int64, and what `draw_tokens` tells of each, [rows, 4] float32.
        """
        logits, new = self._decoder.advance(tokens, self.entries[slots], lengths, counts)
        width, padding = tokens.shape[1], self.entries.shape[1] - 1
        places = lengths[:, None] + torch.arange(width, device=tokens.device)
        places = places.where(valid_positions(counts, width) & active[:, None], padding)
        self.entries[slots[:, None], places] = new
        return draw_tokens(logits.float(), sampling, sets)
