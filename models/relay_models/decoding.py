"""Greedy decoding of streams, batched over slots that stand at different places.

Both decoders take the encoder's frames chunk by chunk and never take a token back; whole recordings are one large
chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relay_models.state import StreamState, write_rows
from relay_models.transducer import Joint, Predictor
from relay_models.words import Token


@dataclass(frozen=True, slots=True)
class Emissions:
    """Tokens of a batch, those of a row in the order they were said.

    Attributes:
        tokens: [rows, width] int64.
        frames: [rows, width] int64, encoder frame of each token, counted from its stream's beginning.
        log_probabilities: [rows, width] float32.
        counts: [rows] int64, tokens of each row; what lies behind has no meaning.
    """

    tokens: Tensor
    frames: Tensor
    log_probabilities: Tensor
    counts: Tensor

    def by_row(self) -> list[list[Token]]:
        """On the host, one list a row."""
        rows = zip(
            self.counts.tolist(),
            self.tokens.tolist(),
            self.frames.tolist(),
            self.log_probabilities.tolist(),
            strict=True,
        )
        return [
            [Token(*token) for token in zip(tokens[:count], frames[:count], scores[:count], strict=True)]
            for count, tokens, frames, scores in rows
        ]


class GreedyTransducer:
    """The most probable symbol at each node of the lattice (Graves 2012, arXiv 1211.3711).

    Rows walk over the chunk each at its own pace: in one round, a row either says a token and stays, or goes to its
    next frame.

    Args:
        predictor: The prediction network.
        joint: The joint network.
    """

    def __init__(self, predictor: Predictor, joint: Joint) -> None:
        self._predictor = predictor
        self._joint = joint

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams."""
        tensors = self._predictor.fresh_tensors(rows)
        tensors["transducer.position"] = tensors["predictor.started"].new_zeros(rows, dtype=torch.int64)
        return tensors

    @torch.no_grad()
    def step(self, frames: Tensor, valid: Tensor, state: StreamState) -> tuple[Emissions, StreamState]:
        """One chunk of each stream.

        Args:
            frames: [rows, chunk, size] of the encoder.
            valid: [rows, chunk] bool, one run of frames a row; a row without any keeps its state.
            state: Holds `fresh_tensors`; advanced in place.

        Returns:
            What was said at these frames, and the state.
        """
        config = self._predictor.config
        rows, chunk = valid.shape
        row = torch.arange(rows, device=valid.device)
        heard = self._joint.frame_projection(frames)
        count = valid.sum(dim=1)
        first = valid.int().argmax(dim=1)
        end = first + count
        self._predictor.start(state, count > 0)

        width = chunk * config.max_symbols
        # One entry more: rows that say nothing write there.
        tokens = torch.zeros(rows, width + 1, dtype=torch.int64, device=valid.device)
        places = torch.zeros_like(tokens)
        scores = torch.zeros(rows, width + 1, device=valid.device)
        said, symbols, cursor = torch.zeros_like(count), torch.zeros_like(count), first
        while True:
            walking = cursor < end
            logits = self._joint.combine(heard[row, cursor.clamp(max=chunk - 1)], state["predictor.output"])
            score, token = logits.float().log_softmax(-1).max(dim=-1)
            says = walking & (token != config.blank)
            any_walking, any_says = torch.stack((walking.any(), says.any())).tolist()
            if not any_walking:
                break
            symbols = symbols + says.long()
            if any_says:
                place = said.where(says, width)
                tokens[row, place], places[row, place], scores[row, place] = token, cursor - first, score
                said = said + says.long()
                self._predictor.step(token, state, says)
            leaves = walking & (~says | (symbols >= config.max_symbols))
            cursor = cursor + leaves.long()
            symbols = symbols.where(~leaves, 0)
        position = state["transducer.position"]
        emissions = Emissions(tokens[:, :-1], position[:, None] + places[:, :-1], scores[:, :-1], said)
        position.add_(count)
        return emissions, state


class GreedyCTC:
    """The most probable symbol of each frame, repetitions merged and blanks dropped (Graves et al. 2006).

    A token's frame and probability are those of the first frame of its run.

    Args:
        head: Frames -> logits over the vocabulary, blank last.
    """

    def __init__(self, head: nn.Linear) -> None:
        self._head = head

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams."""
        zeros = self._head.weight.new_zeros(rows, dtype=torch.int64)
        return {"ctc.position": zeros, "ctc.previous": zeros.clone()}

    @torch.no_grad()
    def step(self, frames: Tensor, valid: Tensor, state: StreamState) -> tuple[Emissions, StreamState]:
        """One chunk of each stream; arguments and results as in `GreedyTransducer.step`."""
        blank = self._head.out_features - 1
        score, symbol = self._head(frames).float().log_softmax(-1).max(dim=-1)
        symbol = symbol.where(valid, blank)
        first = valid.int().argmax(dim=1, keepdim=True)
        place = torch.arange(valid.shape[1], device=valid.device) - first
        # State counts symbols from 1, so that a fresh row's 0 is no symbol.
        previous = torch.where(place == 0, state["ctc.previous"][:, None] - 1, symbol.roll(1, dims=1))
        says = (symbol != blank) & (symbol != previous)
        order = (~says).int().argsort(dim=1, stable=True)
        count = valid.sum(dim=1)
        position = state["ctc.position"]
        emissions = Emissions(
            tokens=symbol.gather(1, order),
            frames=position[:, None] + place.gather(1, order),
            log_probabilities=score.gather(1, order),
            counts=says.sum(dim=1),
        )
        final = symbol.gather(1, (first + count[:, None] - 1).clamp(min=0))[:, 0]
        write_rows(state["ctc.previous"], final + 1, count > 0)
        position.add_(count)
        return emissions, state
