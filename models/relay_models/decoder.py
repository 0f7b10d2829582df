"""A decoder-only language model in the Qwen2 layout, with its key-value cache as an argument.

RMSNorm, rotary positions, grouped-query attention with biases on queries, keys and values, SwiGLU (Qwen2 report, arXiv
2407.10671). Parameter names are those of Hugging Face checkpoints, so that real Qwen2 weights load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn import functional

from relay_models.decoder_config import DecoderConfig
from relay_models.layers import GatedMLP, RMSNorm, attend, rotary_angles, rotate
from relay_models.loading import WeightsError, read_config
from relay_models.quantize import unpack_weights
from relay_models.state import StreamState, valid_positions

__all__ = ["Attention", "Decoder", "DecoderConfig", "Layer", "load_decoder", "load_packed_decoder"]


class Attention(nn.Module):
    """Causal self-attention of one layer."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        size, width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(size, config.num_attention_heads * config.head_dim)
        self.k_proj = nn.Linear(size, width)
        self.v_proj = nn.Linear(size, width)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_dim, size, bias=False)
        self.head_dim = config.head_dim
        self.dropout = dropout

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, time, size] -> rotated query, rotated key, value, each [batch, time, heads, head_dim]."""
        shape = (*x.shape[:2], -1, self.head_dim)
        query = rotate(self.q_proj(x).reshape(shape), cos, sin)
        return query, rotate(self.k_proj(x).reshape(shape), cos, sin), self.v_proj(x).reshape(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Attention over the whole of [batch, time, size]; the mask [batch, 1, time, time] is causal when None."""
        query, key, value = (heads.transpose(1, 2) for heads in self.project(x, cos, sin))
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None
        )
        y: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return y

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, past: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of new positions over cached ones and themselves.

        Args:
            x: [batch, time, size].
            cos, sin: [batch, time, head_dim].
            past: [batch, span, 2, kv_heads, head_dim].
            mask: [batch, time, span + time] bool.

        Returns:
            [batch, time, size] and the new positions' keys and values [batch, time, 2, kv_heads, head_dim].
        """
        query, key, value = self.project(x, cos, sin)
        keys = torch.cat((past[:, :, 0], key), dim=1)
        values = torch.cat((past[:, :, 1], value), dim=1)
        return self.o_proj(attend(query, keys, values, mask)), torch.stack((key, value), dim=2)


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and around a residual."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(config, dropout)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Whole sequences; shapes as in `Attention.forward`."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin, mask))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, past: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """New positions; shapes as in `Attention.step`."""
        mixed, entry = self.self_attn.step(self.input_layernorm(x), cos, sin, past, mask)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), entry


class Trunk(nn.Module):
    """Embedding, layers and the last norm; a module of its own for the sake of checkpoint names."""

    def __init__(self, config: DecoderConfig, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """The language model.

    Args:
        config: Sizes.
        dropout: Share of activations dropped in training: embeddings, attention and both residual branches.
    """

    def __init__(self, config: DecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config, dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Whole sequences, from position 0: tokens [batch, time] int64 -> logits [batch, time, vocabulary]."""
        logits: Tensor = self.lm_head(self.hidden(tokens))
        return logits

    def hidden(self, tokens: Tensor, *, documents: Tensor | None = None) -> Tensor:
        """Whole sequences up to the last norm: [batch, time] -> [batch, time, hidden_size].

        With `documents` [batch, time] of numbers, tokens look at earlier ones of their own document only.
        """
        x = self.dropout(self.model.embed_tokens(tokens))
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        cos, sin = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        mask = None
        if documents is not None:
            mask = (documents[:, None, :, None] == documents[:, None, None]).tril()
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        y: Tensor = self.model.norm(x)
        return y

    def advance(self, tokens: Tensor, entries: Tensor, lengths: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """New tokens over a cache; what `step` and the ONNX graph share. Pure: the cache is not changed.

        Args:
            tokens: [batch, time] int64, the new tokens, padded at the end; time >= 1.
            entries: [batch, span, layers, 2, kv_heads, head_dim], the cache; span >= 0.
            lengths: [batch] int64, how many of each row's entries are valid.
            counts: [batch] int64, how many of each row's tokens are valid.

        Returns:
            Logits [batch, vocabulary] after each row's last valid token (of no meaning where counts is 0), and the new
            tokens' entries [batch, time, layers, 2, kv_heads, head_dim], in the type of `entries`.
        """
        time, span = tokens.shape[1], entries.shape[1]
        steps = torch.arange(time, device=tokens.device)
        cos, sin = rotary_angles(lengths[:, None] + steps, self.config.head_dim, self.config.rope_theta)
        past_mask = (torch.arange(span, device=tokens.device) < lengths[:, None])[:, None].expand(-1, time, -1)
        new_mask = (steps <= steps[:, None])[None].expand(tokens.shape[0], -1, -1)
        mask = torch.cat((past_mask, new_mask), dim=2)
        x = self.model.embed_tokens(tokens)
        new = []
        for index, layer in enumerate(self.model.layers):
            assert isinstance(layer, Layer)
            x, entry = layer.step(x, cos, sin, entries[:, :, index].to(x.dtype), mask)
            new.append(entry)
        last = (counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, x.shape[2])
        logits = self.lm_head(self.model.norm(x.gather(1, last)))[:, 0]
        return logits, torch.stack(new, dim=2).to(entries.dtype)

    def fresh_state(self, rows: int, *, context: int | None = None, dtype: torch.dtype = torch.float32) -> StreamState:
        """Empty caches for `rows` streams of at most `context` tokens."""
        context = context or self.config.max_position_embeddings
        weight = self.model.embed_tokens.weight
        return StreamState(
            {
                # One entry more than the context: padding is written there, so that a step has no data-dependent shape.
                "entries": torch.zeros(
                    (rows, context + 1, *self.config.entry_shape), dtype=dtype, device=weight.device
                ),
                "lengths": torch.zeros(rows, dtype=torch.int64, device=weight.device),
            }
        )

    @torch.no_grad()
    def step(self, tokens: Tensor, state: StreamState, counts: Tensor) -> tuple[Tensor, StreamState]:
        """Appends tokens to each stream. Rolling back is setting `state["lengths"]` to a smaller number.

        Args:
            tokens: [rows, time] int64, padded at the end.
            state: Of `fresh_state`; advanced in place.
            counts: [rows] int64, how many tokens each row really gets; 0 leaves the row as it is.

        Returns:
            Logits [rows, vocabulary] after each row's last new token, and the state.
        """
        lengths, buffer = state["lengths"], state["entries"]
        logits, new = self.advance(tokens, buffer, lengths, counts)
        places = lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        places = places.where(valid_positions(counts, tokens.shape[1]), buffer.shape[1] - 1)
        buffer[torch.arange(len(buffer), device=tokens.device)[:, None], places] = new
        lengths += counts
        return logits, state


def load_decoder(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Decoder:
    """A decoder with the weights of a checkpoint, in float32 and ready to run.

    Args:
        config: Its config.json.
        weights: Its tensors under their Hugging Face names.

    Raises:
        WeightsError: Tensors are missing, too many, or of other shapes.
    """
    sizes = DecoderConfig.from_dict(config)
    decoder = Decoder(sizes)
    tensors = {name: tensor.float() for name, tensor in weights.items()}
    if sizes.tie_word_embeddings and "model.embed_tokens.weight" in tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    try:
        decoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"the weights do not fit config.json: {' '.join(str(error).split())}") from error
    return decoder.eval()


def load_packed_decoder(folder: Path) -> Decoder:
    """A decoder from a shipped folder: config.json, and model.safetensors as `quantize.py` packs it.

    Raises:
        WeightsError: A file is missing or does not fit the other.
    """
    try:
        packed = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"model.safetensors of {folder.name} cannot be read ({error}); install Relay again"
        ) from error
    weights = {name: torch.from_numpy(array) for name, array in unpack_weights(packed).items()}
    return load_decoder(read_config(folder), weights)
