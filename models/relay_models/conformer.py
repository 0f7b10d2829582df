"""The FastConformer block: macaron feed-forward, self-attention, causal convolution.

Gulati et al. 2020 (Conformer, arXiv 2005.08100), Rekesh et al. 2023 (FastConformer, arXiv 2305.05084), made
streamable as Noroozi et al. 2023 describe (arXiv 2312.17279): causal convolutions, LayerNorm
instead of batch norm, attention of bounded reach. Attention has Transformer-XL's relative positions (Dai et al. 2019,
arXiv 1901.02860, section 3.3), or none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.state import write_rows


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """Sizes of one block.

    Attributes:
        size: Width of the residual stream.
        heads: Attention heads; divides `size`.
        inner: Width inside the feed-forwards.
        kernel: Frames that the depthwise convolution covers.
        relative_positions: Attention knows distances; otherwise it has no positions at all.
        attention_bias: The projections and feed-forwards have biases.
        convolution_bias: The convolutions have biases.
        dropout: Share dropped in training: inside the feed-forwards, attention weights, and every branch.
    """

    size: int
    heads: int
    inner: int
    kernel: int
    relative_positions: bool
    attention_bias: bool
    convolution_bias: bool
    dropout: float


@dataclass(frozen=True, slots=True)
class Step:
    """What a block's step must know about its rows; the same for all layers of one reach and delay.

    Attributes:
        visible: [rows, 1, frames, span] bool, which cached frames each query may see.
        distances: [rows, 1, frames, span] int64, where each pair's distance stands in the table of distances.
        places: [rows, frames] int64, where the new frames go in the ring.
        valid: [rows, frames] bool, queries that lie inside their stream.
        active: [rows] bool, rows whose state advances.
        delay: Frames by which the queries lag behind the new keys.
    """

    visible: Tensor
    distances: Tensor
    places: Tensor
    valid: Tensor
    active: Tensor
    delay: int


def distance_embeddings(nearest: int, farthest: int, size: int, device: torch.device) -> Tensor:
    """Sinusoids of the distances `farthest`, `farthest` - 1 ... `nearest`: [farthest - nearest + 1, size] float32.

    A distance is query minus key, in frames; sine and cosine of one frequency stand side by side.
    """
    distances = torch.arange(farthest, nearest - 1, -1, dtype=torch.float32, device=device)
    rates = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)
    angles = distances[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class FeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.linear1 = nn.Linear(config.size, config.inner, bias=config.attention_bias)
        self.linear2 = nn.Linear(config.inner, config.size, bias=config.attention_bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        y: Tensor = self.linear2(self.dropout(functional.silu(self.linear1(x))))
        return y


class Attention(nn.Module):
    """Multi-head self-attention over whatever a mask lets each frame see."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        size = config.size
        self.heads = config.heads
        self.head_dim = size // config.heads
        self.scale = self.head_dim**-0.5
        self.dropout = config.dropout
        self.q_proj = nn.Linear(size, size, bias=config.attention_bias)
        self.k_proj = nn.Linear(size, size, bias=config.attention_bias)
        self.v_proj = nn.Linear(size, size, bias=config.attention_bias)
        self.o_proj = nn.Linear(size, size, bias=config.attention_bias)
        if config.relative_positions:
            self.distance_proj = nn.Linear(size, size, bias=False)
            self.content_bias = nn.Parameter(torch.zeros(config.heads, self.head_dim))
            self.distance_bias = nn.Parameter(torch.zeros(config.heads, self.head_dim))

    def split(self, x: Tensor) -> Tensor:
        """[..., time, size] -> [..., heads, time, head_dim]."""
        return x.reshape(*x.shape[:-1], self.heads, self.head_dim).transpose(-3, -2)

    def distance_keys(self, embeddings: Tensor) -> Tensor:
        """What `distance_embeddings` [distances, size] are to this layer: [heads, distances, head_dim]."""
        return self.split(self.distance_proj(embeddings))

    def forward(self, x: Tensor, visible: Tensor, embeddings: Tensor | None) -> Tensor:
        """Whole utterances.

        Args:
            x: [batch, time, size].
            visible: [batch, 1, time, time] bool; each query sees one key at least.
            embeddings: Of the distances time - 1 ... 1 - time; None without positions.

        Returns:
            [batch, time, size].
        """
        query, key, value = self.split(self.q_proj(x)), self.split(self.k_proj(x)), self.split(self.v_proj(x))
        if embeddings is None:
            return self._mix(query, key, value, visible)
        scores = self._biased(query, self.distance_bias) @ self.distance_keys(embeddings).transpose(1, 2)
        query = self._biased(query, self.content_bias)
        return self._mix(query, key, value, self._as_bias(_align(scores), visible))

    def step(self, queries: Tensor, new: Tensor, cache: Tensor, step: Step, distance_keys: Tensor | None) -> Tensor:
        """New frames of streams.

        Args:
            queries: [rows, frames, size].
            new: [rows, frames, size], the frames whose keys and values enter the ring.
            cache: [rows, 2 (key, value), heads, span, head_dim]; written in place.
            step: The rows' positions.
            distance_keys: [heads, distances, head_dim], or None without positions.

        Returns:
            [rows, frames, size] for the queries.
        """
        entries = torch.stack((self.split(self.k_proj(new)), self.split(self.v_proj(new))), dim=1).to(cache.dtype)
        index = step.places[:, None, None, :, None].expand_as(entries)
        cache.scatter_(3, index, entries.where(step.active[:, None, None, None, None], cache.gather(3, index)))
        query, key, value = self.split(self.q_proj(queries)), cache[:, 0], cache[:, 1]
        if distance_keys is None:
            return self._mix(query, key.to(query.dtype), value.to(query.dtype), step.visible)
        scores = self._biased(query, self.distance_bias) @ distance_keys.transpose(1, 2)
        scores = scores.gather(3, step.distances.expand(-1, self.heads, -1, -1))
        query = self._biased(query, self.content_bias)
        bias = self._as_bias(scores, step.visible)
        return self._mix(query, key.to(query.dtype), value.to(query.dtype), bias)

    @staticmethod
    def _biased(query: Tensor, bias: Tensor) -> Tensor:
        """[batch, heads, time, head_dim] plus [heads, head_dim], in the query's type; autocast would widen it."""
        return query + bias[:, None].to(query.dtype)

    def _as_bias(self, scores: Tensor, visible: Tensor) -> Tensor:
        """Position scores as the additive mask of the attention kernel."""
        bias: Tensor = (scores * self.scale).masked_fill(~visible, float("-inf"))
        return bias

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attention and the output projection: [batch, heads, time, head_dim] -> [batch, time, size]."""
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=self.scale
        )
        y: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return y


def _align(scores: Tensor) -> Tensor:
    """Scores by distance [..., time, 2 time - 1], farthest first -> by key [..., time, time].

    Query i meets key j at distance i - j, column time - 1 - i + j. Reading the padded rows one column short shifts
    row i by i, without a gather (Dai et al. 2019, appendix B).
    """
    time = scores.shape[-2]
    flat = functional.pad(scores, (1, 0)).flatten(-2)
    return flat[..., time:].reshape(*scores.shape)[..., :time]


class Convolution(nn.Module):
    """Gated pointwise convolution, causal depthwise convolution, LayerNorm, SiLU, pointwise convolution."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        size, bias = config.size, config.convolution_bias
        self.pointwise1 = nn.Linear(size, 2 * size, bias=bias)
        self.depthwise = nn.Conv1d(size, size, config.kernel, groups=size, bias=bias)
        self.norm = nn.LayerNorm(size)
        self.pointwise2 = nn.Linear(size, size, bias=bias)
        self.past = config.kernel - 1

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Whole utterances: x [batch, time, size], valid [batch, time] bool -> [batch, time, size]."""
        return self._finish(functional.pad(self._gate(x, valid), (0, 0, self.past, 0)))

    def step(self, x: Tensor, valid: Tensor, tail: Tensor, active: Tensor) -> Tensor:
        """New frames: x [rows, frames, size], valid [rows, frames] bool, tail [rows, kernel - 1, size] in place."""
        gated = torch.cat((tail.to(x.dtype), self._gate(x, valid)), dim=1)
        write_rows(tail, gated[:, gated.shape[1] - self.past :], active)
        return self._finish(gated)

    def _gate(self, x: Tensor, valid: Tensor) -> Tensor:
        """What enters the depthwise convolution; frames outside the utterance are silent."""
        return functional.glu(self.pointwise1(x), dim=-1) * valid[:, :, None]

    def _finish(self, gated: Tensor) -> Tensor:
        """[batch, kernel - 1 + time, size] -> [batch, time, size]."""
        smoothed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        y: Tensor = self.pointwise2(functional.silu(self.norm(smoothed)))
        return y


class Block(nn.Module):
    """One layer of the encoder."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.feed_forward1 = FeedForward(config)
        self.attention = Attention(config)
        self.convolution = Convolution(config)
        self.feed_forward2 = FeedForward(config)
        self.norm_feed_forward1 = nn.LayerNorm(config.size)
        self.norm_attention = nn.LayerNorm(config.size)
        self.norm_convolution = nn.LayerNorm(config.size)
        self.norm_feed_forward2 = nn.LayerNorm(config.size)
        self.norm_out = nn.LayerNorm(config.size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, visible: Tensor, embeddings: Tensor | None, valid: Tensor) -> Tensor:
        """Whole utterances: [batch, time, size] in and out; see `Attention.forward` and `Convolution.forward`."""
        x = x + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(x)))
        x = x + self.dropout(self.attention(self.norm_attention(x), visible, embeddings))
        x = x + self.dropout(self.convolution(self.norm_convolution(x), valid))
        return self._finish(x)

    def step(
        self,
        x: Tensor,
        step: Step,
        cache: Tensor,
        tail: Tensor,
        waiting: Tensor | None,
        distance_keys: Tensor | None,
    ) -> Tensor:
        """New frames of streams.

        Args:
            x: [rows, frames, size].
            step: The rows' positions.
            cache: Ring of keys and values, in place; see `Attention.step`.
            tail: Last inputs of the depthwise convolution, in place; see `Convolution.step`.
            waiting: [rows, delay, size], frames whose look-ahead has not come yet, in place; None without delay.
            distance_keys: See `Attention.step`.

        Returns:
            [rows, frames, size], the frames `step.delay` earlier than x.
        """
        frames = x.shape[1]
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        new = self.norm_attention(x)
        queries = new
        if waiting is not None:
            both = torch.cat((waiting.to(x.dtype), x), dim=1)
            write_rows(waiting, both[:, frames:], step.active)
            x = both[:, :frames]
            queries = self.norm_attention(x)
        x = x + self.attention.step(queries, new, cache, step, distance_keys)
        x = x + self.convolution.step(self.norm_convolution(x), step.valid, tail, step.active)
        return self._finish(x)

    def _finish(self, x: Tensor) -> Tensor:
        """The second feed-forward and the last norm."""
        y: Tensor = self.norm_out(x + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(x))))
        return y
