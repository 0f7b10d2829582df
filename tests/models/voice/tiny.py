"""Voices that are small and odd-sized, in double precision, so that a difference is a fault and no rounding."""

from __future__ import annotations

from typing import Any

import torch

from relay_models.phonemes import BOUNDARY_ID, END_ID
from relay_models.vocoder import VocoderConfig
from relay_models.voice import Voice, VoiceConfig
from tests.models.ears.tiny import loud

torch.set_num_threads(1)


def config(**changes: Any) -> VoiceConfig:
    sizes: dict[str, Any] = {
        "speakers": 2,
        "text_size": 12,
        "text_inner": 14,
        "text_heads": 2,
        "text_kernel": 3,
        "text_layers": 2,
        "size": 10,
        "inner": 14,
        "kernel": 4,
        "layers": 2,
        "vocoder": VocoderConfig(size=12, inner=10, kernel=3, layers=2),
    }
    return VoiceConfig(**(sizes | changes))


def voice(seed: int = 0, **changes: Any) -> Voice:
    """Loud, but neither so long nor so shrill that nothing else shows."""
    torch.manual_seed(seed)
    model = Voice(config(**changes))
    loud(model, seed)
    with torch.no_grad():
        model.text.prosody.bias[0] = 1.6
        for head in (model.vocoder.head, model.decoder.head):
            head.weight.mul_(0.3)
    return model.double().eval()


def word(*phonemes: int, pause: int = BOUNDARY_ID) -> tuple[int, ...]:
    return (*phonemes, pause)


def some_words(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (count,), generator=generator).tolist()
    return [word(*torch.randint(1, END_ID - 6, (length,), generator=generator).tolist()) for length in lengths]
