"""Sizes of a transducer's prediction and joint networks. No torch: every runner uses it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransducerConfig:
    """Sizes of the prediction and the joint network.

    Attributes:
        vocabulary: Tokens with blank, which is the last.
        size: Width of the prediction network.
        layers: LSTM layers; 0 for a network without recurrence that sees the last tokens only (Ghodsi et al. 2020,
            "RNN-Transducer with Stateless Prediction Network").
        context: Tokens that the network without recurrence sees.
        joint: Width of the joint network.
        activation: Of the joint network: `relu` or `tanh`.
        max_symbols: Tokens that greedy decoding says at one frame at most.
    """

    vocabulary: int = 1025
    size: int = 320
    layers: int = 1
    context: int = 2
    joint: int = 320
    activation: str = "relu"
    max_symbols: int = 10

    def __post_init__(self) -> None:
        """Raises ValueError for settings that no network has."""
        if self.activation not in ("relu", "tanh"):
            raise ValueError(f"the joint activation is relu or tanh, not {self.activation!r}")
        if self.layers == 0 and self.context < 1:
            raise ValueError("a prediction network without recurrence needs a context of one token at least")

    @property
    def blank(self) -> int:
        """Index of blank."""
        return self.vocabulary - 1
