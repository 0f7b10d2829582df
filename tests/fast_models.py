"""A home with small models of the fast path: what they draft is nonsense, and every draft is let through."""

from __future__ import annotations

from pathlib import Path

import torch

from relay_models import loading
from relay_models.decoder import DecoderConfig
from relay_models.draft import RESERVED, DraftConfig, DraftModel, save_draft
from relay_models.ears import save_ears
from relay_models.tokenizer import ChatTokenizer
from relay_models.verifier import Verifier, VerifierConfig, save_verifier
from tests.models.ears.tiny import ears


def save_fast_models(home: Path) -> None:
    """Writes them where a server with this `RELAY_HOME` finds them; what is heard does not count."""
    recogniser, tokenizer = ears(), ChatTokenizer.load(loading.locate("brain") / "tokenizer.json")
    sizes = DecoderConfig(
        vocab_size=tokenizer.size + RESERVED,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    model = DraftModel(DraftConfig(sizes, speech_size=recogniser.config.encoder.size, window=64)).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(model.adapter.outer.weight)
    torch.nn.init.zeros_(model.adapter.outer.bias)
    save_ears(recogniser, home / "models" / "ears")
    save_draft(model, home / "models" / "draft")
    torch.manual_seed(3)
    verifier = Verifier(VerifierConfig(hidden_size=24, size=16, threshold=0.0))
    save_verifier(verifier, home / "models" / "verifier")
