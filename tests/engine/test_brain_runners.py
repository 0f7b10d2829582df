import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from relay.engine.brain import BrainInput, BrainOutput, Sampling
from relay.engine.onnx_runner import PREFILL_TOKENS, OnnxBrainRunner
from relay.engine.torch_runner import TorchBrainRunner
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading
from relay_models.tokenizer import ChatTokenizer

GREEDY = Sampling(temperature=0.0)
FOLDER = loading.WEIGHTS_DIR / "brain"


@pytest.fixture(scope="module")
def runner() -> OnnxBrainRunner:
    runner = OnnxBrainRunner(cache_rows=2)
    runner.load()
    return runner


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def torch_runner(request: pytest.FixtureRequest) -> Iterator[TorchBrainRunner]:
    torch = pytest.importorskip("torch")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only wait for each other at this size
    runner = TorchBrainRunner(device=request.param, cache_rows=3)
    runner.load()
    yield runner
    runner.unload()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(FOLDER / "tokenizer.json")


def next_token(runner: object, slot: int, tokens: list[int], sampling: Sampling = GREEDY) -> BrainOutput:
    while True:
        (output,) = runner.step([slot], [BrainInput(tokens, sampling)])  # type: ignore[attr-defined]
        if isinstance(output, BaseException):
            raise output
        if output.token is not None:
            return output


def continue_greedily(runner: object, slot: int, tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(count):
        token = next_token(runner, slot, tokens).token
        assert token is not None
        tokens.append(token)
    return tokens


def prompt(tokenizer: ChatTokenizer, text: str) -> list[int]:
    return [*tokenizer.turn("user", text), tokenizer.assistant]


def test_both_runners_say_the_same(
    runner: OnnxBrainRunner, torch_runner: TorchBrainRunner, tokenizer: ChatTokenizer
) -> None:
    for slot, text in enumerate(("hello, who are you", "i'd like to book a table for two")):
        context = prompt(tokenizer, text)
        said = continue_greedily(runner, slot, context, 8)
        assert said == continue_greedily(torch_runner, slot, context, 8)
        one, other = next_token(runner, slot, said), next_token(torch_runner, slot, said)
        assert one.logprob == pytest.approx(other.logprob, abs=0.1)
        assert one.entropy == pytest.approx(other.entropy, abs=0.1)
        assert one.margin == pytest.approx(other.margin, abs=0.1)


def test_a_batch_of_torch_is_its_rows(torch_runner: TorchBrainRunner, tokenizer: ChatTokenizer) -> None:
    contexts = [prompt(tokenizer, text) for text in ("hello", "what is the capital of france", "bye")]
    alone = [next_token(torch_runner, 0, context) for context in contexts]
    xs = [BrainInput(context, GREEDY) for context in contexts]
    together = torch_runner.step([4, 5, 6], xs)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, BrainOutput)
        assert other.token == one.token
        assert other.logprob == pytest.approx(one.logprob, abs=1e-3)
    bad, good = torch_runner.step([4, 5], [BrainInput([]), BrainInput(contexts[1], GREEDY)])
    assert isinstance(bad, ValueError)
    assert isinstance(good, BrainOutput)
    (bad,) = torch_runner.step([4], [BrainInput([1] * 600)])
    assert isinstance(bad, ValueError)
    torch_runner.close(4)


def test_a_torch_batch_of_several_with_caches_that_move(
    torch_runner: TorchBrainRunner, tokenizer: ChatTokenizer
) -> None:
    """Slots are stepped alone and together, appended to, rolled back and evicted: each says what it says alone."""
    contexts = [
        prompt(tokenizer, text) for text in ("hello", "what is the capital of france", "bye now", "who are you")
    ]
    alone = []
    for context in contexts:
        torch_runner.close(0)
        alone.append(continue_greedily(torch_runner, 0, context, 5))
    torch_runner.close(0)
    said = [list(context) for context in contexts]
    for step in range(5):
        for slots in ([0, 1, 2], [3]) if step % 2 else ([3, 0], [2, 1]):  # there are three rows for four slots
            xs = [BrainInput(said[slot], GREEDY) for slot in slots]
            for slot, output in zip(slots, torch_runner.step(slots, xs), strict=True):
                assert isinstance(output, BrainOutput)
                assert output.token is not None
                said[slot].append(output.token)
    assert said == alone
    for slot in range(4):
        torch_runner.close(slot)


def test_an_unknown_token_fails_alone_in_torch(torch_runner: TorchBrainRunner) -> None:
    bad, good = torch_runner.step([0, 1], [BrainInput([1, 10**6]), BrainInput([1, 5], GREEDY)])
    assert isinstance(bad, ValueError)
    assert isinstance(good, BrainOutput)
    torch_runner.close(1)


def test_a_torch_batch_is_drawn_as_each_row_asks(torch_runner: TorchBrainRunner, tokenizer: ChatTokenizer) -> None:
    context = prompt(tokenizer, "tell me a joke")
    free = next_token(torch_runner, 0, context)
    assert free.token is not None
    xs = [
        BrainInput(context, GREEDY, banned=[free.token]),
        BrainInput(context, GREEDY, watched=[free.token]),
        BrainInput(context, GREEDY, banned=[10**6]),
    ]
    banned, watched, bad = torch_runner.step([1, 2, 0], xs)
    assert isinstance(bad, ValueError)
    assert isinstance(banned, BrainOutput)
    assert isinstance(watched, BrainOutput)
    assert watched.token == free.token
    assert watched.watched == pytest.approx(np.exp(free.logprob), abs=1e-4)
    assert banned.token != free.token
    assert np.exp(free.logprob) - np.exp(banned.logprob) == pytest.approx(free.margin, abs=1e-4)
    for slot in range(3):
        torch_runner.close(slot)


def test_a_torch_reply_can_be_repeated(torch_runner: TorchBrainRunner, tokenizer: ChatTokenizer) -> None:
    context = prompt(tokenizer, "tell me a joke")
    draws = [next_token(torch_runner, 0, context, Sampling(1.0, 1.0, seed=seed)).token for seed in range(12)]
    for first in range(0, 12, 3):
        together = torch_runner.step(
            [0, 1, 2], [BrainInput(context, Sampling(1.0, 1.0, seed=seed)) for seed in range(first, first + 3)]
        )
        assert [output.token for output in together if isinstance(output, BrainOutput)] == draws[first : first + 3]
    assert len(set(draws)) > 1
    for slot in range(3):
        torch_runner.close(slot)


def test_the_cache_changes_nothing(runner: OnnxBrainRunner, tokenizer: ChatTokenizer) -> None:
    """Appending, rolling back and another slot's eviction give what a fresh read gives.

    Up to what int8 products of one and of many rows differ by: distributions are compared, not draws from near ties.
    """
    context = prompt(tokenizer, "i want to order a large pizza with mushrooms please")
    long = continue_greedily(runner, 0, context, 6)
    branch = [*context, *tokenizer.encode("Sure, which")]
    appended = [next_token(runner, 0, tokens) for tokens in (branch, long, context)]
    for slot in (1, 2):  # there are two rows: slot 0 loses its own
        next_token(runner, slot, context)
    fresh = []
    for tokens in (branch, long, context):
        runner.close(0)
        fresh.append(next_token(runner, 0, tokens))
    for one, other in zip(appended, fresh, strict=True):
        assert one.entropy == pytest.approx(other.entropy, abs=0.1)
        assert one.margin == pytest.approx(other.margin, abs=0.05)


def test_a_long_context_is_read_in_parts(runner: OnnxBrainRunner, tokenizer: ChatTokenizer) -> None:
    context = [*tokenizer.turn("user", "hello there how are you ") * 12, tokenizer.assistant]
    parts = 0
    while True:
        (output,) = runner.step([1], [BrainInput(context, GREEDY)])
        assert isinstance(output, BrainOutput)
        parts += 1
        if output.token is not None:
            break
    assert parts == -(-len(context) // PREFILL_TOKENS)


def test_a_reply_can_be_repeated(runner: OnnxBrainRunner, tokenizer: ChatTokenizer) -> None:
    context = prompt(tokenizer, "tell me a joke")
    draws = [next_token(runner, 0, context, Sampling(1.0, 1.0, seed=seed)).token for seed in range(12)]
    assert draws == [next_token(runner, 1, context, Sampling(1.0, 1.0, seed=seed)).token for seed in range(12)]
    assert len(set(draws)) > 1


@pytest.mark.parametrize(("tokens", "message"), [([], "at least one"), ([5] * 513, "context of 512")])
def test_a_bad_context_harms_nobody(runner: OnnxBrainRunner, tokens: list[int], message: str) -> None:
    (output,) = runner.step([0], [BrainInput(tokens)])
    assert isinstance(output, ValueError)
    assert message in str(output)
    assert next_token(runner, 0, [5, 6]).token is not None


def test_an_unknown_token_fails_alone(runner: OnnxBrainRunner) -> None:
    (output,) = runner.step([0], [BrainInput([1, 10**6])])
    assert isinstance(output, Exception)
    assert next_token(runner, 0, [1, 5]).token is not None


def test_a_full_context_still_answers(runner: OnnxBrainRunner) -> None:
    assert next_token(runner, 0, list(np.random.default_rng(0).integers(300, 8000, 512))).token is not None


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineUnavailable, match=r"relay-dialogue\[cpu\]"):
        OnnxBrainRunner().load()


def test_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json"):
        OnnxBrainRunner(tmp_path).load()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"model\.onnx"):
        OnnxBrainRunner(tmp_path).load()


def test_torch_without_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        TorchBrainRunner(tmp_path, device="cpu").load()


def test_torch_without_its_device() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(EngineUnavailable, match="'cuda'"):
        TorchBrainRunner(device="cuda").load()


def test_weights_ship_once() -> None:
    """The graph holds no weights: all it has beyond the safetensors file is small."""
    assert (FOLDER / "model.onnx").stat().st_size < 300_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 20_000_000
    assert (
        hashlib.sha256((FOLDER / "model.onnx").read_bytes()).hexdigest()
        == {file.name: file.sha256 for file in loading.read_manifest()["brain"].files}["model.onnx"]
    )
