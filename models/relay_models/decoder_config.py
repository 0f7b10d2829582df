"""Sizes of a decoder-only language model in the Qwen2 layout. No torch: every runner uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay_models.loading import WeightsError


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes, under the names of a Qwen2 config.json.

    Attributes:
        vocab_size: Number of tokens.
        hidden_size: Width of the residual stream.
        intermediate_size: Inner width of the gated MLP.
        num_hidden_layers: Number of layers.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads; divides the query heads.
        max_position_embeddings: Longest context, in tokens.
        rope_theta: Base of the rotary positions.
        rms_norm_eps: Added to the mean square.
        tie_word_embeddings: The head is the embedding.
    """

    vocab_size: int = 8192
    hidden_size: int = 384
    intermediate_size: int = 1024
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def entry_shape(self) -> tuple[int, int, int, int]:
        """What one token leaves in the cache: [layers, 2 (key, value), kv_heads, head_dim]."""
        return self.num_hidden_layers, 2, self.num_key_value_heads, self.head_dim

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """Reads a Qwen2 config.json, of older or newer transformers. Raises WeightsError if it is another model's."""
        if values.get("model_type", "qwen2") != "qwen2":
            raise WeightsError(f"config.json is of a {values['model_type']!r} model; give one in the qwen2 layout")
        flat = {**values, **(values.get("rope_parameters") or {})}
        try:
            return cls(**{name: flat[name] for name in cls.__slots__ if name in flat})
        except TypeError as error:
            raise WeightsError(f"config.json is not that of a qwen2 model ({error})") from error
