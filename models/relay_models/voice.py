"""The voice: words of phonemes -> lengths, pitch, energy -> frames -> 24 kHz, in streams.

Words are read in windows (`voice_text`), their symbols are stretched to whole frames of 10 ms (`voice_plan`;
FastSpeech 2, Ren et al. 2021, arXiv 2006.04558), a causal decoder turns these into the vocoder's features, eight
frames a step, and the vocoder into samples. Given words always sound the same; see `voice_plan` for how far ahead a
sound looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from relay_models.loading import WeightsError, read_config
from relay_models.phonemes import END_ID, SYMBOLS
from relay_models.quantize import PACKED, unpack_weights
from relay_models.state import StreamState
from relay_models.stored import load_weights, read_tensors, save_model
from relay_models.vocoder import FEATURES, MEL_BINS, Vocoder, VocoderConfig
from relay_models.voice_layers import CausalStack
from relay_models.voice_plan import POSITIONS, WordTime, padded, positions_of, whole_frames, window_of, word_time
from relay_models.voice_text import TextEncoder, lengths_of

MODEL_TYPE = "relay_voice"


@dataclass(frozen=True, slots=True)
class VoiceConfig:
    """Everything that shapes a voice.

    Attributes:
        symbols: Number of symbols; `phonemes.SYMBOLS` decides what they mean.
        speakers: Number of speakers.
        text_size, text_inner, text_heads, text_kernel, text_layers: Of `TextEncoder`.
        size, inner, kernel, layers: Of the decoder; `size` is also the length of a symbol's vector.
        dropout: In the text encoder and the decoder, in training.
        vocoder: The vocoder.
    """

    symbols: int = len(SYMBOLS)
    speakers: int = 1
    text_size: int = 192
    text_inner: int = 768
    text_heads: int = 3
    text_kernel: int = 5
    text_layers: int = 4
    size: int = 256
    inner: int = 896
    kernel: int = 7
    layers: int = 5
    dropout: float = 0.1
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VoiceConfig:
        """Reads the JSON form. Raises WeightsError when it does not describe a voice."""
        if values.get("model_type", MODEL_TYPE) != MODEL_TYPE:
            raise WeightsError(f"config.json is of a {values['model_type']!r} model, not of a {MODEL_TYPE!r} one")
        own = {item.name for item in fields(cls)} - {"vocoder"}
        try:
            return cls(
                **{name: values[name] for name in own if name in values},
                vocoder=VocoderConfig(**values.get("vocoder", {})),
            )
        except (TypeError, ValueError) as error:
            raise WeightsError(f"config.json is not that of a voice ({error!r})") from error

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"model_type": MODEL_TYPE, **asdict(self)}


class Spoken(NamedTuple):
    """A reply spoken whole.

    Attributes:
        samples: [samples] at 24 kHz, full scale 1.
        features: [frames, FEATURES] that the vocoder was given.
        words: Where each word is.
    """

    samples: Tensor
    features: Tensor
    words: list[WordTime]


class Decoder(nn.Module):
    """Symbols' vectors, a frame each -> features of the vocoder; causal.

    Args:
        config: The voice's.
    """

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        inputs = config.size + POSITIONS
        self.stack = CausalStack(inputs, config.size, config.inner, config.kernel, config.layers, config.dropout)
        self.head = nn.Linear(config.size, FEATURES)

    def forward(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """[rows, frames, size], [rows, frames, POSITIONS] -> [rows, frames, FEATURES], voicing as a logit."""
        y: Tensor = self.head(self.stack(torch.cat((vectors, positions), dim=2)))
        return y

    def step(self, vectors: Tensor, positions: Tensor, state: StreamState, active: Tensor) -> Tensor:
        """New frames of streams, as `forward`."""
        y: Tensor = self.head(self.stack.step(torch.cat((vectors, positions), dim=2), state, active, "decoder"))
        return y


def voiced(features: Tensor) -> Tensor:
    """The decoder's output with its voicing as a probability, as the vocoder takes it: [..., FEATURES] both."""
    return torch.cat((features[..., : MEL_BINS + 1], torch.sigmoid(features[..., MEL_BINS + 1 :])), dim=-1)


class Voice(nn.Module):
    """The voice. `voice_stream` speaks several replies side by side with it.

    Args:
        config: Its shape.
    """

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        self.config = config
        self.speakers = nn.Embedding(config.speakers, config.text_size)
        self.text = TextEncoder(
            config.symbols, config.text_size, config.text_inner, config.text_heads, config.text_kernel,
            config.text_layers, config.size, config.dropout,
        )  # fmt: skip
        self.decoder = Decoder(config)
        self.vocoder = Vocoder(config.vocoder)

    def encode(self, ids: Tensor, places: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Reads windows; see `TextEncoder.forward`.

        Args:
            ids, places: [windows, symbols] int64.
            speaker: [windows] int64.

        Returns:
            The symbols' vectors [windows, symbols, size] and lengths in frames [windows, symbols].
        """
        states, prosody = self.text(ids, places, self.speakers(speaker))
        return self.text.vectors(states, prosody), lengths_of(prosody)

    @torch.no_grad()
    def forward(self, words: Sequence[Sequence[int]], *, speaker: int = 0, speed: float = 1.0) -> Spoken:
        """Speaks a whole reply.

        Args:
            words: Symbol ids of each word, its boundary or pause included; without the end.
            speaker: Number of the speaker.
            speed: Speaking rate relative to the speaker's own.
        """
        weight = self.speakers.weight
        if not words:
            return Spoken(weight.new_zeros(0), weight.new_zeros(0, FEATURES), [])
        shown = [*words, (END_ID,)]
        rows: list[Tensor] = []
        positions: list[Tensor] = []
        times: list[WordTime] = []
        for number in range(len(shown)):
            window = window_of(shown, number)
            ids, places = (torch.from_numpy(array).to(weight.device) for array in padded([window]))
            vectors, lengths = self.encode(ids, places, torch.tensor([speaker], device=weight.device))
            own = slice(window.begin, window.end)
            counts = whole_frames(lengths[0, own].cpu().numpy(), speed=speed, first=number == 0)
            times.append(word_time(number, sum(map(len, rows)), counts))
            rows.append(vectors[0, own].repeat_interleave(torch.from_numpy(counts).to(weight.device), dim=0))
            positions.append(torch.from_numpy(positions_of(counts)).to(weight))
        features = voiced(self.decoder(torch.cat(rows)[None], torch.cat(positions)[None]))
        return Spoken(self.vocoder(features)[0], features[0], times[: len(words)])

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams, all zero."""
        return {**self.decoder.stack.fresh_tensors(rows, "decoder"), **self.vocoder.fresh_tensors(rows)}

    @torch.no_grad()
    def step(
        self, vectors: Tensor, positions: Tensor, valid: Tensor, state: StreamState, active: Tensor
    ) -> tuple[Tensor, StreamState]:
        """One step of each active stream.

        Args:
            vectors: [rows, frames, size] of the symbol that each frame belongs to.
            positions: [rows, frames, POSITIONS]; see `voice_plan.positions_of`.
            valid: [rows, frames] bool, false behind the end of a reply.
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool; other rows keep their state and give samples of no meaning.

        Returns:
            Samples [rows, frames * HOP_SAMPLES], those of the frames DELAY_FRAMES earlier, and the state.
        """
        features = voiced(self.decoder.step(vectors, positions, state, active))
        return self.vocoder.step(features, valid, state, active), state


def save_voice(model: Voice, folder: Path) -> None:
    """See `stored.save_model`."""
    save_model(model, model.config.to_dict(), folder)


def load_voice(folder: Path) -> Voice:
    """Reads what `save_voice` or `voice_export.export_voice` wrote, as float32 and in evaluation mode.

    Raises:
        WeightsError: Files are missing or damaged, or the weights do not fit the config.
    """
    model = Voice(VoiceConfig.from_dict(read_config(folder)))
    tensors = read_tensors(folder)
    if any(name.endswith(PACKED) for name in tensors):  # exported: int8, and named as in the graphs
        arrays = {name.removeprefix("voice."): tensor.numpy() for name, tensor in tensors.items()}
        tensors = {name: torch.from_numpy(array) for name, array in unpack_weights(arrays).items()}
    load_weights(model, tensors)
    return model.eval()
