"""A small recogniser in a folder, packed and exported, and audio that makes it talk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from relay.audio import Int16Array
from relay_models.ears import Ears, EarsConfig, save_ears
from relay_models.ears_export import write_packed
from relay_models.encoder import EncoderConfig
from relay_models.features import FeatureConfig
from relay_models.transducer import TransducerConfig
from tests.models.ears.tiny import bursts, loud, talkative

PIECES = ["▁a", "b", "▁c", "d", "▁e", "f", "▁g", "h", "<blank>"]


def speech(samples: int, seed: int = 0) -> Int16Array:
    """Audio to which the model says various words."""
    pcm: Int16Array = (bursts(1, samples, seed)[0].numpy() * 32767).astype(np.int16)
    return pcm


def small_ears(**encoder: Any) -> Ears:
    """A recogniser whose matrices are large enough to be packed."""
    sizes: dict[str, Any] = {
        "mel_bins": 16, "channels": 16, "size": 32, "layers": 2, "heads": 2, "inner": 48, "kernel": 4, "left": 14,
        "rights": (1, 0), "dropout": 0.0,
    }  # fmt: skip
    model = Ears(
        EarsConfig(
            features=FeatureConfig(mel_bins=16, offset=9.0, scale=0.2),
            encoder=EncoderConfig(**(sizes | encoder)),
            transducer=TransducerConfig(vocabulary=len(PIECES), size=32, layers=0, joint=32, max_symbols=2),
            middle=int(encoder.get("layers", 2) > 1),
        )
    ).eval()
    loud(model)
    with torch.no_grad():
        features, counts = model.features(bursts(1, 40_000), torch.tensor([40_000]))
        frames: Tensor = model(features, counts, 1).frames[0]
        predicted: Tensor = model.predictor(torch.arange(len(PIECES) - 1)[None])[0]
        talkative(model.joint.frame_projection, model.joint.head, frames, predicted, blank_bias=1.0)
    return model


def write_tokenizer(folder: Path) -> None:
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    Tokenizer(WordLevel(vocabulary, unk_token="<blank>")).save(str(folder / "tokenizer.json"))


def write_exported(folder: Path, model: Ears | None = None, **extra: Any) -> Path:
    """The shipped layout: int8, with a graph for each look-ahead."""
    write_packed(model or small_ears(), folder, **extra)
    write_tokenizer(folder)
    return folder


def write_trained(folder: Path, model: Ears | None = None) -> Path:
    """What training leaves: float weights, no graph."""
    save_ears(model or small_ears(), folder)
    write_tokenizer(folder)
    return folder
