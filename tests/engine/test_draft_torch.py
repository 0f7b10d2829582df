"""The learned fast path behind the engine contract, with small random models: the same drafts as the models give."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from relay.config import ServerConfig
from relay.engine import fast
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Draft, DraftInput, DraftOutput
from relay.engine.draft_torch import EngineVerifier, TorchDraftRunner, TorchVerifierRunner
from relay.engine.engine import Engine
from relay.errors import EngineUnavailable, WeightsError
from relay.server.app import RelayServer
from relay_models import loading
from relay_models.draft import Special, save_draft
from relay_models.draft_stream import DraftStream
from relay_models.drafting import Drafted, Drafter
from relay_models.ears import save_ears
from relay_models.framing import LEAD_IN_SAMPLES
from relay_models.verifier import Verifier, VerifierConfig, load_verifier, save_verifier
from tests.models.draft.tiny_draft import TOKENIZER, draft_model
from tests.models.ears.tiny import ears

EARS = ears()
SEED = 2  # of a model whose drafts have words
MODEL = draft_model(SEED, window=64, speech_size=EARS.config.encoder.size)
SIL, BOS, EOS, STP = (MODEL.config.token(each) for each in (Special.SIL, Special.BOS, Special.EOS, Special.STP))
PCM = (np.random.default_rng(0).standard_normal(20 * DRAFT_FRAME_SAMPLES) * 3000).astype(np.int16)
NOTHING = np.zeros(0, np.int16)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_ears(EARS, folder / "ears")
    save_draft(MODEL, folder / "draft")
    torch.manual_seed(0)
    config = VerifierConfig(hidden_size=MODEL.config.decoder.hidden_size, size=16, threshold=0.0)
    save_verifier(Verifier(config), folder / "verifier")
    TOKENIZER.save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def runner(models: Path) -> TorchDraftRunner:
    made = TorchDraftRunner(models / "ears", models / "draft", models / "tokenizer.json", max_slots=3)
    made.load()
    return made


def expected(pcm: np.ndarray, said: list[int]) -> Drafted:
    """The draft after hearing all whole frames of `pcm`, having said these tokens, one a frame from the first on."""
    stream = DraftStream(EARS, MODEL)
    state = stream.fresh_state(1)
    led = np.concatenate((np.zeros(LEAD_IN_SAMPLES, np.int16), pcm)).astype(np.float32) / 32768
    tokens = [SIL, *said]
    for frame in range(len(led) // DRAFT_FRAME_SAMPLES):
        part = torch.from_numpy(led[frame * DRAFT_FRAME_SAMPLES : (frame + 1) * DRAFT_FRAME_SAMPLES])[None]
        previous = tokens[frame] if frame < len(tokens) else SIL
        stream.step(part, torch.tensor([previous]), state, torch.tensor([True]))
    (drafted,) = Drafter(MODEL, TOKENIZER).draft(state, [0])
    return drafted


def only(outputs: list[DraftOutput | BaseException]) -> DraftOutput:
    (output,) = outputs
    assert isinstance(output, DraftOutput)
    return output


def evidence(output: DraftOutput) -> Drafted:
    assert output.draft is not None
    assert isinstance(output.draft.evidence, Drafted)
    return output.draft.evidence


def same(one: Drafted, other: Drafted) -> bool:
    return one.tokens == other.tokens and torch.allclose(one.hidden, other.hidden, atol=1e-3)


@pytest.mark.parametrize("sizes", [[20 * DRAFT_FRAME_SAMPLES], [320] * 160, [1, 5000, 0, 12_000, 700]])
def test_any_split_of_the_sound_gives_the_same_draft(runner: TorchDraftRunner, sizes: list[int]) -> None:
    runner.open(1)
    runner.open(2)
    at = 0
    for size in sizes:
        runner.step([1, 2], [DraftInput(PCM[at : at + size]), DraftInput(PCM[::-1][:size])])
        at += size
    output = only(list(runner.step([1], [DraftInput(NOTHING, draft_words=7)])))
    assert same(evidence(output), expected(PCM[:at], []))
    assert output.begin_probability is not None
    assert 0 <= output.begin_probability <= 1
    again = only(list(runner.step([1], [DraftInput(NOTHING, draft_words=7)])))
    assert same(evidence(again), evidence(output)), "a draft leaves no trace"
    runner.close(2)
    runner.open(2)
    runner.step([2], [DraftInput(PCM[:at])])
    fresh = only(list(runner.step([2], [DraftInput(NOTHING, draft_words=7)])))
    assert same(evidence(fresh), evidence(output)), "a slot that is opened again has forgotten"


@pytest.mark.parametrize("ended", ["whole", "broken", ""])
def test_what_is_said_becomes_the_models_own_history(runner: TorchDraftRunner, ended: str) -> None:
    runner.open(0)
    half = 10 * DRAFT_FRAME_SAMPLES
    tokens = [BOS, *TOKENIZER.encode("no one"), *TOKENIZER.encode(" knows")]
    runner.step([0], [DraftInput(NOTHING, words="no one")])
    if ended == "broken":
        runner.step([0], [DraftInput(PCM[: 2 * DRAFT_FRAME_SAMPLES])])
        runner.step([0], [DraftInput(NOTHING, words="knows", ended="broken")])
        frames = (LEAD_IN_SAMPLES + 2 * DRAFT_FRAME_SAMPLES) // DRAFT_FRAME_SAMPLES
        said = [*tokens[:frames], STP]
        rest = PCM[2 * DRAFT_FRAME_SAMPLES : half]
    else:
        runner.step([0], [DraftInput(NOTHING, words="knows", ended=ended)])  # type: ignore[arg-type]
        said = [*tokens, *([EOS] if ended else [])]
        rest = PCM[:half]
    output = only(list(runner.step([0], [DraftInput(rest, draft_words=7)])))
    # The first frame's own token follows from what was queued before it: it is heard with silence before it.
    assert evidence(output).tokens
    assert same(evidence(output), expected(PCM[:half], said))
    assert not same(evidence(output), expected(PCM[:half], []))


def test_the_words_are_those_of_the_tokens(runner: TorchDraftRunner) -> None:
    runner.open(0)
    output = only(list(runner.step([0], [DraftInput(PCM, draft_words=3)])))
    assert output.draft is not None
    assert len(output.draft.words) == len(evidence(output).word_ends) <= 3
    assert "".join(output.draft.words) == TOKENIZER.decode(evidence(output).tokens).replace(" ", "")
    whole = only(list(runner.step([0], [DraftInput(NOTHING, draft_words=40)])))
    assert len(evidence(whole).tokens) >= len(evidence(output).tokens)


def test_the_verifier_behind_its_engine_judges_as_the_network_does(models: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, MODEL.config.decoder.hidden_size, generator=generator)
    numbers = torch.rand(4, generator=generator)
    drafted = Drafted((1, 2, 3, 4), (1, 2, 3, 4), False, hidden, -numbers, numbers, numbers)

    async def main() -> None:
        async with Engine(TorchVerifierRunner(models / "verifier", max_slots=2), name="verifier") as engine:
            judged = await EngineVerifier(engine).judge(Draft(("a", "b", "c", "d"), evidence=drafted), 0.7)
        (wanted,) = load_verifier(models / "verifier").judge([drafted], [0.7])
        assert (judged.probability, judged.words) == (wanted.probability, wanted.words)

    asyncio.run(main())


def test_ears_of_another_width_are_refused(models: Path, tmp_path: Path) -> None:
    save_draft(draft_model(speech_size=14), tmp_path)
    with pytest.raises(WeightsError, match="width"):
        TorchDraftRunner(models / "ears", tmp_path, models / "tokenizer.json").load()
    with pytest.raises(WeightsError, match=r"config\.json"):
        TorchVerifierRunner(tmp_path / "none").load()


def test_without_weights_it_is_said_what_is_missing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "read_manifest", lambda *_, **__: {})
    for path, missing in (("relay", "draft and verifier and ears models"), ("draft", "draft and ears models")):
        with pytest.raises(WeightsError, match=f"--path {path} needs the weights of the {missing}.*--path cascade"):
            fast.folders(path, None)  # type: ignore[arg-type]
    shutil.copytree(models / "draft", tmp_path / "draft")
    with pytest.raises(WeightsError, match="the verifier and ears models"):
        fast.folders("relay", tmp_path)
    with pytest.raises(WeightsError, match="the ears model"):
        fast.folders("draft", tmp_path)
    assert fast.folders("relay", models) == {name: models / name for name in ("draft", "verifier", "ears")}

    async def main() -> None:
        async with RelayServer(ServerConfig(port=0, path="relay")):
            pass

    with pytest.raises((WeightsError, EngineUnavailable)):
        asyncio.run(main())
