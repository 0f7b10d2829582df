"""The learned recogniser behind the engine contract, on a small model with random weights: both runners."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio import Int16Array
from relay.channel import Channel
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.ears_onnx import OnnxEarsRunner
from relay.engine.ears_torch import TorchEarsRunner
from relay.engine.engine import Engine
from relay.engine.learned_ears import LearnedEars
from relay.errors import EngineUnavailable, StageFailed, UsageError, WeightsError
from relay.stages.hear import TurnAudio, hear

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from relay_models import ears_export  # noqa: E402
from relay_models.decoding import GreedyTransducer  # noqa: E402
from relay_models.ears import load_ears  # noqa: E402
from relay_models.lm import Order, save_orders  # noqa: E402
from relay_models.training.ears_eval import tokens_of  # noqa: E402
from tests.engine.ears_models import PIECES, small_ears, speech, write_exported, write_trained  # noqa: E402

SECOND = 16_000
NOTHING = np.empty(0, dtype=np.int16)


KINDS = ("onnx", "torch", "torch, static", "torch, in parts", "torch, in parts, on a GPU")


@pytest.fixture(scope="module", params=KINDS)
def runner(request: pytest.FixtureRequest, exported_ears: Path) -> Iterator[LearnedEars[object]]:
    runner: LearnedEars[object]
    if request.param == "onnx":
        runner = OnnxEarsRunner(exported_ears)  # type: ignore[assignment]
    else:
        device: Literal["cpu", "cuda"] = "cuda" if "GPU" in request.param else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        sizes: dict[str, Any] = {"max_slots": 8, "max_batch": 6, "rows": 2 if "parts" in request.param else None}
        how: dict[str, Any] = {"device": device, "dtype": "float32", "static": request.param != "torch"}
        runner = TorchEarsRunner(exported_ears, **how, **sizes)  # type: ignore[assignment]
    runner.load()
    for slot in range(6):
        runner.open(slot)
    yield runner  # type: ignore[misc]
    runner.unload()


def step(runner: LearnedEars[object], slot: int, pcm: Int16Array, *, final: bool = False) -> EarsOutput:
    (output,) = runner.step([slot], [EarsInput(pcm, final)])
    assert isinstance(output, EarsOutput), output
    return output


def transcript(runner: LearnedEars[object], slot: int, pcm: Int16Array, cuts: Sequence[int] = ()) -> EarsOutput:
    """Hears an utterance in pieces; what was stable stays, and comes first."""
    stable = ""
    for piece in np.split(pcm, sorted(cuts)):
        output = step(runner, slot, piece)
        assert output.stable.startswith(stable)
        assert not output.final
        stable = output.stable
    final = step(runner, slot, NOTHING, final=True)
    assert final.stable.startswith(stable)
    assert final.unstable == ""
    return final


def test_words_have_text_times_and_confidence(runner: LearnedEars[object]) -> None:
    pcm = speech(3 * SECOND)
    heard = transcript(runner, 0, pcm)
    assert heard.final
    assert len(heard.words) > 3
    assert heard.stable == " ".join(word.text for word in heard.words)
    assert all(0 <= word.start_sample < word.end_sample <= len(pcm) for word in heard.words)
    assert all(0 < word.confidence <= 1 for word in heard.words)
    starts = [word.start_sample for word in heard.words]
    assert starts == sorted(starts)
    assert heard.end_probability is not None
    assert heard.word_delay_ms is not None
    assert heard.word_delay_ms > 0
    assert 0 < heard.end_probability < 1


def test_words_are_shown_while_they_are_spoken(runner: LearnedEars[object]) -> None:
    shown = [step(runner, 0, piece) for piece in np.split(speech(3 * SECOND), 15)]
    texts = [f"{output.stable} {output.unstable}".strip() for output in shown]
    assert len(set(texts)) > 4
    assert texts[5]
    step(runner, 0, NOTHING, final=True)


@settings(max_examples=12)
@given(cuts=st.lists(st.integers(0, 2 * SECOND), max_size=8), samples=st.integers(1, 2 * SECOND))
def test_any_split_gives_the_same(runner: LearnedEars[object], cuts: list[int], samples: int) -> None:
    pcm = speech(samples, seed=1)
    whole = transcript(runner, 0, pcm)
    split = transcript(runner, 1, pcm, [min(cut, samples) for cut in cuts])
    assert (split.stable, split.words) == (whole.stable, whole.words)


def test_streams_that_share_batches_do_not_touch_each_other(runner: LearnedEars[object]) -> None:
    recordings = [speech(samples, seed) for seed, samples in enumerate((30_000, 41_234, 17_000, 900))]
    alone = [transcript(runner, 0, pcm) for pcm in recordings]
    heard: dict[int, EarsOutput] = {}
    for turn in range(14):  # each begins one step later than the one before
        speaking = [slot for slot in range(4) if slot not in heard and turn >= slot]
        xs = []
        for slot in speaking:
            pcm, begin = recordings[slot], 4_000 * (turn - slot)
            xs.append(EarsInput(pcm[begin : begin + 4_000], final=begin + 4_000 >= len(pcm)))
        for slot, output in zip(speaking, runner.step(speaking, xs), strict=True):
            assert isinstance(output, EarsOutput)
            if output.final:
                heard[slot] = output
    texts = [heard[slot].stable for slot in range(4)]
    assert sum(bool(text) for text in texts) >= 3
    assert texts == [output.stable for output in alone]


def test_a_slot_hears_one_utterance_after_the_other(runner: LearnedEars[object]) -> None:
    first, second = speech(2 * SECOND), speech(SECOND, seed=3)
    expected = transcript(runner, 0, second).stable
    transcript(runner, 1, first)
    assert transcript(runner, 1, second).stable == expected
    step(runner, 1, first)
    runner.close(1)
    runner.open(1)
    assert transcript(runner, 1, second).stable == expected


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 1_280])
def test_short_utterances(runner: LearnedEars[object], samples: int) -> None:
    assert step(runner, 2, speech(max(samples, 1))[:samples], final=True).final
    assert transcript(runner, 2, speech(SECOND)).stable


def test_a_long_wait_is_made_up_for_bit_by_bit(runner: LearnedEars[object]) -> None:
    pcm = speech(10 * SECOND)
    first = step(runner, 3, pcm)
    assert first.words
    assert max(word.end_sample for word in first.words) <= 2.5 * SECOND
    final = step(runner, 3, NOTHING, final=True)
    assert final.stable.startswith(first.stable)
    assert final.words[-1].end_sample > 9 * SECOND


def test_a_slot_that_fails_begins_anew(runner: LearnedEars[object], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = transcript(runner, 4, speech(SECOND)).stable

    def broken(*_: object) -> None:
        raise ValueError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_encode", broken)
        (output,) = runner.step([4], [EarsInput(speech(SECOND))])
        assert isinstance(output, ValueError)
    assert transcript(runner, 4, speech(SECOND)).stable == expected


def test_both_runners_hear_the_same(exported_ears: Path) -> None:
    for asked_ms in (80, 0):
        onnx = OnnxEarsRunner(exported_ears, lookahead_ms=asked_ms)
        other = TorchEarsRunner(exported_ears, device="cpu", lookahead_ms=asked_ms)
        for runner in (onnx, other):
            runner.load()
            runner.open(0)
        for seed in range(3):
            pcm = speech(3 * SECOND, seed)
            one, two = transcript(onnx, 0, pcm), transcript(other, 0, pcm)
            # Random weights leave many choices near ties, which int8 products of rounded activations may turn.
            assert SequenceMatcher(None, one.stable, two.stable).ratio() > 0.7
            assert one.end_probability == pytest.approx(two.end_probability, abs=0.05)


def test_static_steps_hear_the_same(exported_ears: Path) -> None:
    """Utterance after utterance in the same rows, in batches of all sizes: nothing of one is left for the next."""
    runners = [TorchEarsRunner(exported_ears, device="cpu", static=s, max_slots=3, max_batch=3) for s in (True, False)]
    for runner in runners:
        runner.load()
        for slot in range(3):
            runner.open(slot)
    for turn in range(3):
        speaking = list(range(turn + 1))
        recordings = [speech(20_000 + 5_000 * slot, seed=10 * turn + slot) for slot in speaking]
        one, two = (runner.step(speaking, [EarsInput(pcm, final=True) for pcm in recordings]) for runner in runners)
        for heard, wanted in zip(one, two, strict=True):
            assert isinstance(heard, EarsOutput)
            assert isinstance(wanted, EarsOutput)
            assert heard.final
            assert heard.stable == wanted.stable
            assert [w.start_sample for w in heard.words] == [w.start_sample for w in wanted.words]
    assert len(runners[0]._free) == 3


def test_encoders_with_windows_have_no_static_steps(tmp_path: Path) -> None:
    folder = write_trained(tmp_path, small_ears(windows=((3, 2), (4, 1)), relative_positions=False))
    runner = TorchEarsRunner(folder, device="cpu", static=True)
    runner.load()
    runner.open(0)
    assert transcript(runner, 0, speech(2 * SECOND)).final


def test_half_precision_hears_the_same(exported_ears: Path) -> None:
    runner = TorchEarsRunner(exported_ears, device="cpu", dtype="bfloat16")
    runner.load()
    runner.open(0)
    assert transcript(runner, 0, speech(2 * SECOND)).stable


def test_look_aheads_to_choose_from(exported_ears: Path, tmp_path: Path) -> None:
    assert OnnxEarsRunner(exported_ears).lookaheads_ms() == (80, 0)
    assert TorchEarsRunner(write_trained(tmp_path)).lookaheads_ms() == (80, 0)
    for kind in (OnnxEarsRunner, TorchEarsRunner):
        with pytest.raises(UsageError, match="no look-ahead of 480 ms; choose --lookahead-ms from 0, 80"):
            kind(exported_ears, lookahead_ms=480).load()


def test_what_training_leaves_runs_in_torch(tmp_path: Path) -> None:
    folder = write_trained(tmp_path)
    runner = TorchEarsRunner(folder, device="cpu")
    runner.load()
    runner.open(0)
    assert transcript(runner, 0, speech(2 * SECOND)).words
    with pytest.raises(WeightsError, match="no exported graph"):
        OnnxEarsRunner(folder).load()


def test_in_floating_point_both_runners_say_the_very_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the whole recording gives, here with sliding windows, whose frames come late."""
    monkeypatch.setattr(ears_export, "BLOCKS", ())
    model = small_ears(layers=1, windows=((3, 2),), relative_positions=False, rights=(1,))
    onnx, other = OnnxEarsRunner(write_exported(tmp_path, model)), TorchEarsRunner(tmp_path, device="cpu")
    pcm = speech(2 * SECOND)
    outputs = []
    for runner in (onnx, other):
        runner.load()
        runner.open(0)
        outputs.append(transcript(runner, 0, pcm))
    times = [[(word.text, word.start_sample, word.end_sample) for word in output.words] for output in outputs]
    assert times[0] == times[1]
    shipped = load_ears(tmp_path)
    with torch.no_grad():
        features, counts = shipped.features(torch.from_numpy(pcm)[None] / 32768, torch.tensor([len(pcm)]))
        frames, lengths, _ = shipped(features, counts, 1)
    (tokens,) = tokens_of(GreedyTransducer(shipped.predictor, shipped.joint), frames, lengths)
    assert outputs[0].stable == "".join(PIECES[token] for token in tokens).replace("▁", " ").strip()


def test_without_packages(monkeypatch: pytest.MonkeyPatch, exported_ears: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineUnavailable, match=r"relay-dialogue\[cpu\]"):
        OnnxEarsRunner(exported_ears).load()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineUnavailable, match=r"relay-dialogue\[gpu\]"):
        TorchEarsRunner(exported_ears).load()


@pytest.mark.parametrize(
    "damage", ["config.json", "tokenizer.json", "model.safetensors", "lm.safetensors", "lookahead-80.onnx"]
)
def test_damaged_folders_are_named(exported_ears: Path, tmp_path: Path, damage: str) -> None:
    for path in exported_ears.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / damage).write_bytes(b"{]")
    with pytest.raises(WeightsError, match=damage.replace(".", r"\.")):
        OnnxEarsRunner(tmp_path).load()


def test_settings_of_the_decoder_come_from_the_folder(exported_ears: Path, tmp_path: Path) -> None:
    for path in exported_ears.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("{", '{"decoding": {"beam": 3, "reward": -30.0},', 1))
    runner = OnnxEarsRunner(tmp_path)
    runner.load()
    runner.open(0)
    assert transcript(runner, 0, speech(2 * SECOND)).stable == ""  # every token costs more than silence
    (tmp_path / "config.json").write_text(config.replace("{", '{"decoding": {"breadth": 3},', 1))
    with pytest.raises(WeightsError, match="under `decoding`"):
        OnnxEarsRunner(tmp_path).load()


def test_a_language_model_in_the_folder_is_fused_in(exported_ears: Path, tmp_path: Path) -> None:
    shutil.copytree(exported_ears, tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "config.json").read_text()
    decoding = '{"decoding": {"beam": 2, "lm_weight": 20, "reward": 6},'
    (tmp_path / "config.json").write_text(config.replace("{", decoding, 1))
    pieces = len(PIECES)
    unigrams = Order(
        tokens=np.arange(pieces, dtype=np.uint16),
        scores=np.array([0] + [255] * (pieces - 1), dtype=np.uint8),  # nothing is likely but the first piece
        continued=np.zeros(pieces, dtype=bool),
        back_offs=np.empty(0, dtype=np.uint8),
        children=np.empty(0, dtype=np.uint16),
    )
    save_orders([unigrams], tmp_path / "lm.safetensors")
    texts = []
    for runner in (OnnxEarsRunner(tmp_path), TorchEarsRunner(tmp_path, device="cpu")):
        runner.load()
        runner.open(0)
        texts.append(transcript(runner, 0, speech(2 * SECOND)).stable)
    assert all(set(text.split()) == {"a"} for text in texts)


def test_without_torch_nothing_of_torch_is_imported(exported_ears: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from relay.engine import catalog; from relay.engine.ears import EarsInput\n"
        "r = catalog.ears(sys.argv[1]); r.load(); r.open(0)\n"
        "(out,) = r.step([0], [EarsInput(np.zeros(16000, np.int16), final=True)])\n"
        "assert out.final; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported_ears)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_turns_of_sessions(exported_ears: Path) -> None:
    """Two sessions speak at once, two turns each; a turn's transcript is what the recogniser hears of it alone."""
    runner = OnnxEarsRunner(exported_ears)
    runner.load()
    runner.open(0)
    recordings = [speech(24_000 + 5_000 * seed, seed) for seed in range(4)]
    expected = [transcript(runner, 0, pcm).stable for pcm in recordings]
    heard: dict[int, EarsOutput] = {}
    failures: list[StageFailed] = []

    def on_output(turn: int, output: EarsOutput) -> None:
        heard[turn] = output

    async def session(engine: Engine[EarsInput, EarsOutput], turns: Sequence[int]) -> None:
        inbox: Channel[TurnAudio] = Channel(100)
        hearing = asyncio.create_task(hear(inbox, engine, on_output, lambda _, error: failures.append(error)))
        for turn in turns:
            for piece in np.split(recordings[turn], range(0, len(recordings[turn]), 1_600)[1:]):
                await inbox.put(TurnAudio(turn, piece, 0.0))
            await inbox.put(TurnAudio(turn, NOTHING, 0.0, last=True))
        inbox.close()
        await hearing

    async def main() -> None:
        async with asyncio.timeout(60), Engine(OnnxEarsRunner(exported_ears), name="ears") as engine:
            await asyncio.gather(session(engine, (0, 1)), session(engine, (2, 3)))

    asyncio.run(main())
    assert failures == []
    assert all(output.final for output in heard.values())
    assert [heard[turn].stable for turn in range(4)] == expected
