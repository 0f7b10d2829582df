"""Sizes, tokens and files of the duplex draft model. No torch: every runner uses it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

from relay_models.decoder_config import DecoderConfig
from relay_models.framing import FRAME_MS
from relay_models.loading import WeightsError

MODEL_TYPE = "relay_draft"
SPEECH_FRAMES = 2
"""Encoder frames of one frame of the draft model."""
DRAFT_FRAME_MS = SPEECH_FRAMES * FRAME_MS
RIGHT = SPEECH_FRAMES - 1
"""Look-ahead of the encoder: the two encoder frames of a frame see each other, which costs no time."""
PAST_FRAMES = 1
"""Encoder frames before its own that a frame hears."""


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


END_FRAMES = 6
"""Frames of a silence, the one in which it began included, whose `BOS` tells of the end of a turn: those that are
complete after 160, 320, ... 960 ms. Of later ones too few are measured."""
STOP_FRAMES = 2
"""Likewise of speech under our reply, whose `STP` tells of an interruption: it is due in the second."""
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True)
class Trust:
    """How much evidence the probability of a special token is: weight * log-odds of it + bias, in nats.

    What belongs here is found on held-out dialogues (`training/draft_eval.py`); a model says nothing by default.

    Attributes:
        weight: Never negative: the likelier the token, the more evidence. 0: none at all.
        bias: Makes a probability that tells neither way no evidence.

    Raises:
        ValueError: A number is not finite, or the weight negative.
    """

    weight: float = 0.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and math.isfinite(self.bias) and self.weight >= 0):
            raise ValueError(
                f"weight {self.weight} and bias {self.bias}: give finite numbers, and a weight of 0 or more"
            )

    def evidence(self, probability: float) -> float | None:
        """Of what the token stands for; None where there is no trust, or no number."""
        if not self.weight or math.isnan(probability):
            return None
        bounded = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
        return self.weight * math.log(bounded / (1 - bounded)) + self.bias


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """Sizes, and what the model's signals are worth.

    Attributes:
        decoder: Of the language model; its vocabulary ends with `RESERVED` ids for special tokens.
        speech_size: Width of the encoder's frames.
        window: Entries that attention reaches back over, itself included.
        turn_ends: How much `BOS`, while the user is silent, tells of the end of the user's turn.
        stops: How much `STP`, while the user speaks under our reply, tells of an interruption.
    """

    decoder: DecoderConfig = field(
        default_factory=lambda: DecoderConfig(vocab_size=8192 + RESERVED, num_hidden_layers=6)
    )
    speech_size: int = 256
    window: int = 256
    turn_ends: Trust = Trust()
    stops: Trust = Trust()

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
            turn_ends, stops = (
                Trust(float(part.get("weight", 0.0)), float(part.get("bias", 0.0)))
                for part in (values.get("turn_ends", {}), values.get("stops", {}))
            )
            return cls(decoder, int(values["speech_size"]), int(values["window"]), turn_ends, stops)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"config.json is not that of a draft model ({error!r})") from error

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"model_type": MODEL_TYPE, **asdict(self)}


LISTEN, DRAFT = "listen.onnx", "draft.onnx"
"""Graphs of an exported folder: a frame that is heard, and an entry of a fork."""


def keys_name(layer: int) -> str:
    """A layer's ring of keys, in state and in graphs."""
    return f"draft.{layer}.keys"


def values_name(layer: int) -> str:
    """A layer's ring of values."""
    return f"draft.{layer}.values"
