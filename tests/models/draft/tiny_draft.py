"""Draft models that are small, with weights loud enough that every part shows in the output."""

from __future__ import annotations

import torch

from relay_models.decoder import DecoderConfig
from relay_models.draft import RESERVED, DraftConfig, DraftModel
from relay_models.tokenizer import ChatTokenizer, train_bpe

torch.set_num_threads(1)

TEXTS = ("hello there how are you", "the time is noon", "no one knows what time it is", "you are there")
TOKENIZER = ChatTokenizer(train_bpe(TEXTS * 3, vocabulary=300))
SPEECH = 12
WINDOW = 9


def decoder_config(vocab_size: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=vocab_size,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
    )


def draft_config(window: int = WINDOW, speech_size: int = SPEECH) -> DraftConfig:
    return DraftConfig(decoder_config(TOKENIZER.size + RESERVED), speech_size=speech_size, window=window)


def draft_model(seed: int = 0, *, window: int = WINDOW, speech_size: int = SPEECH) -> DraftModel:
    generator = torch.Generator().manual_seed(seed)
    model = DraftModel(draft_config(window, speech_size)).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model
