"""The verifier: padding and neighbours do not count, everything it is shown does, and it learns what it is for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_models.drafting import Drafted
from relay_models.host_verifier import HostVerifier, Judgement, load_host_verifier
from relay_models.loading import WeightsError
from relay_models.verifier import (
    DraftBatch,
    Verifier,
    VerifierConfig,
    count_loss,
    load_verifier,
    regret_loss,
    save_verifier,
)

torch.set_num_threads(1)
CONFIG = VerifierConfig(hidden_size=10, size=16)


def verifier(config: VerifierConfig = CONFIG, seed: int = 0) -> Verifier:
    torch.manual_seed(seed)
    model = Verifier(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def drafted(count: int, generator: torch.Generator, hidden_size: int = 10) -> Drafted:
    """A draft of one-token words, the last of two tokens where there are several."""
    ends = [*range(1, min(count, 7)), count] if count else []
    return Drafted(
        tokens=tuple(range(count)),
        word_ends=tuple(ends),
        complete=False,
        hidden=torch.randn(count, hidden_size, generator=generator).numpy(),
        log_probability=-torch.rand(count, generator=generator).numpy(),
        entropy=3 * torch.rand(count, generator=generator).numpy(),
        margin=torch.rand(count, generator=generator).numpy(),
    )


def on_host(model: Verifier) -> HostVerifier:
    return HostVerifier(model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()})


MODEL = verifier()
HOST = on_host(MODEL)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.floats(0, 1)), min_size=1, max_size=5), st.integers(0, 9))
def test_the_host_judges_alone_as_the_network_does_among_others(shapes: list[tuple[int, float]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    drafts = [drafted(count, generator) for count, _ in shapes]
    confidences = [confidence for _, confidence in shapes]
    said = [(draft, confidence) for draft, confidence in zip(drafts, confidences, strict=True) if draft.tokens]
    if said:
        with torch.no_grad():
            logits, counts = MODEL(DraftBatch.join([draft for draft, _ in said], [sure for _, sure in said]))
        for (draft, confidence), logit, numbers in zip(said, logits.tolist(), counts, strict=True):
            alone, ours = HOST.logits(draft, confidence)
            assert alone == pytest.approx(logit, abs=1e-4)
            np.testing.assert_allclose(ours, numbers, atol=1e-4)
            judged = HOST.judge(draft, confidence)
            assert judged.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
            assert judged.words <= len(draft.word_ends)
    for draft, confidence in zip(drafts, confidences, strict=True):
        if not draft.tokens:
            assert HOST.judge(draft, confidence) == Judgement(0.0, 0)


def test_a_token_that_was_next_to_impossible_is_judged_as_the_network_does() -> None:
    """Numbers that no float32 holds the exponential of are no warning and no nan."""
    draft = drafted(4, torch.Generator().manual_seed(1))
    draft = dataclasses.replace(draft, log_probability=np.array([-700, -1, -90, 0], dtype=np.float32))
    with torch.no_grad():
        logits, _ = MODEL(DraftBatch.join([draft], [0.5]))
    assert HOST.logits(draft, 0.5)[0] == pytest.approx(float(logits[0]), rel=1e-4, abs=1e-4)


def test_all_that_it_is_shown_counts() -> None:
    draft = drafted(6, torch.Generator().manual_seed(0))

    def logit(draft: Drafted, confidence: float = 0.5) -> float:
        return float(MODEL(DraftBatch.join([draft], [confidence]))[0].detach())

    base = logit(draft)
    for name in ("hidden", "log_probability", "entropy", "margin"):
        changed = dataclasses.replace(draft, **{name: getattr(draft, name) + 1})
        assert abs(logit(changed) - base) > 1e-4, name
    assert abs(logit(draft, 0.9) - base) > 1e-4
    swapped = dataclasses.replace(draft, hidden=draft.hidden[::-1].copy())
    assert abs(logit(swapped) - base) > 1e-4, "order counts"


def test_the_threshold_and_the_calibration_decide() -> None:
    draft = drafted(5, torch.Generator().manual_seed(1))
    judged = HOST.judge(draft, 0.7)
    for threshold, speaks in ((judged.probability - 1e-4, True), (judged.probability + 1e-4, False)):
        again = on_host(verifier(dataclasses.replace(CONFIG, threshold=threshold))).judge(draft, 0.7)
        assert again.probability == pytest.approx(judged.probability)
        assert (again.words > 0) == (speaks and int(MODEL(DraftBatch.join([draft], [0.7]))[1].argmax()) > 0)
    shifted = on_host(verifier(dataclasses.replace(CONFIG, scale=0.0, shift=2.0))).judge(draft, 0.7)
    assert shifted.probability == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item())
    for shift in (-1e6, 1e6):  # neither overflows
        extreme = on_host(verifier(dataclasses.replace(CONFIG, scale=0.0, shift=shift))).judge(draft, 0.7)
        assert extreme.probability == pytest.approx(float(shift > 0))


def test_an_empty_or_too_long_draft_is_no_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="empty"):
        DraftBatch.join([drafted(0, generator)], [0.5])
    with pytest.raises(ValueError, match="16 tokens"):
        HOST.judge(drafted(16, generator), 0.5)


def test_the_default_is_smaller_than_a_megabyte(tmp_path: Path) -> None:
    model = Verifier(VerifierConfig()).eval()
    save_verifier(model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    draft = drafted(5, torch.Generator().manual_seed(0), 384)
    assert load_host_verifier(tmp_path).judge(draft, 0.5) == on_host(model).judge(draft, 0.5)
    assert on_host(load_verifier(tmp_path)).judge(draft, 0.5) == on_host(model).judge(draft, 0.5)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"size": 128', '"size": 64'))
    with pytest.raises(WeightsError, match="should be"):
        load_host_verifier(tmp_path)
    config.write_text(config.read_text().replace('"relay_verifier"', '"relay_ears"'))
    for load in (load_verifier, load_host_verifier):
        with pytest.raises(WeightsError, match="'relay_ears'"):
            load(tmp_path)
    config.write_text(config.read_text().replace('"relay_ears"', '"relay_verifier"'))
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_host_verifier(tmp_path)


@given(st.floats(-8, 8), st.floats(0, 10), st.floats(0, 10), st.floats(0.1, 3))
def test_the_loss_of_a_draft_is_least_where_its_regret_says(
    logit: float, regret: float, tolerance: float, softness: float
) -> None:
    def loss(x: float) -> float:
        return regret_loss(torch.tensor([x]), torch.tensor([regret]), tolerance, softness=softness).item()

    best = (tolerance - regret) / softness
    assert loss(best) <= loss(logit) + 1e-5
    assert (loss(1.0) < loss(-1.0)) == (regret < tolerance) or abs(regret - tolerance) < 1e-5 * softness


def test_it_learns_to_tell_doubtful_words() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    drafts = [drafted(4 + index % 5, generator) for index in range(128)]
    good = torch.tensor([bool(draft.margin.mean() > 0.5) for draft in drafts])
    words = torch.tensor([int((draft.margin[: len(draft.word_ends)] > 0.3).cumprod().sum()) for draft in drafts])
    model = Verifier(CONFIG)
    batch = DraftBatch.join(drafts, [0.5] * len(drafts))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(200):
        logits, counts = model(batch)
        loss = regret_loss(logits, (~good).float(), 0.5, softness=0.1) + count_loss(counts, words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits, counts = model(batch)
    assert ((logits > 0) == good).float().mean() > 0.95
    assert (counts.argmax(-1) == words).float().mean() > 0.9
