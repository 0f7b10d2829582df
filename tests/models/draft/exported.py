"""A small draft model whose matrices are large enough to be packed, in a folder, exported."""

from __future__ import annotations

from pathlib import Path

import torch

from relay_models.decoder import DecoderConfig
from relay_models.draft import RESERVED, DraftConfig, DraftModel
from relay_models.draft_export import write_packed
from tests.models.draft.tiny_draft import TOKENIZER

SPEECH = 32


def packable_model(seed: int = 0, *, window: int = 24) -> DraftModel:
    """Weights loud enough that every part shows in the output."""
    decoder = DecoderConfig(
        vocab_size=TOKENIZER.size + RESERVED,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    model = DraftModel(DraftConfig(decoder, speech_size=SPEECH, window=window)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.25, generator=generator)
    return model


def write_exported(folder: Path, model: DraftModel) -> Path:
    """The shipped layout, with its tokenizer beside it."""
    write_packed(model, folder)
    TOKENIZER.save(folder / "tokenizer.json")
    return folder
