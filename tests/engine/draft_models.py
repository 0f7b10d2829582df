"""Folders of a small random fast path, exported: ears, draft model and verifier that fit one another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from relay_models import export
from relay_models.verifier import Verifier, VerifierConfig, save_verifier
from tests.engine.ears_models import small_ears
from tests.engine.ears_models import write_exported as write_exported_ears
from tests.models.draft.exported import packable_model, write_exported

SEED = 2  # of a model whose drafts have words
MODEL = packable_model(SEED, window=64)


def write_models(folder: Path) -> None:
    """Writes `ears`, `draft` and `verifier`.

    Products of the graphs keep their activations in float32 here, so that both runners say the same, exactly. What int8
    activations change is measured in `test_draft_export`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "ACCURACY_LEVEL", 0)
        write_exported_ears(folder / "ears", small_ears(rights=(1,)))
        write_exported(folder / "draft", MODEL)
    torch.manual_seed(0)
    config = VerifierConfig(hidden_size=MODEL.config.decoder.hidden_size, size=16, threshold=0.0)
    save_verifier(Verifier(config), folder / "verifier")
