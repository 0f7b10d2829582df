"""Heads of the recogniser: CTC, and the prediction and joint networks of a transducer.

Blank is the last entry of the vocabulary, in both. It is also what the prediction network starts from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.state import StreamState, write_rows
from relay_models.transducer_config import TransducerConfig

__all__ = ["Joint", "Predictor", "TransducerConfig"]


class Predictor(nn.Module):
    """What may follow the tokens said so far.

    Args:
        config: Sizes.
        dropout: Share of embeddings dropped in training.
    """

    def __init__(self, config: TransducerConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.size)
        self.dropout = nn.Dropout(dropout)
        if config.layers:
            self.lstm = nn.LSTM(config.size, config.size, config.layers, batch_first=True)
        else:
            self.convolution = nn.Conv1d(config.size, config.size, config.context, groups=config.size)
        self.projection = nn.Linear(config.size, config.joint)

    def forward(self, targets: Tensor) -> Tensor:
        """[batch, tokens] -> [batch, tokens + 1, joint]: after no token, after the first one ..."""
        history = functional.pad(targets, (1, 0), value=self.config.blank)
        if self.config.layers:
            y, _ = self.lstm(self.dropout(self.embedding(history)))
        else:
            history = functional.pad(history, (self.config.context - 1, 0), value=self.config.blank)
            y = self._remember(self.dropout(self.embedding(history)))
        predicted: Tensor = self.projection(y)
        return predicted

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams."""
        config, weight = self.config, self.projection.weight
        tensors = {
            "predictor.started": weight.new_zeros(rows, dtype=torch.bool),
            "predictor.output": weight.new_zeros(rows, config.joint),
        }
        if config.layers:
            tensors["predictor.hidden"] = weight.new_zeros(rows, config.layers, config.size)
            tensors["predictor.cell"] = weight.new_zeros(rows, config.layers, config.size)
        else:
            tensors["predictor.history"] = weight.new_zeros(rows, config.context, dtype=torch.int64)
        return tensors

    def start(self, state: StreamState, active: Tensor) -> None:
        """Gives active rows that have said nothing yet the output of the empty history."""
        fresh = active & ~state["predictor.started"]
        if not self.config.layers:
            write_rows(
                state["predictor.history"], torch.full_like(state["predictor.history"], self.config.blank), fresh
            )
        self.step(torch.full_like(fresh, self.config.blank, dtype=torch.int64), state, fresh)
        state["predictor.started"].logical_or_(active)

    def step(self, tokens: Tensor, state: StreamState, active: Tensor) -> None:
        """Appends a token to each active row; `state["predictor.output"]` [rows, joint] is what follows.

        Args:
            tokens: [rows] int64.
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool.
        """
        if self.config.layers:
            y = self.embedding(tokens)
            # Cell by cell: for one token, the LSTM kernel would spend its time on rearranging weights.
            for layer, weights in enumerate(self.lstm.all_weights):
                hidden, cell = state["predictor.hidden"][:, layer], state["predictor.cell"][:, layer]
                y, memory = torch.lstm_cell(y, (hidden, cell), *weights)
                write_rows(hidden, y, active)
                write_rows(cell, memory, active)
        else:
            history = torch.cat((state["predictor.history"][:, 1:], tokens[:, None]), dim=1)
            write_rows(state["predictor.history"], history, active)
            y = self._remember(self.embedding(history))[:, 0]
        write_rows(state["predictor.output"], self.projection(y), active)

    def _remember(self, embedded: Tensor) -> Tensor:
        """[batch, context - 1 + time, size] -> [batch, time, size]."""
        return functional.relu(self.convolution(embedded.transpose(1, 2)).transpose(1, 2))


class Joint(nn.Module):
    """What is said, from what is heard and what may follow.

    Args:
        config: Sizes.
        frame_size: Width of the encoder's frames.
    """

    def __init__(self, config: TransducerConfig, frame_size: int) -> None:
        super().__init__()
        self.frame_projection = nn.Linear(frame_size, config.joint)
        self.head = nn.Linear(config.joint, config.vocabulary)
        self.activation = torch.tanh if config.activation == "tanh" else functional.relu

    def forward(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """Every frame with every history, for the loss.

        Args:
            frames: [batch, frames, frame_size].
            predicted: [batch, tokens + 1, joint].

        Returns:
            Logits [batch, frames, tokens + 1, vocabulary].
        """
        return self.combine(self.frame_projection(frames)[:, :, None], predicted[:, None])

    def combine(self, heard: Tensor, predicted: Tensor) -> Tensor:
        """Projected frames and predictions, broadcast against each other: [..., joint] -> logits [..., vocabulary]."""
        logits: Tensor = self.head(self.activation(heard + predicted))
        return logits
