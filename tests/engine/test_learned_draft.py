"""The learned fast path behind the engine contract, with small random models: each runner drafts as the models do."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from relay.config import ServerConfig
from relay.engine import fast
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Draft, DraftInput, DraftOutput
from relay.engine.draft_onnx import OnnxDraftRunner
from relay.engine.draft_torch import TorchDraftRunner
from relay.engine.engine import Engine
from relay.engine.learned_draft import LearnedDraft
from relay.engine.verifier import EngineVerifier, VerifierRunner
from relay.errors import EngineUnavailable, WeightsError
from relay.server.app import RelayServer
from relay_models import loading
from relay_models.draft import DraftModel, Special, load_draft, save_draft
from relay_models.draft_config import DRAFT
from relay_models.draft_stream import Drafter, DraftStream
from relay_models.drafting import Drafted
from relay_models.ears import Ears, load_ears
from relay_models.framing import LEAD_IN_SAMPLES
from relay_models.host_verifier import load_host_verifier
from tests.engine.draft_models import MODEL, write_models
from tests.models.draft.tiny_draft import TOKENIZER, draft_model

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.timeout(600)  # a busy machine takes minutes to export
SIL, BOS, EOS, STP = (MODEL.config.token(each) for each in (Special.SIL, Special.BOS, Special.EOS, Special.STP))
PCM = (np.random.default_rng(0).standard_normal(20 * DRAFT_FRAME_SAMPLES) * 3000).astype(np.int16)
NOTHING = np.zeros(0, np.int16)
RUNNERS: dict[str, Callable[..., LearnedDraft]] = {
    "onnx": OnnxDraftRunner,
    "torch": TorchDraftRunner,
    "torch, static": partial(TorchDraftRunner, static=True),
}
if torch.cuda.is_available():
    RUNNERS["torch, on a GPU"] = partial(TorchDraftRunner, device="cuda")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def shipped(models: Path) -> tuple[Ears, DraftModel]:
    return load_ears(models / "ears"), load_draft(models / "draft")


def make(kind: str, models: Path) -> LearnedDraft:
    made = RUNNERS[kind](models / "ears", models / "draft", models / "draft" / "tokenizer.json", max_slots=3)
    made.load()
    return made


@pytest.fixture(scope="module", params=list(RUNNERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runner(kind: str, models: Path) -> Iterator[LearnedDraft]:
    made = make(kind, models)
    yield made
    made.unload()


def expected(shipped: tuple[Ears, DraftModel], pcm: np.ndarray, said: list[int]) -> Drafted:
    """The draft after hearing all whole frames of `pcm`, having said these tokens, one a frame from the first on."""
    stream = DraftStream(*shipped)
    state = stream.fresh_state(1)
    led = np.concatenate((np.zeros(LEAD_IN_SAMPLES, np.int16), pcm)).astype(np.float32) / 32768
    tokens = [SIL, *said]
    for frame in range(len(led) // DRAFT_FRAME_SAMPLES):
        part = torch.from_numpy(led[frame * DRAFT_FRAME_SAMPLES : (frame + 1) * DRAFT_FRAME_SAMPLES])[None]
        previous = tokens[frame] if frame < len(tokens) else SIL
        stream.step(part, torch.tensor([previous]), state, torch.tensor([True]))
    (drafted,) = Drafter(shipped[1], TOKENIZER).draft(state, [0])
    return drafted


def only(outputs: list[DraftOutput | BaseException]) -> DraftOutput:
    (output,) = outputs
    assert isinstance(output, DraftOutput)
    return output


def specials(shipped: tuple[Ears, DraftModel], pcm: np.ndarray) -> list[float]:
    """Probabilities of `BOS`, `BOC` and `STP` at the last whole frame of `pcm`, nothing having been said."""
    stream = DraftStream(*shipped)
    state = stream.fresh_state(1)
    led = np.concatenate((np.zeros(LEAD_IN_SAMPLES, np.int16), pcm)).astype(np.float32) / 32768
    for part in torch.from_numpy(led).unfold(0, DRAFT_FRAME_SAMPLES, DRAFT_FRAME_SAMPLES):
        listened, _ = stream.step(part[None], torch.tensor([SIL]), state, torch.tensor([True]))
    probabilities = listened.specials[0].tolist()
    return [probabilities[each] for each in (Special.BOS, Special.BOC, Special.STP)]


def told(output: DraftOutput) -> list[float]:
    signals = output.signals
    assert signals is not None
    return [signals.begin_probability, signals.backchannel_probability, signals.stop_probability]


def evidence(output: DraftOutput) -> Drafted:
    assert output.draft is not None
    assert isinstance(output.draft.evidence, Drafted)
    return output.draft.evidence


def same(one: Drafted, other: Drafted) -> bool:
    """Whether two drafts have the same words, and states and statistics that differ by rounding only."""
    alike = (one.tokens, one.word_ends, one.complete) == (other.tokens, other.word_ends, other.complete)
    return alike and all(
        np.allclose(ours, its, atol=2e-3) for ours, its in ((one.hidden, other.hidden), (one.scalars, other.scalars))
    )


@pytest.mark.parametrize("sizes", [[20 * DRAFT_FRAME_SAMPLES], [320] * 160, [1, 5000, 0, 12_000, 700]])
def test_any_split_of_the_sound_gives_the_same_draft(
    runner: LearnedDraft, shipped: tuple[Ears, DraftModel], sizes: list[int]
) -> None:
    runner.open(1)
    runner.open(2)
    at = 0
    for size in sizes:
        at += size
        runner.step([1, 2], [DraftInput(PCM[at - size : at], until_sample=at), DraftInput(PCM[::-1][:size])])
    output = only(list(runner.step([1], [DraftInput(NOTHING, draft_words=7)])))
    assert same(evidence(output), expected(shipped, PCM[:at], []))
    assert output.signals is not None
    assert (
        output.signals.until_sample
        == (at + LEAD_IN_SAMPLES) // DRAFT_FRAME_SAMPLES * DRAFT_FRAME_SAMPLES - LEAD_IN_SAMPLES
    )
    assert told(output) == pytest.approx(specials(shipped, PCM[:at]), abs=1e-4)
    assert (output.signals.end_evidence, output.signals.stop_evidence) == (None, None), "its file says nothing of trust"
    again = only(list(runner.step([1], [DraftInput(NOTHING, draft_words=7)])))
    assert same(evidence(again), evidence(output)), "a draft leaves no trace"
    runner.close(2)
    runner.open(2)
    runner.step([2], [DraftInput(PCM[:at])])
    fresh = only(list(runner.step([2], [DraftInput(NOTHING, draft_words=7)])))
    assert same(evidence(fresh), evidence(output)), "a slot that is opened again has forgotten"


def test_the_models_own_file_says_how_far_its_signals_are_trusted(models: Path, tmp_path: Path) -> None:
    for name in ("ears", "draft"):
        shutil.copytree(models / name, tmp_path / name)
    config = json.loads((tmp_path / "draft/config.json").read_text())
    config |= {"turn_ends": {"weight": 0.5, "bias": 2.0}, "stops": {"weight": 1.0}}
    (tmp_path / "draft/config.json").write_text(json.dumps(config))
    trusting = make("onnx", tmp_path)
    trusting.open(0)
    assert only(list(trusting.step([0], [DraftInput(PCM[:100], until_sample=100)]))).signals is None, "no frame yet"
    (output,) = trusting.step([0], [DraftInput(PCM[100:], until_sample=len(PCM))])
    assert isinstance(output, DraftOutput)
    begin, _, stop = told(output)
    assert output.signals is not None
    assert output.signals.end_evidence == pytest.approx(0.5 * math.log(begin / (1 - begin)) + 2.0)
    assert output.signals.stop_evidence == pytest.approx(math.log(stop / (1 - stop)))
    trusting.unload()


@pytest.mark.parametrize("ended", ["whole", "broken", ""])
def test_what_is_said_becomes_the_models_own_history(
    runner: LearnedDraft, shipped: tuple[Ears, DraftModel], ended: str
) -> None:
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
    assert same(evidence(output), expected(shipped, PCM[:half], said))
    assert not same(evidence(output), expected(shipped, PCM[:half], []))


def test_the_words_are_those_of_the_tokens(runner: LearnedDraft) -> None:
    runner.open(0)
    output = only(list(runner.step([0], [DraftInput(PCM, draft_words=3)])))
    assert output.draft is not None
    assert len(output.draft.words) == len(evidence(output).word_ends) <= 3
    assert "".join(output.draft.words) == TOKENIZER.decode(evidence(output).tokens).replace(" ", "")
    whole = only(list(runner.step([0], [DraftInput(NOTHING, draft_words=40)])))
    assert len(evidence(whole).tokens) >= len(evidence(output).tokens)


def histories(rows: int, seed: int) -> list[list[tuple[np.ndarray, str]]]:
    """For each of some slots, its frames and the words that begin with each."""
    generator = np.random.default_rng(seed)
    words = ("", "", "", "no one", "you are there", "hello")
    return [
        [
            ((generator.standard_normal(DRAFT_FRAME_SAMPLES) * 3000).astype(np.int16), str(generator.choice(words)))
            for _ in range(generator.integers(1, 9))
        ]
        for _ in range(rows)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_slots_that_join_draft_and_leave_do_not_hear_each_other(runner: LearnedDraft, seed: int) -> None:
    """Each slot beside others, which come, go, and draft at any time, says what it says alone."""
    rows = histories(3, seed)
    generator = np.random.default_rng(100 + seed)

    def draft(slots: list[int]) -> list[Drafted]:
        outputs = runner.step(slots, [DraftInput(NOTHING, draft_words=7)] * len(slots))
        return [evidence(only([output])) for output in outputs]

    alone = []
    for history in rows:
        runner.open(0)
        for pcm, words in history:
            runner.step([0], [DraftInput(pcm, words)])
        alone += draft([0])
        runner.close(0)
    assert len({each.tokens for each in alone}) > 1, "they differ"

    begins, at = [int(generator.integers(0, 5)) for _ in rows], [0] * len(rows)
    beside: dict[int, Drafted] = {}
    for turn in range(20):
        for slot, begin in enumerate(begins):
            if turn == begin:
                runner.open(slot)
        here = [slot for slot in range(len(rows)) if turn >= begins[slot] and slot not in beside]
        hearing = [slot for slot in here if at[slot] < len(rows[slot]) and generator.random() < 0.8]
        if hearing:
            given = [rows[slot][at[slot]] for slot in hearing]
            runner.step(hearing, [DraftInput(pcm, words) for pcm, words in given])
        for slot in hearing:
            at[slot] += 1
        if len(here) > 1 and turn % 3 == 0:
            draft(here)
        done = [slot for slot in here if at[slot] == len(rows[slot])]
        if done:
            beside |= dict(zip(done, draft(done), strict=True))
        for slot in done:
            runner.close(slot)
    assert set(beside) == set(range(len(rows)))
    for slot, one in enumerate(alone):
        assert same(beside[slot], one), slot


def test_a_stream_of_many_windows_drafts_as_torch_does(models: Path) -> None:
    """The rings' laps, written by the host, are those of the torch state."""
    generator = np.random.default_rng(5)
    runners = [make(kind, models) for kind in RUNNERS]
    for runner in runners:
        runner.open(0)
    for _ in range(5):
        pcm = (generator.standard_normal(29 * DRAFT_FRAME_SAMPLES) * 3000).astype(np.int16)
        outputs = [only(list(runner.step([0], [DraftInput(pcm, draft_words=7)]))) for runner in runners]
        for output in outputs[1:]:
            assert same(evidence(outputs[0]), evidence(output))
            for one, other in zip(told(output), told(outputs[0]), strict=True):
                assert one == pytest.approx(other, abs=1e-3)


def test_the_graphs_need_no_torch(models: Path, tmp_path: Path) -> None:
    script = tmp_path / "light.py"
    script.write_text(
        f"""
import asyncio, pathlib, sys
sys.modules["torch"] = None
import numpy as np
from relay.engine import fast
from relay.engine.draft import DraftInput
from relay_models import loading
models = pathlib.Path({str(models)!r})
loading.locate = lambda name: models / "draft"  # of the brain, for its tokenizer
async def main():
    async with fast.open_fast("relay", "cpu", models, max_slots=2) as (engine, verifier):
        async with engine.slot() as slot:
            heard = DraftInput(np.zeros(32_000, np.int16), draft_words=7)
            draft = (await engine.step(slot, heard)).draft
            print(len(draft.words), (await verifier.judge(draft, 0.5)).probability)
asyncio.run(main())
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    count, probability = done.stdout.split()
    assert int(count) > 0
    assert 0 < float(probability) < 1


def test_the_device_and_the_folder_choose_the_runner(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears, draft, tokenizer = models / "ears", models / "draft", models / "draft" / "tokenizer.json"
    assert isinstance(fast.make_runner(ears, draft, tokenizer, "cpu", max_slots=2), OnnxDraftRunner)
    assert isinstance(fast.make_runner(ears, draft, tokenizer, "cuda", max_slots=2), TorchDraftRunner)
    save_draft(MODEL, tmp_path)
    assert isinstance(fast.make_runner(ears, tmp_path, tokenizer, "cpu", max_slots=2), TorchDraftRunner)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=f"{tmp_path.name}/listen.onnx.*pip install") as lacking:
        fast.make_runner(ears, tmp_path, tokenizer, "cpu", max_slots=2)
    assert str(fast.insisted(lacking.value)).endswith("; or use --path cascade")


def test_the_verifier_behind_its_engine_judges_as_the_network_does(models: Path) -> None:
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((4, MODEL.config.decoder.hidden_size)).astype(np.float32)
    numbers = generator.random(4, dtype=np.float32)
    drafted = Drafted((1, 2, 3, 4), (1, 2, 3, 4), False, hidden, -numbers, numbers, numbers)
    too_long = dataclasses.replace(drafted, tokens=tuple(range(16)))

    async def main() -> None:
        async with Engine(VerifierRunner(models / "verifier", max_slots=2), name="verifier") as engine:
            with pytest.raises(ValueError, match="16 tokens"):
                await EngineVerifier(engine).judge(Draft(("a",), evidence=too_long), 0.7)
            judged = await EngineVerifier(engine).judge(Draft(("a", "b", "c", "d"), evidence=drafted), 0.7)
        wanted = load_host_verifier(models / "verifier").judge(drafted, 0.7)
        assert (judged.probability, judged.words) == (wanted.probability, wanted.words)

    asyncio.run(main())


def test_folders_that_do_not_fit_are_refused(models: Path, tmp_path: Path) -> None:
    ears, draft, tokenizer = models / "ears", models / "draft", models / "draft" / "tokenizer.json"
    save_draft(draft_model(speech_size=14), tmp_path / "narrow")
    for runner in (OnnxDraftRunner, TorchDraftRunner):
        with pytest.raises(WeightsError, match="width"):
            runner(ears, tmp_path / "narrow", tokenizer).load()
        with pytest.raises(WeightsError, match=r"config\.json"):
            runner(ears, tmp_path / "none", tokenizer).load()
        with pytest.raises(WeightsError, match="tokenizer"):
            runner(ears, draft, tmp_path / "tokenizer.json").load()
    with pytest.raises(WeightsError, match=r"config\.json"):
        VerifierRunner(tmp_path / "none").load()
    shutil.copytree(ears, tmp_path / "ears")
    (tmp_path / "ears" / "lookahead-80.onnx").unlink()
    with pytest.raises(WeightsError, match="look-ahead"):
        OnnxDraftRunner(tmp_path / "ears", draft, tokenizer).load()
    shutil.copytree(draft, tmp_path / "draft")
    (tmp_path / "draft" / DRAFT).write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=DRAFT):
        OnnxDraftRunner(ears, tmp_path / "draft", tokenizer).load()


def test_without_weights_it_is_said_what_is_missing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "read_manifest", lambda *_, **__: {})
    for path, missing in (("relay", "draft and verifier and ears models"), ("draft", "draft and ears models")):
        with pytest.raises(WeightsError, match=f"the path {path} needs the weights of the {missing}") as lacking:
            fast.folders(path, None)  # type: ignore[arg-type]
        assert str(fast.insisted(lacking.value)).endswith("; or use --path cascade")
    shutil.copytree(models / "draft", tmp_path / "draft")
    with pytest.raises(WeightsError, match="the verifier and ears models"):
        fast.folders("relay", tmp_path)
    with pytest.raises(WeightsError, match="the ears model,"):
        fast.folders("draft", tmp_path)
    assert fast.folders("relay", models) == {name: models / name for name in ("draft", "verifier", "ears")}

    async def main() -> None:
        async with RelayServer(ServerConfig(port=0, path="relay")):
            pass

    with pytest.raises((WeightsError, EngineUnavailable)):
        asyncio.run(main())
