"""The voice's reading of words: symbols in a window -> vectors, lengths, pitch, voicing and energy.

A word is encoded from a window of its own (`voice_plan.window_of`), in which all symbols see each other. That makes the
bound on the look-ahead exact, through any number of layers, and leaves no state to keep.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.phonemes import PAD_ID
from relay_models.voice_plan import PLACES

PROSODY = 4
"""Of a symbol: logarithm of its frames; means over them of pitch and voicing, as features of the vocoder; energy."""
LENGTH, PITCH, VOICING, ENERGY = range(PROSODY)
_FARTHEST = 24
"""Distance in symbols from which on attention tells no more apart."""
_LONGEST = 5.0
"""Bound of a predicted logarithm of a length."""


class TextBlock(nn.Module):
    """Self-attention with a bias for every distance, then a convolution over neighbours and a feed-forward layer.

    The bias is learned (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

    Args:
        size, inner, heads, kernel: Channels, channels inside the feed-forward layer, heads, symbols of the convolution.
    """

    def __init__(self, size: int, inner: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(size)
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)
        self.distances = nn.Parameter(torch.zeros(2 * _FARTHEST + 1, heads))
        self.mix = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size)
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, inner)
        self.down = nn.Linear(inner, size)

    def forward(self, x: Tensor, valid: Tensor, distance: Tensor) -> Tensor:
        """[rows, symbols, size], valid [rows, symbols] bool, distance [symbols, symbols] int64 -> as `x`."""
        rows, symbols, size = x.shape
        parts = self.queries_keys_values(self.attention_norm(x)).reshape(rows, symbols, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.distances[distance].permute(2, 0, 1)[None]
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + bias
        # A finite number: rows of padding alone see nothing, and must not become nan.
        scores = scores.masked_fill(~valid[:, None, None], -1e4)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(rows, symbols, size)
        x = (x + self.output(mixed)) * valid[:, :, None]
        y = self.mix(x.transpose(1, 2)).transpose(1, 2)
        z: Tensor = (x + self.down(functional.gelu(self.up(self.norm(y))))) * valid[:, :, None]
        return z


class TextEncoder(nn.Module):
    """Windows -> a vector and a prosody for every symbol.

    Args:
        symbols: Number of symbols.
        size, inner, heads, kernel, layers: Of the blocks.
        output: Length of the vectors that go to the decoder.
        dropout: Share of values zeroed between blocks in training.
    """

    def __init__(
        self, symbols: int, size: int, inner: int, heads: int, kernel: int, layers: int, output: int, dropout: float
    ) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, size)
        self.places = nn.Embedding(PLACES, size)
        self.blocks = nn.ModuleList(TextBlock(size, inner, heads, kernel) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)
        self.prosody_inner = nn.Linear(size, size)
        self.prosody = nn.Linear(size, PROSODY)
        self.vector = nn.Linear(size, output)
        self.tune_inner = nn.Linear(PROSODY, output)
        self.tune = nn.Linear(output, output)

    def forward(self, ids: Tensor, places: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Reads windows.

        Args:
            ids, places: [windows, symbols] int64; see `voice_plan.padded`.
            speaker: [windows, size], the speaker's vector.

        Returns:
            States [windows, symbols, size] and the prosody predicted from them [windows, symbols, PROSODY].
        """
        valid = ids != PAD_ID
        numbers = torch.arange(ids.shape[1], device=ids.device)
        distance = (numbers[:, None] - numbers).clamp(-_FARTHEST, _FARTHEST) + _FARTHEST
        x = (self.symbols(ids) + self.places(places) + speaker[:, None]) * valid[:, :, None]
        for block in self.blocks:
            x = block(self.dropout(x), valid, distance)
        x = self.norm(x)
        prosody: Tensor = self.prosody(self.dropout(functional.gelu(self.prosody_inner(x))))
        return x, prosody

    def vectors(self, states: Tensor, prosody: Tensor) -> Tensor:
        """States [..., size] spoken with this prosody [..., PROSODY] -> vectors for the decoder [..., output]."""
        y: Tensor = self.vector(states) + self.tune(functional.gelu(self.tune_inner(prosody)))
        return y


def lengths_of(prosody: Tensor) -> Tensor:
    """Predicted frames [...] of prosody [..., PROSODY]."""
    return prosody[..., LENGTH].clamp(max=_LONGEST).exp()
