"""The cache-aware FastConformer: one encoder for whole recordings and for streams, with several look-aheads.

Noroozi et al. 2023, "Stateful Conformer with Cache-based Inference for Streaming Automatic Speech Recognition" (arXiv
2312.17279): everything but attention is causal; attention sees whole chunks ("chunk-aware look-ahead"), and one model
serves several chunk lengths when training draws one per batch ("multiple latencies"). Encoder frames are 80 ms.

With chunks of `right` + 1 frames, frame i sees every frame of its own chunk and of the left // (right + 1) chunks
before it, so the look-ahead of a whole stack of layers is `right` frames at most, not `right` frames a layer. The
other pattern, sliding windows without positions (Moonshine v2, arXiv 2602.12241), adds up the right reach of the
layers instead.

`Encoder.forward` is the definition; `relay_models.streaming` computes the same frames chunk by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.conformer import Block, BlockConfig, distance_embeddings
from relay_models.framing import STAGES, SUBSAMPLING, frame_counts
from relay_models.loading import WeightsError
from relay_models.state import StreamState, valid_positions, write_rows


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes and reach.

    Attributes:
        mel_bins: Features a mel frame (10 ms).
        channels: Channels of the subsampling convolutions.
        size: Width of the residual stream.
        layers: Number of blocks.
        heads: Attention heads; divides `size`.
        inner: Width inside the feed-forwards.
        kernel: Frames that a block's depthwise convolution covers.
        left: Frames before its chunk that a frame may see, rounded down to whole chunks.
        rights: Look-aheads that the model is trained for, in frames. The first one is the default.
        windows: (left, right) reach in frames of each layer's sliding window; empty for attention in chunks.
        relative_positions: Attention knows distances.
        attention_bias: Attention and feed-forwards have biases.
        convolution_bias: The blocks' convolutions have biases.
        scale_input: The subsampled input is multiplied by the square root of `size`.
        dropout: Share dropped in training.
    """

    mel_bins: int = 80
    channels: int = 256
    size: int = 256
    layers: int = 12
    heads: int = 4
    inner: int = 1024
    kernel: int = 9
    left: int = 70
    rights: tuple[int, ...] = (0, 1, 6, 13)
    windows: tuple[tuple[int, int], ...] = ()
    relative_positions: bool = True
    attention_bias: bool = True
    convolution_bias: bool = True
    scale_input: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError when the sizes do not fit each other."""
        if self.size % self.heads or self.size % 2:
            raise ValueError(f"size {self.size} must be even and a multiple of {self.heads} heads")
        if self.windows and len(self.windows) != self.layers:
            raise ValueError(f"{len(self.windows)} windows for {self.layers} layers; give one for each")
        if not self.rights or min(self.rights) < 0:
            raise ValueError("rights needs one look-ahead at least, none negative")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Reads the JSON form. Raises WeightsError when it does not describe an encoder."""
        try:
            values = dict(values)
            values["rights"] = tuple(values.get("rights", cls().rights))
            values["windows"] = tuple((left, right) for left, right in values.get("windows", ()))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"these are not the settings of an encoder: {error}") from error

    @property
    def block(self) -> BlockConfig:
        """What one block needs to know."""
        return BlockConfig(
            size=self.size,
            heads=self.heads,
            inner=self.inner,
            kernel=self.kernel,
            relative_positions=self.relative_positions,
            attention_bias=self.attention_bias,
            convolution_bias=self.convolution_bias,
            dropout=self.dropout,
        )

    def reaches(self, right: int) -> tuple[Reach, ...]:
        """Each layer's reach, for chunks of `right` + 1 frames."""
        if self.windows:
            return tuple(Reach(left, after, None) for left, after in self.windows)
        return (Reach(self.left // (right + 1) * (right + 1), right, right + 1),) * self.layers


@dataclass(frozen=True, slots=True)
class Reach:
    """Which frames a layer's queries may see.

    Attributes:
        left: Frames before the query (before its chunk, with chunks).
        right: Frames after the query at most.
        chunk: Frames of a chunk, or None for a sliding window.
    """

    left: int
    right: int
    chunk: int | None

    @property
    def delay(self) -> int:
        """Frames by which a layer's output lags behind its input; with chunks, a chunk brings its own look-ahead."""
        return 0 if self.chunk else self.right

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether frame numbers `query` may see frame numbers `key`, broadcast against each other."""
        if self.chunk is None:
            distance = query - key
            return (distance <= self.left) & (distance >= -self.right)
        chunks = query // self.chunk - key // self.chunk
        return (chunks >= 0) & (chunks <= self.left // self.chunk)


class Encoded(NamedTuple):
    """What the encoder makes of a batch of recordings.

    Attributes:
        frames: [batch, frames, size].
        lengths: [batch] int64, frames of each recording.
        middle: [batch, frames, size] after the layer asked for, or None.
    """

    frames: Tensor
    lengths: Tensor
    middle: Tensor | None


class Stage(nn.Module):
    """A causal 3 x 3 convolution of stride 2: a full one, or depthwise and then pointwise."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, channels, 3, stride=2, groups=inputs)
        self.pointwise = nn.Identity() if inputs == 1 else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, *, past: int) -> Tensor:
        """[batch, inputs, time, bins] -> [batch, channels, .., bins // 2 + 1], after `past` zeros in time.

        Output j takes inputs 2 j - 2 to 2 j, in time and in frequency.
        """
        # Padded alike on both sides, which the kernel does by itself; the one output too many is cut off again.
        y = functional.conv2d(
            x, self.convolution.weight, self.convolution.bias, 2, (past, 2), 1, self.convolution.groups
        )
        y = y[:, :, : x.shape[2] // 2 + 1, : x.shape[3] // 2 + 1]
        z: Tensor = self.pointwise(y)
        return z


class Subsampling(nn.Module):
    """Depthwise-striding subsampling of log-mel features by 8 (FastConformer, arXiv 2305.05084), causal."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.bins = [config.mel_bins]
        for _ in range(STAGES):
            self.bins.append(self.bins[-1] // 2 + 1)
        self.channels = [1, *[config.channels] * (STAGES - 1)]
        self.stages = nn.ModuleList(Stage(inputs, config.channels) for inputs in self.channels)
        self.linear = nn.Linear(config.channels * self.bins[-1], config.size)
        self.scale = math.sqrt(config.size) if config.scale_input else 1.0

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Whole recordings: [batch, mel frames, mel_bins], mel frames of each -> [batch, frames, size]."""
        x = (features * valid_positions(lengths, features.shape[1])[:, :, None])[:, None]
        x = x.to(self.linear.bias.dtype)
        for stage in self.stages:
            lengths = lengths // 2 + 1
            x = stage(x, past=2)
            x = functional.relu(x * valid_positions(lengths, x.shape[2])[:, None, :, None])
        return self._flatten(x)

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers: the last input frame of each stage."""
        return {
            f"encoder.subsampling.{index}": self.linear.bias.new_zeros(rows, self.channels[index], 1, self.bins[index])
            for index in range(STAGES)
        }

    def step(self, features: Tensor, state: StreamState, active: Tensor, first: Tensor, lengths: Tensor) -> Tensor:
        """New mel frames of streams, a multiple of 8 whose last one completes an encoder frame.

        Args:
            features: [rows, 8 n, mel_bins].
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool.
            first: [rows] int64, number of the first encoder frame that comes out; the mel frames are 8 first - 7 on.
            lengths: [rows] int64, mel frames of each whole stream.

        Returns:
            [rows, n, size].
        """
        factor = SUBSAMPLING
        x = (features * _inside(factor * first - factor + 1, features.shape[1], lengths)[:, :, None])[:, None]
        x = x.to(self.linear.bias.dtype)
        for index, stage in enumerate(self.stages):
            tail = state[f"encoder.subsampling.{index}"]
            both = torch.cat((tail, x), dim=2)
            write_rows(tail, x[:, :, -1:], active)
            factor, lengths = factor // 2, lengths // 2 + 1
            x = stage(both, past=0)
            x = functional.relu(x * _inside(factor * first - factor + 1, x.shape[2], lengths)[:, None, :, None])
        return self._flatten(x)

    def _flatten(self, x: Tensor) -> Tensor:
        """[batch, channels, time, bins] -> [batch, time, size]."""
        y: Tensor = self.linear(x.transpose(1, 2).flatten(2)) * self.scale
        return y


def _inside(first: Tensor, width: int, lengths: Tensor) -> Tensor:
    """Which of `width` frames from number `first` [rows] on lie inside the stream: [rows, width] bool."""
    numbers = first[:, None] + torch.arange(width, device=first.device)
    return (numbers >= 0) & (numbers < lengths[:, None])


class Encoder(nn.Module):
    """Log-mel features -> frames of 80 ms.

    Args:
        config: Sizes and reach.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config)
        self.blocks = nn.ModuleList(Block(config.block) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)

    def layers(self) -> list[Block]:
        """The blocks, first one first."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(
        self, features: Tensor, lengths: Tensor, right: int | None = None, *, middle: int | None = None
    ) -> Encoded:
        """Whole recordings.

        Args:
            features: [batch, mel frames, mel_bins].
            lengths: [batch] int64, mel frames of each recording.
            right: Look-ahead in frames; the config's default when None. Without meaning for sliding windows.
            middle: Number of blocks after which the frames are wanted too, for an intermediate loss.

        Returns:
            Frames, of no meaning behind each recording's count, and the counts.
        """
        x = self.dropout(self.subsampling(features, lengths))
        counts = frame_counts(lengths)
        time = x.shape[1]
        numbers = torch.arange(time, device=x.device)
        valid = valid_positions(counts, time)
        reaches = self.config.reaches(self.config.rights[0] if right is None else right)
        # Frames behind the end see themselves, or they would see nothing.
        itself = torch.eye(time, dtype=torch.bool, device=x.device)
        visible = {
            reach: ((reach.visible(numbers[:, None], numbers) & valid[:, None]) | itself)[:, None]
            for reach in set(reaches)
        }
        embeddings = None
        if self.config.relative_positions:
            embeddings = distance_embeddings(1 - time, time - 1, self.config.size, x.device).to(x.dtype)
        kept = None
        for index, (block, reach) in enumerate(zip(self.layers(), reaches, strict=True), start=1):
            x = block(x, visible[reach], embeddings, valid)
            if index == middle:
                kept = x
        return Encoded(x, counts, kept)
