"""Drafts that are judged in the step that makes them: the words and the verdict are those of the models by themselves.

On a GPU the step is a CUDA graph; on the CPU the same code runs without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from relay.engine import fast
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Draft, DraftInput, DraftOutput, Judgement
from relay.engine.draft_onnx import OnnxDraftRunner
from relay.engine.draft_torch import TorchDraftRunner
from relay.engine.learned_draft import LearnedDraft
from relay.engine.verifier import Judged, VerifierRunner
from relay.errors import WeightsError
from relay_models import loading
from relay_models.verifier import Verifier, VerifierConfig, save_verifier
from tests.engine.draft_models import MODEL, write_models

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.timeout(600)  # a busy machine takes minutes to export
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SLOTS = 5
NOTHING = np.zeros(0, np.int16)
CONFIDENCES = (0.0, 0.3, 0.9, 1.0, 0.62)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def folders(models: Path) -> tuple[Path, Path, Path]:
    return models / "ears", models / "draft", models / "draft" / "tokenizer.json"


def torch_runner(models: Path, device: Literal["cpu", "cuda"], **options: Any) -> TorchDraftRunner:
    made = TorchDraftRunner(*folders(models), device=device, max_slots=SLOTS, static=True, **options)
    made.load()
    return made


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def chain(request: pytest.FixtureRequest, models: Path) -> Iterator[TorchDraftRunner]:
    made = torch_runner(models, request.param, verifier=models / "verifier")
    yield made
    made.unload()


def listen(runner: LearnedDraft, seed: int) -> None:
    """Opens all slots and lets each hear something else."""
    generator = np.random.default_rng(seed)
    for slot in range(SLOTS):
        runner.open(slot)
        pcm = (generator.standard_normal((2 + slot) * DRAFT_FRAME_SAMPLES) * 3000).astype(np.int16)
        runner.step([slot], [DraftInput(pcm)])


def drafts(runner: LearnedDraft, words: int = 7) -> list[Draft]:
    asked = [DraftInput(NOTHING, draft_words=words, confidence=sure) for sure in CONFIDENCES]
    outputs = runner.step(range(SLOTS), asked)
    assert all(isinstance(output, DraftOutput) and output.draft is not None for output in outputs)
    return [output.draft for output in outputs if isinstance(output, DraftOutput) and output.draft is not None]


@pytest.mark.parametrize("words", [1, 3, 7])
def test_words_and_verdict_are_those_of_graphs_and_host(chain: TorchDraftRunner, models: Path, words: int) -> None:
    graphs = OnnxDraftRunner(*folders(models), max_slots=SLOTS)
    host = VerifierRunner(models / "verifier")
    graphs.load()
    host.load()
    said: set[tuple[str, ...]] = set()
    probabilities: set[float] = set()
    for seed in range(3):
        listen(graphs, seed)
        listen(chain, seed)
        for ours, its, sure in zip(drafts(chain, words), drafts(graphs, words), CONFIDENCES, strict=True):
            assert (ours.words, ours.complete) == (its.words, its.complete)
            assert its.judgement is None
            own, other = host.step([0, 1], [Judged(ours, sure), Judged(its, sure)])
            assert isinstance(own, Judgement)
            assert isinstance(other, Judgement)
            assert ours.judgement is not None
            assert ours.judgement.probability == pytest.approx(own.probability, abs=1e-5)
            assert ours.judgement.words == own.words <= words
            # The states that the graphs give differ by rounding.
            assert ours.judgement.probability == pytest.approx(other.probability, abs=2e-3)
            said.add(ours.words)
            probabilities.add(round(ours.judgement.probability, 3))
    assert len(said) > 1, "they differ"
    assert len(probabilities) > 1


def test_a_draft_is_judged_alone_as_among_others(chain: TorchDraftRunner) -> None:
    listen(chain, 7)
    together = drafts(chain)
    for slot, among in enumerate(together):
        (output,) = chain.step([slot], [DraftInput(NOTHING, draft_words=7, confidence=CONFIDENCES[slot])])
        assert isinstance(output, DraftOutput)
        assert output.draft is not None
        assert output.draft.words == among.words
        assert output.draft.judgement is not None
        assert among.judgement is not None
        assert output.draft.judgement.probability == pytest.approx(among.judgement.probability, abs=1e-4)


def test_what_the_verifier_was_not_made_for_is_left_to_others(chain: TorchDraftRunner) -> None:
    listen(chain, 1)
    assert all(draft.judgement is None for draft in drafts(chain, 40))
    assert all(draft.judgement is not None for draft in drafts(chain)), "and that leaves no trace"


@needs_gpu
def test_the_host_waits_for_nothing_but_the_results(models: Path) -> None:
    """Whatever else made the host wait for the GPU between a draft's first token and its verdict raises here."""
    runner = torch_runner(models, "cuda", verifier=models / "verifier")
    listen(runner, 0)
    wanted = drafts(runner)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert [(draft.words, draft.judgement) for draft in drafts(runner)] == [
            (draft.words, draft.judgement) for draft in wanted
        ]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    runner.unload()


@needs_gpu
def test_the_fast_path_of_a_gpu_judges_in_the_step(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "locate", lambda name: models / "draft")  # of the brain, for its tokenizer

    async def main() -> None:
        async with fast.open_fast("relay", "cuda", models, max_slots=2) as (engine, _), engine.slot() as slot:
            heard = DraftInput(np.zeros(32_000, np.int16), draft_words=7, confidence=0.5)
            draft = (await engine.step(slot, heard)).draft
            assert draft is not None
            assert draft.judgement is not None

    asyncio.run(main())


def test_only_a_runner_on_a_gpu_is_given_the_verifier(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Path | None] = []

    class Spy(TorchDraftRunner):
        def __init__(self, *folders: Path, verifier: Path | None = None, **options: Any) -> None:
            given.append(verifier)
            super().__init__(*folders, verifier=verifier, **options)

    monkeypatch.setattr(fast, "TorchDraftRunner", Spy)
    for device in ("cpu", "cuda"):
        fast.make_runner(*folders(models), device, max_slots=2, verifier=models / "verifier")  # type: ignore[arg-type]
    assert given == [models / "verifier"]


def test_a_verifier_that_does_not_fit_is_refused(models: Path, tmp_path: Path) -> None:
    hidden = MODEL.config.decoder.hidden_size
    for config, complaint in (
        (VerifierConfig(hidden_size=hidden + 2, size=8), "do not fit"),
        (VerifierConfig(hidden_size=hidden, size=8, max_tokens=4), "4 tokens"),
    ):
        save_verifier(Verifier(config), tmp_path)
        with pytest.raises(WeightsError, match=complaint):
            torch_runner(models, "cpu", verifier=tmp_path)
