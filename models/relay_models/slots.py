"""The encoder over slots: static buffers, any subset of the slots a step, nothing moved but what is new.

It computes what `relay_models.streaming.EncoderStream` computes, laid out for many streams on one GPU: the query, key
and value projections are one matrix product, keys and values stay where they were written, and the biases of relative
attention (Dai et al. 2019, arXiv 1901.02860, section 3.3) are folded away: with q' = q + content bias, (q + position
bias) p = q' p + (position bias - content bias) p, whose last term is a constant of the layer. Every shape depends on
the number of rows alone, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from relay_models.conformer import Block, FeedForward, distance_embeddings
from relay_models.encoder import Encoder
from relay_models.framing import ENDLESS, SUBSAMPLING, frame_counts
from relay_models.slot_ops import FAR, MEL_TAIL, Norm, Ops, Rows, Stages, TorchOps, write_slots
from relay_models.state import StreamState

MICRO_ROWS = 1024
_ALIGNMENT = 8  # columns; odd widths are slow in a matrix product


@dataclass(frozen=True, slots=True)
class _Layer:
    """A block's weights, as a step needs them."""

    block: Block
    qkv: tuple[Tensor, Tensor]
    distance_keys: Tensor
    constant: Tensor
    taps: Tensor


class SlotEncoder:
    """An encoder's streams in slots.

    The weights are read once: make it when they are final. Only attention in chunks with relative positions, which the
    published models have, is built.

    Args:
        encoder: The encoder, in evaluation mode, on its device and in its type.
        right: Look-ahead in frames; a step takes `right` + 1 frames.
        slots: Number of streams.
        ops: How it computes; plain torch when None.
        micro_rows: Rows that go through all layers together; a step of more goes in parts, so that what passes between
            two layers stays small.
        lanes: CUDA streams that the parts of a step are dealt to, so that one part's memory traffic and another's
            matrix products overlap.

    Attributes:
        state: Buffers of `slots` + 1 rows: the last one belongs to rows that only fill a batch up, and stays as it is.
        chunk_frames: Encoder frames a step takes and gives.
        chunk_mels: Mel frames a step takes.

    Raises:
        ValueError: The encoder attends otherwise.
    """

    def __init__(
        self,
        encoder: Encoder,
        right: int,
        slots: int,
        *,
        ops: Ops | None = None,
        micro_rows: int = MICRO_ROWS,
        lanes: int = 1,
    ) -> None:
        config = encoder.config
        if config.windows or not config.relative_positions:
            raise ValueError("slots are built for attention in chunks with relative positions; use EncoderStream")
        self.config = config
        self.chunk_frames = right + 1
        self.chunk_mels = SUBSAMPLING * self.chunk_frames
        self.slots = slots
        self.span = config.reaches(right)[0].left + self.chunk_frames
        self.ops = TorchOps() if ops is None else ops
        self.micro_rows = micro_rows
        self._stages = Stages.of(encoder.subsampling)
        self._layers = [self._prepare(block) for block in encoder.layers()]
        self._lanes: list[torch.cuda.Stream] = []
        if lanes > 1 and self._stages.first.is_cuda:
            self._lanes = [torch.cuda.Stream(self._stages.first.device) for _ in range(lanes)]
        self.state = StreamState(self._fresh_tensors(slots + 1))

    @torch.no_grad()
    def _prepare(self, block: Block) -> _Layer:
        attention = block.attention
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([projection.weight for projection in projections])
        bias = weight.new_zeros(len(weight))
        if attention.q_proj.bias is not None:
            bias = torch.cat([projection.bias for projection in projections])
        bias[: self.config.size] += attention.content_bias.flatten()
        embeddings = distance_embeddings(1 - self.chunk_frames, self.span - 1, self.config.size, weight.device)
        keys = attention.distance_keys(embeddings.to(weight.dtype))
        keys = functional.pad(keys, (0, 0, 0, -keys.shape[1] % _ALIGNMENT))
        shift = (attention.distance_bias.float() - attention.content_bias.float())[:, :, None]
        return _Layer(
            block=block,
            qkv=(weight, bias),
            distance_keys=keys.transpose(1, 2).contiguous(),
            constant=(keys.float() @ shift)[:, :, 0].contiguous(),
            taps=block.convolution.depthwise.weight[:, 0].t().contiguous(),
        )

    def _fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        config, like = self.config, self._stages.first
        tensors = {
            "position": like.new_zeros(rows, dtype=torch.int64),
            "mels": like.new_zeros(rows, MEL_TAIL, config.mel_bins, dtype=torch.float32),
            "stage": like.new_zeros(rows, self._stages.bins[2], config.channels),
        }
        for index in range(config.layers):
            ring = (rows, 2, config.heads, self.span, config.size // config.heads)
            tensors[f"{index}.cache"] = like.new_zeros(ring)
            tensors[f"{index}.tail"] = like.new_zeros(rows, config.kernel - 1, config.size)
        return tensors

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Inputs of a step of so many rows of nobody: static buffers for `slot_graph.Bucket`."""
        like = self.state["position"]
        nobody = like.new_zeros(rows, dtype=torch.bool)
        return {
            "slots": like.new_full((rows,), self.slots),
            "features": like.new_zeros(rows, self.chunk_mels, self.config.mel_bins, dtype=torch.float32),
            "active": nobody,
            "fresh": nobody.clone(),
            "lengths": like.new_full((rows,), ENDLESS),
        }

    def close(self, slot: int) -> None:
        """Forgets a slot's stream; what it leaves behind is never read."""
        self.state["position"][slot] = 0

    @torch.no_grad()
    def step(
        self, slots: Tensor, features: Tensor, active: Tensor, fresh: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One chunk of each active row; see `EncoderStream.step`.

        Args:
            slots: [rows] int64, each row's slot; none twice, but for `self.slots`, which only inactive rows may name.
            features: [rows, chunk_mels, mel_bins].
            active: [rows] bool; other rows' slots keep their state, and their frames mean nothing.
            fresh: [rows] bool, rows whose stream begins with this chunk, whatever their slot held.
            lengths: [rows] int64, mel frames of each whole stream; `framing.ENDLESS` while its end is not known.

        Returns:
            Frames [rows, chunk_frames, size], and whether each one lies inside its stream [rows, chunk_frames] bool.
        """
        position = self.state["position"]
        # A fresh row that is not active goes back to the start as well.
        first = position[slots].masked_fill(fresh, 0)
        mels = lengths.clamp(max=FAR)
        rows = Rows(slots, first, frame_counts(mels), mels, active, self.chunk_frames)
        count = len(slots)
        frames = features.new_empty(count, self.chunk_frames, self.config.size, dtype=self._stages.first.dtype)
        edges = [(start, min(start + self.micro_rows, count)) for start in range(0, count, self.micro_rows)]
        if self._lanes and len(edges) > 1:
            self._deal(edges, features, rows, frames)
        else:
            for start, end in edges:
                frames[start:end] = self._encode(features[start:end], rows.part(start, end))
        position[slots] = first + active * self.chunk_frames
        numbers = first[:, None] + torch.arange(self.chunk_frames, device=first.device)
        return frames, (numbers < rows.counts[:, None]) & active[:, None]

    def _deal(self, edges: Sequence[tuple[int, int]], features: Tensor, rows: Rows, frames: Tensor) -> None:
        """The parts of a step, dealt to the lanes."""
        here = torch.cuda.current_stream()
        for lane in self._lanes:
            lane.wait_stream(here)
        for number, (start, end) in enumerate(edges):
            with torch.cuda.stream(self._lanes[number % len(self._lanes)]):
                frames[start:end] = self._encode(features[start:end], rows.part(start, end))
        for lane in self._lanes:
            here.wait_stream(lane)

    def _encode(self, features: Tensor, rows: Rows) -> Tensor:
        """Rows that go together: [rows, chunk_mels, mel_bins] -> [rows, chunk_frames, size]."""
        x = self._subsample(features, rows)
        normed = Norm.of(self._layers[0].block.norm_feed_forward1)(x)
        for index, layer in enumerate(self._layers):
            following = self._layers[index + 1] if index + 1 < len(self._layers) else None
            normed = self._layer(x, normed, index, layer, following, rows)
        return x.reshape(len(rows.slots), self.chunk_frames, -1)

    def _subsample(self, features: Tensor, rows: Rows) -> Tensor:
        """[rows, chunk_mels, mel_bins] -> [tokens, size]."""
        stages, state = self._stages, self.state
        y = self.ops.first_stages(features, state["mels"], stages, rows)
        write_slots(state["mels"], rows, features[:, -MEL_TAIL:])
        y = functional.linear(y, *stages.pointwise[0]).relu_()
        z = self.ops.last_stage(y, state["stage"], stages, rows)
        write_slots(state["stage"], rows, y[:, -1])
        z = functional.linear(z, *stages.pointwise[1]).relu_()
        x = functional.linear(z.reshape(len(rows.slots) * self.chunk_frames, -1), *stages.linear)
        return x.mul_(stages.scale) if stages.scale != 1 else x

    def _layer(
        self, x: Tensor, normed: Tensor, index: int, layer: _Layer, following: _Layer | None, rows: Rows
    ) -> Tensor:
        """One block: x [tokens, size] in place; takes and gives what the (next) block's first norm makes of it."""
        block, ops = layer.block, self.ops
        heads, size = self.config.heads, self.config.size

        def feed_forward(part: FeedForward, normed: Tensor) -> Tensor:
            return part.linear2(functional.silu(part.linear1(normed), inplace=True))

        y = feed_forward(block.feed_forward1, normed)
        normed = ops.add_norm(x, y, 0.5, Norm.of(block.norm_attention))
        qkv = functional.linear(normed, *layer.qkv)
        queries = qkv[:, :size].unflatten(1, (heads, -1)).transpose(0, 1)
        by_distance = torch.bmm(queries, layer.distance_keys)
        y = ops.attend(qkv, by_distance, layer.constant, self.state[f"{index}.cache"], rows)
        normed = ops.add_norm(x, block.attention.o_proj(y), 1.0, Norm.of(block.norm_convolution))
        part = block.convolution
        tail = self.state[f"{index}.tail"]
        y = ops.convolve(part.pointwise1(normed), tail, layer.taps, part.depthwise.bias, Norm.of(part.norm), rows)
        normed = ops.add_norm(x, part.pointwise2(y), 1.0, Norm.of(block.norm_feed_forward2))
        y = feed_forward(block.feed_forward2, normed)
        inner = (following or layer).block.norm_feed_forward1  # of no use after the last block
        return ops.add_norm_twice(x, y, 0.5, Norm.of(block.norm_out), Norm.of(inner))
