"""The duplex draft model: hears the user at all times, says one token a frame of 160 ms, and drafts replies ahead.

After RelayS2S (arXiv 2603.23346, section 3): the causal frames of the recogniser's encoder (80 ms) go through a causal
adapter, two of them to a frame; the input at a frame is the speech embedding plus the embedding of the token before.
The decoder is the brain's, fewer layers of it, with five tokens more: silence, begin and end of a turn, a backchannel,
and the stop that answers a barge-in. A draft is made on a copy of a stream's state, off the frame clock, with the
speech side switched off, so that the stream goes on listening.

`DraftModel.forward` is the definition; `listen` and `decode` compute the same entry by entry. Attention reaches back
over `window` entries. Their keys are kept unrotated in a ring and rotated by their age, so that positions neither grow
nor drift, however long a stream lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.decoder import Attention, Decoder, DecoderConfig, Layer
from relay_models.framing import FRAME_MS
from relay_models.layers import attend, rotary_angles, rotate
from relay_models.loading import WeightsError, read_config
from relay_models.quantize import PACKED, pack_weights, unpack_weights
from relay_models.state import StreamState, write_rows
from relay_models.stored import load_weights, read_tensors, save_model, save_packed

MODEL_TYPE = "relay_draft"
SPEECH_FRAMES = 2
"""Encoder frames of one frame of the draft model."""
DRAFT_FRAME_MS = SPEECH_FRAMES * FRAME_MS
_PAST_FRAMES = 1  # encoder frames before its own that the adapter sees
_BLOCKS = (128, 64, 32, 16)
"""Columns that may share a scale: the first that divides a matrix is taken."""


RESERVED = 8
"""Ids behind those of the text: the special tokens', and some that are not used, so that products stay aligned."""


class Special(IntEnum):
    """Tokens beside those of the text, numbered from `DraftConfig.text_tokens` on."""

    SIL = 0
    """Nothing is said."""
    BOS = 1
    """A turn begins; its text follows."""
    EOS = 2
    """The text of a turn, or of a backchannel, is complete."""
    BOC = 3
    """A backchannel begins."""
    STP = 4
    """The turn is broken off: the user has begun to speak."""


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """Sizes.

    Attributes:
        decoder: Of the language model; its vocabulary ends with `RESERVED` ids for special tokens.
        speech_size: Width of the encoder's frames.
        window: Entries that attention reaches back over, itself included.
    """

    decoder: DecoderConfig = field(
        default_factory=lambda: DecoderConfig(vocab_size=8192 + RESERVED, num_hidden_layers=6)
    )
    speech_size: int = 256
    window: int = 256

    @property
    def text_tokens(self) -> int:
        """Number of tokens of text; the special ones follow."""
        return self.decoder.vocab_size - RESERVED

    def token(self, special: Special) -> int:
        """Id of a special token."""
        return self.text_tokens + special

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DraftConfig:
        """Reads the JSON form. Raises WeightsError when it does not describe a draft model."""
        if values.get("model_type", MODEL_TYPE) != MODEL_TYPE:
            raise WeightsError(f"config.json is of a {values['model_type']!r} model, not of a {MODEL_TYPE!r} one")
        try:
            decoder = DecoderConfig.from_dict(values["decoder"])
            return cls(decoder, int(values["speech_size"]), int(values["window"]))
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"config.json is not that of a draft model ({error!r})") from error

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"model_type": MODEL_TYPE, **asdict(self)}


class Adapter(nn.Module):
    """Encoder frames -> speech embeddings, causally: a frame takes its own two encoder frames and the one before."""

    def __init__(self, speech_size: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(speech_size)
        self.inner = nn.Linear((SPEECH_FRAMES + _PAST_FRAMES) * speech_size, size)
        self.outer = nn.Linear(size, size)

    def forward(self, speech: Tensor, past: Tensor | None = None) -> Tensor:
        """[batch, 2 time, speech_size] -> [batch, time, size]; `past` [batch, 1, speech_size] came before, or zeros."""
        if past is None:
            past = torch.zeros_like(speech[:, :_PAST_FRAMES])
        both = self.norm(torch.cat((past, speech), dim=1))
        windows = both.unfold(1, SPEECH_FRAMES + _PAST_FRAMES, SPEECH_FRAMES).transpose(2, 3).flatten(2)
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
        heard = self.adapter(speech)
        if switched_off is not None:
            heard = heard.masked_fill(switched_off[:, :, None], 0)
        trunk = self.decoder.model
        x = self.decoder.dropout(heard + trunk.embed_tokens(previous))
        numbers = torch.arange(x.shape[1], device=x.device)
        ages = numbers[:, None] - numbers
        mask = ((ages >= 0) & (ages < self.config.window))[None, None]
        sizes = self.config.decoder
        cos, sin = rotary_angles(numbers[None], sizes.head_dim, sizes.rope_theta)
        for layer in self.layers():
            x = layer(x, cos, sin, mask)
        y: Tensor = trunk.norm(x)
        return y

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] -> [..., vocabulary]."""
        y: Tensor = self.decoder.lm_head(hidden)
        return y

    def layers(self) -> list[Layer]:
        """The decoder's layers, first one first."""
        return [layer for layer in self.decoder.model.layers if isinstance(layer, Layer)]

    # --------------------------------------------------------------------------------------------------------- streams

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams, all zero."""
        sizes, like = self.config.decoder, self.decoder.model.embed_tokens.weight
        ring = (rows, 2, self.config.window, sizes.num_key_value_heads, sizes.head_dim)
        return {
            "draft.entries": like.new_zeros(rows, dtype=torch.int64),
            "draft.past": like.new_zeros(rows, _PAST_FRAMES, self.config.speech_size),
            **{f"draft.{index}.ring": like.new_zeros(ring) for index in range(sizes.num_hidden_layers)},
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
        heard = self.adapter(speech, state["draft.past"])[:, 0]
        write_rows(state["draft.past"], speech[:, -_PAST_FRAMES:], active)
        return self._advance(heard + self.decoder.model.embed_tokens(previous), state, active), state

    @torch.no_grad()
    def decode(self, previous: Tensor, state: StreamState, active: Tensor) -> tuple[Tensor, StreamState]:
        """One entry without speech; arguments and results as in `listen`."""
        return self._advance(self.decoder.model.embed_tokens(previous), state, active), state

    def _advance(self, x: Tensor, state: StreamState, active: Tensor) -> Tensor:
        """Takes one entry a row, [rows, size], and gives its hidden state."""
        sizes, window = self.config.decoder, self.config.window
        entries = state["draft.entries"]
        place = entries % window
        # Place p holds the newest entry whose number is p modulo the window.
        ages = (place[:, None] - torch.arange(window, device=x.device)) % window
        mask = (ages <= entries[:, None])[:, None]
        cos, sin = rotary_angles(-ages, sizes.head_dim, sizes.rope_theta)
        x = x[:, None]
        for index, layer in enumerate(self.layers()):
            normed = layer.input_layernorm(x)
            ring = state[f"draft.{index}.ring"]
            x = x + _attend_ring(layer.self_attn, normed, ring, place, active, cos, sin, mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        entries.add_(active.long())
        y: Tensor = self.decoder.model.norm(x)[:, 0]
        return y


def _attend_ring(
    attention: Attention,
    x: Tensor,
    ring: Tensor,
    place: Tensor,
    active: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
) -> Tensor:
    """Attention of one new entry a row over the ring, into which its key, unrotated, and its value are written.

    Args:
        attention: The layer's.
        x: [rows, 1, size].
        ring: [rows, 2, window, kv_heads, head_dim], changed in place for active rows.
        place: [rows] int64, where the new entry goes.
        active: [rows] bool.
        cos, sin: [rows, window, head_dim], of the negative ages: the query stands at position 0.
        mask: [rows, 1, window] bool.
    """
    shape = (len(x), 1, -1, attention.head_dim)
    query, key, value = (p(x).reshape(shape) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    row = torch.arange(len(x), device=x.device)
    new = torch.stack((key[:, 0], value[:, 0]), dim=1).to(ring.dtype)
    ring[row, :, place] = torch.where(active[:, None, None, None], new, ring[row, :, place])
    y: Tensor = attention.o_proj(attend(query, rotate(ring[:, 0], cos, sin), ring[:, 1], mask))
    return y


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
