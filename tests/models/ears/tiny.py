"""Recognisers that are small and odd-sized, with weights loud enough that every part shows in the output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from relay_models.ears import Ears, EarsConfig
from relay_models.encoder import EncoderConfig
from relay_models.features import FeatureConfig
from relay_models.transducer import TransducerConfig

torch.set_num_threads(1)

MELS = 10
WINDOWS = ((3, 2), (2, 0), (4, 1))
PATTERNS: dict[str, dict[str, Any]] = {
    "chunks": {},
    "chunks without positions": {"relative_positions": False},
    "windows": {"windows": WINDOWS, "relative_positions": False},
    "windows with positions": {"windows": WINDOWS},
}


def loud(module: nn.Module, seed: int = 0) -> None:
    """Random weights of a size that keeps activations alive through all layers."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        width = 0.1 if parameter.dim() < 2 else 1.7 * parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, std=width, generator=generator)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)


def bursts(rows: int, samples: int, seed: int = 0) -> Tensor:
    """Noise whose loudness jumps by up to 60 dB every 20 ms: [rows, samples], full scale 1."""
    generator = torch.Generator().manual_seed(seed)
    gains = 10 ** (-3 * torch.rand(rows, samples // 320 + 1, generator=generator))
    noise = torch.randn(rows, samples, generator=generator).clamp(-4, 4) / 4
    return noise * gains.repeat_interleave(320, dim=1)[:, :samples]


def encoder_config(**changes: Any) -> EncoderConfig:
    sizes: dict[str, Any] = {
        "mel_bins": MELS,
        "channels": 5,
        "size": 12,
        "layers": 3,
        "heads": 2,
        "inner": 14,
        "kernel": 4,
        "left": 14,
        "dropout": 0.0,
    }
    return EncoderConfig(**(sizes | changes))


@torch.no_grad()
def talkative(projection: nn.Linear, head: nn.Linear, frames: Tensor, predicted: Tensor, *, blank_bias: float) -> None:
    """Shifts and scales a joint network so that various tokens win at some of these frames [time, size]."""
    heard = projection(frames)
    projection.weight.div_(heard.std(0)[:, None])
    projection.bias.sub_(heard.mean(0)).div_(heard.std(0))
    logits = head((projection(frames)[:, None] + predicted).relu()).flatten(0, 1)
    head.bias.sub_(logits.mean(0))
    head.bias[-1] += blank_bias


def ears(*, vocabulary: int = 9, layers: int = 1, max_symbols: int = 2, **encoder: Any) -> Ears:
    """A recogniser that says various tokens at some frames of `bursts`."""
    model = Ears(
        EarsConfig(
            features=FeatureConfig(mel_bins=MELS, offset=9.0, scale=0.2),
            encoder=encoder_config(**encoder),
            transducer=TransducerConfig(
                vocabulary=vocabulary, size=11, layers=layers, joint=10, max_symbols=max_symbols
            ),
            middle=2,
        )
    ).eval()
    loud(model)
    with torch.no_grad():
        features, counts = model.features(bursts(1, 40_000), torch.tensor([40_000]))
        frames = model(features, counts, 1).frames[0]
        predicted = model.predictor(torch.arange(vocabulary - 1)[None])[0]
        talkative(model.joint.frame_projection, model.joint.head, frames, predicted, blank_bias=1.0)
        assert model.ctc is not None
        model.ctc.bias.sub_(model.ctc(frames).mean(0))
    return model
