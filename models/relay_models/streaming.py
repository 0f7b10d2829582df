"""The encoder, chunk by chunk, for streams that stand at different places.

Activation caching (arXiv 2312.17279): each layer keeps what later frames will look back to. Here that is the
projected keys and values in a ring (NeMo keeps the layer's input and projects it again at every step),
the last inputs of each causal convolution, and, with sliding windows, the frames whose look-ahead is still to come.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relay_models.conformer import Block, Step, distance_embeddings
from relay_models.encoder import Encoder, Reach
from relay_models.framing import ENDLESS, SUBSAMPLING, frame_counts
from relay_models.state import StreamState


class EncoderStream(nn.Module):
    """Steps an encoder with one look-ahead.

    The weights are read once, for the table of distances: make it when they are final.

    Args:
        encoder: The encoder, in evaluation mode.
        right: Look-ahead in frames; a step takes `right` + 1 frames. With sliding windows, whose look-ahead is their
            own, it only says how many frames a step takes.

    Attributes:
        chunk_frames: Encoder frames a step takes and gives.
        chunk_mels: Mel frames a step takes.
        delay_frames: Frames by which the output lags behind the input.
    """

    def __init__(self, encoder: Encoder, right: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.chunk_frames = right + 1
        self.chunk_mels = SUBSAMPLING * self.chunk_frames
        self.reaches = encoder.config.reaches(right)
        self.delay_frames = sum(reach.delay for reach in self.reaches)
        for index, (layer, reach) in enumerate(zip(encoder.layers(), self.reaches, strict=True)):
            if encoder.config.relative_positions:
                self.register_buffer(self.table_name(index), self.distance_keys(layer, reach), persistent=False)

    @staticmethod
    def table_name(index: int) -> str:
        """Name of the buffer with a layer's `distance_keys`."""
        return f"distance_keys_{index}"

    @torch.no_grad()
    def distance_keys(self, layer: Block, reach: Reach) -> Tensor:
        """The layer's keys of all distances between a ring's frames and a step's queries, farthest first."""
        like = self.encoder.subsampling.linear.bias
        farthest = self._span(reach) - 1 - reach.delay
        nearest = 1 - self.chunk_frames - reach.delay
        embeddings = distance_embeddings(nearest, farthest, self.encoder.config.size, like.device).to(like.dtype)
        return layer.attention.distance_keys(embeddings)

    def _span(self, reach: Reach) -> int:
        """Frames of a layer's ring: all that the queries of one step may see."""
        return reach.left + reach.delay + self.chunk_frames

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams, all zero."""
        config, like = self.encoder.config, self.encoder.subsampling.linear.bias
        tensors = {
            "encoder.position": like.new_zeros(rows, dtype=torch.int64),
            **self.encoder.subsampling.fresh_tensors(rows),
        }
        for index, reach in enumerate(self.reaches):
            ring = (rows, 2, config.heads, self._span(reach), config.size // config.heads)
            tensors[f"encoder.{index}.cache"] = like.new_zeros(ring)
            tensors[f"encoder.{index}.tail"] = like.new_zeros(rows, config.kernel - 1, config.size)
            if reach.delay:
                tensors[f"encoder.{index}.waiting"] = like.new_zeros(rows, reach.delay, config.size)
        return tensors

    @torch.no_grad()
    def step(
        self, features: Tensor, state: StreamState, active: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, StreamState]:
        """One chunk of each active stream.

        A stream's mel frames are numbered from 0; its first chunk begins with seven frames before that (-7 to -1,
        content of no matter), so that all chunks are alike and each one ends with the mel frame 8 j that completes
        encoder frame j.

        Args:
            features: [rows, chunk_mels, mel_bins].
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool; other rows keep their state and give frames of no meaning.
            lengths: [rows] int64, mel frames of each whole stream; frames from there on count as absent. None while no
                stream has ended.

        Returns:
            Frames [rows, chunk_frames, size], whether each one lies inside its stream [rows, chunk_frames] bool
            (never where not active), and the state. The first frame of a row's n-th step has number n * chunk_frames
            - delay_frames.
        """
        if lengths is None:
            lengths = torch.full_like(state["encoder.position"], ENDLESS)
        position = state["encoder.position"]
        x = self.encoder.subsampling.step(features, state, active, position, lengths)
        counts = frame_counts(lengths)
        start = position
        steps: dict[tuple[Reach, int], Step] = {}
        delayed = 0
        for index, (layer, reach) in enumerate(zip(self.encoder.layers(), self.reaches, strict=True)):
            start = position - delayed
            if (reach, delayed) not in steps:
                steps[reach, delayed] = self._plan(reach, start, counts, active)
            x = layer.step(
                x,
                steps[reach, delayed],
                state[f"encoder.{index}.cache"],
                state[f"encoder.{index}.tail"],
                state[f"encoder.{index}.waiting"] if reach.delay else None,
                getattr(self, self.table_name(index), None),
            )
            delayed += reach.delay
        numbers = (position - delayed)[:, None] + torch.arange(self.chunk_frames, device=x.device)
        valid = (numbers >= 0) & (numbers < counts[:, None]) & active[:, None]
        position.add_(active * self.chunk_frames)
        return x, valid, state

    def _plan(self, reach: Reach, start: Tensor, counts: Tensor, active: Tensor) -> Step:
        """Positions and masks of a layer whose new keys have the numbers `start` [rows] on."""
        span = self._span(reach)
        frames = torch.arange(self.chunk_frames, device=start.device)
        last = start[:, None] + self.chunk_frames - 1
        # Frame number n lives in place n % span, so place p holds the newest number that is p modulo span.
        keys = last - (last - torch.arange(span, device=start.device)) % span
        queries = start[:, None] - reach.delay + frames
        distances = queries[:, :, None] - keys[:, None]
        present = (keys >= 0) & (keys < counts[:, None])
        # A query outside its stream sees itself, or it would see nothing.
        visible = (reach.visible(queries[:, :, None], keys[:, None]) & present[:, None]) | (distances == 0)
        return Step(
            visible=visible[:, None],
            distances=(span - 1 - reach.delay - distances)[:, None],
            places=(start[:, None] + frames) % span,
            valid=(queries >= 0) & (queries < counts[:, None]),
            active=active,
            delay=reach.delay,
        )
