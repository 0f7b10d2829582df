from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from relay_models.ears import Ears, EarsConfig, load_ears, save_ears
from relay_models.encoder import EncoderConfig
from relay_models.loading import WeightsError
from relay_models.transducer import TransducerConfig
from tests.models.ears.tiny import MELS, PATTERNS, ears

TARGETS, COUNTS = torch.tensor([[1, 2, 2, 5], [7, 0, 0, 0]]), torch.tensor([4, 1])


def features(mels: int = 120) -> torch.Tensor:
    return torch.randn(2, mels, MELS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, pattern: str) -> None:
    model = ears(**PATTERNS[pattern])
    save_ears(model, tmp_path / "ears")
    twin = load_ears(tmp_path / "ears")
    assert twin.config == model.config
    assert not twin.training
    x, lengths = features(), torch.tensor([120, 77])
    assert torch.equal(model(x, lengths, 1).frames, twin(x, lengths, 1).frames)


def test_damaged_folders_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "ears"
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_ears(folder)
    save_ears(ears(), folder)
    config = json.loads((folder / "config.json").read_text())

    def damage(**changes: Any) -> None:
        (folder / "config.json").write_text(json.dumps(config | changes))

    damage(model_type="other")
    with pytest.raises(WeightsError, match="'other'"):
        load_ears(folder)
    damage(encoder={**config["encoder"], "colour": 3})
    with pytest.raises(WeightsError, match="colour"):
        load_ears(folder)
    damage(encoder={**config["encoder"], "layers": 4})
    with pytest.raises(WeightsError, match="do not fit"):
        load_ears(folder)
    damage(transducer=None)
    with pytest.raises(WeightsError, match="recogniser"):
        load_ears(folder)
    damage()
    (folder / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_ears(folder)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="mel filters"):
        EarsConfig(encoder=EncoderConfig(mel_bins=40))
    with pytest.raises(ValueError, match="middle loss"):
        EarsConfig(middle=12)
    with pytest.raises(ValueError, match="activation"):
        TransducerConfig(activation="gelu")
    with pytest.raises(ValueError, match="context"):
        TransducerConfig(layers=0, context=0)


def test_the_default_has_the_size_that_ships() -> None:
    with torch.device("meta"):
        model = Ears(EarsConfig())
    assert 10e6 < sum(parameter.numel() for parameter in model.parameters()) < 23e6


def test_losses_are_means_over_tokens_and_frames() -> None:
    model, lengths = ears(), torch.tensor([120, 77])
    encoded = model(features(), lengths, 1)
    ends = torch.full(encoded.frames.shape[:2], -1.0)
    ends[0, 3], ends[1, 5] = 1, 0
    found = model.losses(encoded, TARGETS, COUNTS, ends=ends)
    assert set(found) == {"transducer", "ctc", "middle", "end"}
    logits = model.end_logits(encoded.frames)
    want = -(functional.logsigmoid(logits[0, 3]) + functional.logsigmoid(-logits[1, 5])) / 2
    torch.testing.assert_close(found["end"], want)
    for row, targets in enumerate((TARGETS[0], TARGETS[1, :1])):
        one = model(features()[row : row + 1, : lengths[row]], lengths[row : row + 1], 1)
        alone = model.losses(one, targets[None], COUNTS[row : row + 1], transducer=row == 0)
        if row == 0:
            total = {name: alone[name] * 4 for name in ("ctc", "middle")}
            assert "transducer" in alone
        else:
            assert "transducer" not in alone
            for name in total:
                torch.testing.assert_close(found[name], (total[name] + alone[name]) / 5)


def test_rows_without_frames_or_tokens_do_no_harm() -> None:
    model, lengths = ears(), torch.tensor([120, 0])
    found = model.losses(model(features(), lengths), TARGETS, torch.tensor([4, 0]))
    sum(found.values(), torch.tensor(0.0)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.losses(model(features(), lengths), TARGETS[:, :0], torch.tensor([0, 0]))["transducer"].isfinite()


def test_a_recording_can_be_learnt_by_heart() -> None:
    """All losses fall together, with every look-ahead in turn."""
    torch.manual_seed(0)
    model = ears().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, lengths, losses = features(), torch.tensor([120, 77]), []
    ends = torch.zeros(2, 16)
    ends[:, 8:] = 1
    for step in range(100):
        right = model.config.encoder.rights[step % 4]
        found = model.losses(model(x, lengths, right), TARGETS, COUNTS, ends=ends)
        loss = sum(found.values(), torch.tensor(0.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append({name: float(value.detach()) for name, value in found.items()})
    for name in losses[0]:
        assert losses[-1][name] < 0.3 * losses[0][name], name


def test_autocast_costs_little_accuracy() -> None:
    model, lengths = ears(), torch.tensor([120, 77])
    ends = torch.zeros(2, 16)
    want = model.losses(model(features(), lengths, 1), TARGETS, COUNTS, ends=ends)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.losses(model(features(), lengths, 1), TARGETS, COUNTS, ends=ends)
    sum(found.values(), torch.tensor(0.0)).backward()
    for name, loss in want.items():
        torch.testing.assert_close(found[name], loss, atol=0, rtol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_without_the_head_there_is_no_end() -> None:
    model = ears()
    model.end = None
    with pytest.raises(ValueError, match="end of the utterance"):
        model.end_logits(torch.zeros(1, 1, 12))
