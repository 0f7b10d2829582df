"""The duplex draft model: hears the user at all times, says one token a frame of 160 ms, and drafts replies ahead.

After RelayS2S (arXiv 2603.23346, section 3): the causal frames of the recogniser's encoder (80 ms) go through a causal
adapter, two of them to a frame; the input at a frame is the speech embedding plus the embedding of the token before.
The decoder is the brain's, fewer layers of it, with five tokens more: silence, begin and end of a turn, a backchannel,
and the stop that answers a barge-in. A draft is made on a copy of a stream's state, off the frame clock, with the
speech side switched off, so that the stream goes on listening.

`DraftModel.forward` is the definition; `listen` and `decode` compute the same entry by entry. Attention reaches back
over `window` entries, whose keys and values are kept in rings. A key is rotated by its place in the ring, and the
query by its own place, and by one lap more for the keys that the newest lap has not written over yet: so positions
neither grow nor drift, however long a stream lasts, and no key is ever rotated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.decoder import Attention, Decoder, Layer
from relay_models.draft_config import (
    DRAFT_FRAME_MS,
    PAST_FRAMES,
    RESERVED,
    SPEECH_FRAMES,
    DraftConfig,
    Special,
    keys_name,
    values_name,
)
from relay_models.layers import rotary_angles, rotate
from relay_models.loading import WeightsError, read_config
from relay_models.quantize import PACKED, pack_weights, unpack_weights
from relay_models.state import StreamState, write_rows
from relay_models.stored import load_weights, read_tensors, save_model, save_packed

__all__ = [
    "DRAFT_FRAME_MS",
    "RESERVED",
    "SPEECH_FRAMES",
    "Adapter",
    "Choice",
    "DraftConfig",
    "DraftModel",
    "Special",
    "from_brain",
    "load_draft",
    "pack_draft",
    "save_draft",
]

_BLOCKS = (128, 64, 32, 16)
"""Columns that may share a scale: the first that divides a matrix is taken."""


class Choice(NamedTuple):
    """The likeliest token of each row, and how sure the model is of it.

    Attributes:
        token: [rows] int64.
        log_probability: [rows] float32, of the token, in nats.
        entropy: [rows] float32, of the whole distribution, in nats.
        margin: [rows] float32, probability of the likeliest token of all less that of the second.
    """

    token: Tensor
    log_probability: Tensor
    entropy: Tensor
    margin: Tensor


class Adapter(nn.Module):
    """Encoder frames -> speech embeddings, causally: a frame takes its own two encoder frames and the one before."""

    def __init__(self, speech_size: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(speech_size)
        self.inner = nn.Linear((SPEECH_FRAMES + PAST_FRAMES) * speech_size, size)
        self.outer = nn.Linear(size, size)

    def forward(self, speech: Tensor, past: Tensor | None = None) -> Tensor:
        """[batch, 2 time, speech_size] -> [batch, time, size]; `past` [batch, 1, speech_size] came before, or zeros."""
        if past is None:
            past = torch.zeros_like(speech[:, :PAST_FRAMES])
        both = self.norm(torch.cat((past, speech), dim=1))
        windows = both.unfold(1, SPEECH_FRAMES + PAST_FRAMES, SPEECH_FRAMES).transpose(2, 3).flatten(2)
        y: Tensor = self.outer(functional.gelu(self.inner(windows)))
        return y


class DraftModel(nn.Module):
    """The model.

    Args:
        config: Sizes.
        dropout: Of the decoder, in training.
    """

    def __init__(self, config: DraftConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.adapter = Adapter(config.speech_size, config.decoder.hidden_size)
        self.decoder = Decoder(config.decoder, dropout=dropout)

    # --------------------------------------------------------------------------------------------------- whole streams

    def forward(self, speech: Tensor, previous: Tensor, switched_off: Tensor | None = None) -> Tensor:
        """Whole streams from their first frame.

        Args:
            speech: [batch, 2 time, speech_size], frames of the encoder.
            previous: [batch, time] int64, the token said at the frame before; `SIL` at the first.
            switched_off: [batch, time] bool, frames whose speech embedding is left out.

        Returns:
            Hidden states [batch, time, hidden_size]; `logits` makes logits of them.
        """
        y: Tensor = self.decoder.model.norm(self.by_layer(speech, previous, switched_off)[-1])
        return y

    def by_layer(self, speech: Tensor, previous: Tensor, switched_off: Tensor | None = None) -> list[Tensor]:
        """What leaves each layer, before the last norm; arguments as in `forward`."""
        heard = self.adapter(speech)
        if switched_off is not None:
            heard = heard.masked_fill(switched_off[:, :, None], 0)
        x = self.decoder.dropout(heard + self.decoder.model.embed_tokens(previous))
        numbers = torch.arange(x.shape[1], device=x.device)
        ages = numbers[:, None] - numbers
        mask = ((ages >= 0) & (ages < self.config.window))[None, None]
        sizes = self.config.decoder
        cos, sin = rotary_angles(numbers[None], sizes.head_dim, sizes.rope_theta)
        outputs = []
        for layer in self.layers():
            x = layer(x, cos, sin, mask)
            outputs.append(x)
        return outputs

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] -> [..., vocabulary]."""
        y: Tensor = self.decoder.lm_head(hidden)
        return y

    def specials(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] -> [..., 5] float32, probability of each `Special`."""
        first = self.config.text_tokens
        return self.logits(hidden).float().softmax(-1)[..., first : first + len(Special)]

    def choose(self, hidden: Tensor, banned: Tensor) -> Choice:
        """[rows, hidden_size] -> the likeliest token but those of `banned` [vocabulary] bool."""
        log_probabilities = self.logits(hidden).float().log_softmax(-1)
        probabilities = log_probabilities.exp()
        first, second = probabilities.topk(2, dim=-1).values.unbind(-1)
        token = log_probabilities.masked_fill(banned, -torch.inf).argmax(-1)
        score = log_probabilities.gather(1, token[:, None])[:, 0]
        return Choice(token, score, -(probabilities * log_probabilities).sum(-1), first - second)

    def layers(self) -> list[Layer]:
        """The decoder's layers, first one first."""
        return [layer for layer in self.decoder.model.layers if isinstance(layer, Layer)]

    # --------------------------------------------------------------------------------------------------------- streams

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams, all zero."""
        sizes, like = self.config.decoder, self.decoder.model.embed_tokens.weight
        ring = (rows, sizes.num_key_value_heads, self.config.window, sizes.head_dim)
        layers = range(sizes.num_hidden_layers)
        return {
            "draft.entries": like.new_zeros(rows, dtype=torch.int64),
            "draft.past": like.new_zeros(rows, PAST_FRAMES, self.config.speech_size),
            **{keys_name(index): like.new_zeros(ring) for index in layers},
            **{values_name(index): like.new_zeros(ring) for index in layers},
        }

    def fresh_state(self, rows: int) -> StreamState:
        """State for `rows` streams."""
        return StreamState(self.fresh_tensors(rows))

    @torch.no_grad()
    def listen(
        self, speech: Tensor, previous: Tensor, state: StreamState, active: Tensor
    ) -> tuple[Tensor, StreamState]:
        """One frame of each active stream.

        Args:
            speech: [rows, 2, speech_size], the encoder's next frames.
            previous: [rows] int64, the token said at the frame before; `SIL` at the first.
            state: Of `fresh_state`; advanced in place.
            active: [rows] bool; other rows keep their state and give states of no meaning.

        Returns:
            Hidden states [rows, hidden_size] and the state.
        """
        x = self.heard(speech, state["draft.past"], previous)
        write_rows(state["draft.past"], speech[:, -PAST_FRAMES:], active)
        return self._advance(x, state, active), state

    @torch.no_grad()
    def decode(self, previous: Tensor, state: StreamState, active: Tensor) -> tuple[Tensor, StreamState]:
        """One entry without speech; arguments and results as in `listen`."""
        return self._advance(self.decoder.model.embed_tokens(previous), state, active), state

    def heard(self, speech: Tensor, past: Tensor, previous: Tensor) -> Tensor:
        """What enters the decoder at a frame, [rows, size]; arguments as in `listen`, `past` [rows, 1, speech_size]."""
        x: Tensor = self.adapter(speech, past)[:, 0] + self.decoder.model.embed_tokens(previous)
        return x

    def advance(
        self, x: Tensor, entries: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One new entry a row over the rings; what the streams and the ONNX graphs share. Pure: no ring is changed.

        Args:
            x: [rows, size].
            entries: [rows] int64, how many entries each stream has had.
            keys: Of each layer, [rows, kv_heads, window, head_dim], rotated by their places.
            values: Likewise, not rotated.

        Returns:
            Hidden states [rows, hidden_size] and the new entries [rows, layers, 2 (key, value), kv_heads, head_dim],
            which belong at place `entries` modulo the window of each ring.
        """
        sizes, window = self.config.decoder, self.config.window
        place = (entries % window)[:, None]
        places = torch.arange(window, device=x.device)
        # Place p holds the newest entry whose number is p modulo the window; that of the new one is leaving.
        ages = (place - places) % window
        mask = (ages > 0) & (ages <= entries[:, None])
        before_lap = places > place
        cos, sin = rotary_angles(torch.cat((place, place + window), dim=1), sizes.head_dim, sizes.rope_theta)
        new = []
        for layer, key, value in zip(self.layers(), keys, values, strict=True):
            mixed, entry = _attend_rings(
                layer.self_attn, layer.input_layernorm(x), key, value, cos, sin, mask, before_lap
            )
            x = x + mixed
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            new.append(entry)
        hidden: Tensor = self.decoder.model.norm(x)
        return hidden, torch.stack(new, dim=1)

    def _advance(self, x: Tensor, state: StreamState, active: Tensor) -> Tensor:
        """`advance`, and the active rows' new entries into the rings."""
        entries = state["draft.entries"]
        layers = range(self.config.decoder.num_hidden_layers)
        keys, values = [state[keys_name(i)] for i in layers], [state[values_name(i)] for i in layers]
        hidden, new = self.advance(x, entries, keys, values)
        row, place = torch.arange(len(x), device=x.device), entries % self.config.window
        for index in layers:
            for ring, entry in ((keys[index], new[:, index, 0]), (values[index], new[:, index, 1])):
                ring[row, :, place] = torch.where(active[:, None, None], entry.to(ring.dtype), ring[row, :, place])
        entries.add_(active.long())
        return hidden


def _attend_rings(
    attention: Attention,
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    before_lap: Tensor,
) -> tuple[Tensor, Tensor]:
    """Attention of one new entry a row over the rings and itself; the rings are only read, and never copied.

    Args:
        attention: The layer's.
        x: [rows, size].
        keys, values: See `DraftModel.advance`.
        cos, sin: [rows, 2, head_dim], of the entry's place, and of that place one lap on.
        mask: [rows, window] bool, which places hold an entry that is seen.
        before_lap: [rows, window] bool, which places were written a lap before the new entry's own.

    Returns:
        [rows, size], and the new key, rotated, and value [rows, 2, kv_heads, head_dim].
    """
    rows, kv_heads, _, head_dim = keys.shape
    query = attention.q_proj(x).reshape(rows, 1, -1, head_dim)
    value = attention.v_proj(x).reshape(rows, kv_heads, 1, head_dim)
    key = rotate(attention.k_proj(x).reshape(rows, 1, kv_heads, head_dim), cos[:, :1], sin[:, :1])
    key = key.reshape(rows, kv_heads, 1, head_dim)
    # [rows, kv_heads, 2 laps * group, head_dim]: the query heads that share keys are the rows of one product.
    query = rotate(query.expand(-1, 2, -1, -1) * head_dim**-0.5, cos, sin)
    query = query.reshape(rows, 2, kv_heads, -1, head_dim).transpose(1, 2).reshape(rows, kv_heads, -1, head_dim)
    this_lap, lap_before = (query @ keys.to(query.dtype).transpose(2, 3)).chunk(2, dim=2)
    scores = torch.where(before_lap[:, None, None], lap_before, this_lap)
    scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    own = (query.chunk(2, dim=2)[0] * key).sum(-1, keepdim=True)
    weights = torch.cat((scores, own), dim=-1).softmax(dim=-1)
    mixed = weights[..., :-1] @ values.to(weights.dtype) + weights[..., -1:] * value
    y: Tensor = attention.o_proj(mixed.reshape(rows, -1))
    return y, torch.stack((key[:, :, 0], value[:, :, 0]), dim=1)


# --------------------------------------------------------------------------------------------------- making and storing


@torch.no_grad()
def from_brain(brain: Decoder, config: DraftConfig) -> DraftModel:
    """A draft model whose decoder begins as the brain: embeddings, norms, and layers taken evenly from its stack.

    Special tokens begin as the mean embedding with noise. The adapter's last layer is zero, so that the model begins
    as a language model that hears nothing.

    Raises:
        WeightsError: The brain is of other sizes.
    """
    model = DraftModel(config)
    ours, its = config.decoder, brain.config
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rope_theta"):
        if getattr(ours, name) != getattr(its, name):
            raise WeightsError(
                f"the brain's {name} is {getattr(its, name)}, the draft model's {getattr(ours, name)}; make them equal"
            )
    if config.text_tokens != its.vocab_size or ours.num_hidden_layers > its.num_hidden_layers:
        raise WeightsError(
            f"a draft model of {config.text_tokens} text tokens and {ours.num_hidden_layers} layers cannot begin as a "
            f"brain of {its.vocab_size} and {its.num_hidden_layers}"
        )
    source, target = brain.model, model.decoder.model
    table = source.embed_tokens.weight
    target.embed_tokens.weight[: len(table)] = table
    noise = torch.randn(RESERVED, table.shape[1], generator=torch.Generator().manual_seed(0))
    target.embed_tokens.weight[len(table) :] = table.mean(0) + noise * table.std()
    last = max(1, ours.num_hidden_layers - 1)
    for index, layer in enumerate(target.layers):
        taken = round(index * (its.num_hidden_layers - 1) / last)
        layer.load_state_dict(source.layers[taken].state_dict())
    target.norm.load_state_dict(source.norm.state_dict())
    nn.init.zeros_(model.adapter.outer.weight)
    nn.init.zeros_(model.adapter.outer.bias)
    return model


def save_draft(model: DraftModel, folder: Path) -> None:
    """See `stored.save_model`. The head is the embedding and is not written twice."""
    save_model(model, model.config.to_dict(), folder, without=_tied(model))


def pack_draft(model: DraftModel, folder: Path) -> None:
    """Writes the folder that ships: int8 (`quantize.py`) where a block divides a matrix, float32 elsewhere."""
    arrays = {name: t.float().numpy() for name, t in model.state_dict().items() if name not in _tied(model)}
    packed: dict[str, Any] = {}
    for name, array in arrays.items():
        block = next((each for each in _BLOCKS if array.ndim == 2 and array.shape[1] % each == 0), None)
        packed |= {name: array} if block is None else pack_weights({name: array}, block=block)
    save_packed(packed, model.config.to_dict(), folder)


def load_draft(folder: Path) -> DraftModel:
    """Reads what `save_draft` or `pack_draft` wrote, as float32 and in evaluation mode.

    Raises:
        WeightsError: Files are missing or damaged, or the weights do not fit the config.
    """
    model = DraftModel(DraftConfig.from_dict(read_config(folder)))
    tensors = read_tensors(folder)
    if any(name.endswith(PACKED) for name in tensors):
        arrays = unpack_weights({name: tensor.numpy() for name, tensor in tensors.items()})
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if model.config.decoder.tie_word_embeddings and "decoder.model.embed_tokens.weight" in tensors:
        tensors["decoder.lm_head.weight"] = tensors["decoder.model.embed_tokens.weight"]
    load_weights(model, tensors)
    return model.eval()


def _tied(model: DraftModel) -> frozenset[str]:
    tied = model.config.decoder.tie_word_embeddings
    return frozenset({"decoder.lm_head.weight"} if tied else ())
