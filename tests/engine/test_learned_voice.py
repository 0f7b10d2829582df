"""Relay's own voice as an engine: a small random one, exported, with the shipped text front end, in both runners."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.engine.learned_voice import LearnedVoice
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.engine.voice_onnx import OnnxVoiceRunner
from relay.engine.voice_torch import TorchVoiceRunner
from relay.errors import WeightsError
from relay_benchmarks.voice_measures import seam
from relay_benchmarks.voice_quality import seams
from relay_benchmarks.voices import speak
from tests.engine.voices import ODD_TEXTS, audio, check, say, spoken, step

pytestmark = pytest.mark.timeout(600)  # an export, which a busy machine takes minutes for
pytest.importorskip("onnxscript")

REPLY = "Hello there! It costs $3.5 million, 😀 Dr. Smith said — in 2026. Ok?"
WORDS = st.sampled_from(
    [
        "yes,",
        "of",
        "no.",
        "😀",
        "...",
        "—",
        "$3.50",
        "million",
        "Dr.",
        "(well)",
        "why?",
        "2026",
        "a/b",
        "1,234,567",
        "10:30",
    ]
)
TEXTS = st.lists(WORDS, max_size=10).map(" ".join)
Runner = LearnedVoice[Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from relay_models.vocoder import VocoderConfig
    from relay_models.voice_export import export_voice
    from tests.models.voice.tiny import voice

    small = VocoderConfig(size=12, inner=10, kernel=3, layers=1)
    model = voice(speakers=1, text_layers=1, layers=1, vocoder=small).float()
    path: Path = tmp_path_factory.mktemp("voice")
    export_voice(model, path)
    return path


@pytest.fixture(scope="module", params=["onnx", "torch"])
def runner(request: pytest.FixtureRequest, folder: Path) -> Iterator[LearnedVoice[Any]]:
    made = OnnxVoiceRunner(folder) if request.param == "onnx" else TorchVoiceRunner(folder, device="cpu")
    made.load()
    yield made
    made.unload()


@pytest.fixture(scope="module")
def onnx(folder: Path) -> Iterator[OnnxVoiceRunner]:
    """The faster one, for what lies in front of the model."""
    made = OnnxVoiceRunner(folder)
    made.load()
    yield made
    made.unload()


def increments_of(text: str, cuts: list[int]) -> list[str]:
    """Whole words in groups."""
    words = text.split()
    places = sorted({min(cut, len(words)) for cut in cuts} | {0, len(words)})
    return [" ".join(words[first:last]) + " " for first, last in pairwise(places)]


@settings(max_examples=20, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 10), max_size=4))
def test_however_the_words_come_the_sound_is_the_same(runner: Runner, text: str, cuts: list[int]) -> None:
    whole, parts = say(runner, [text]), say(runner, increments_of(text, cuts), slot=1)
    np.testing.assert_array_equal(audio(parts), audio(whole))
    for outputs in (whole, parts):
        check(outputs, text)
    assert spoken(parts) == spoken(whole)


@settings(max_examples=20, deadline=None)
@given(TEXTS)
def test_a_word_comes_with_the_output_that_holds_its_first_sample(runner: Runner, text: str) -> None:
    position = 0
    outputs = say(runner, increments_of(text, list(range(10))))
    check(outputs, text)
    for output in outputs:
        end = position + len(output.pcm)
        assert all(position <= word.start_sample < end or output.final for word in output.words)
        position = end


def test_words_that_are_read_as_several_or_together_have_their_own_time(runner: Runner) -> None:
    words = spoken(say(runner, [REPLY]))
    assert " ".join(word.text for word in words) == REPLY
    length = {word.text: word.end_sample - word.start_sample for word in words}
    assert length["😀"] == length["—"] == 0
    assert min(length["$3.5"], length["million,"], length["2026."], length["Hello"]) > 0
    for one, other in pairwise(words):
        assert one.end_sample <= other.start_sample
    start = {word.text: word.start_sample for word in words}
    assert start["😀"] == start["Dr."]
    assert start["—"] == start["in"]


def test_a_year_lasts_longer_than_the_first_of_its_words(runner: Runner) -> None:
    year, twenty = (spoken(say(runner, [text]))[0] for text in ("2026 was good.", "twenty was good."))
    assert year.end_sample - year.start_sample > twenty.end_sample - twenty.start_sample


SENTENCE = "I can book a table for two people near the window, at seven."


def committed(runner: Runner, prefix: str, rest: str, pauses: int) -> list[VoiceOutput]:
    """A prefix, played as far as it goes; some steps in which nothing comes; then the rest."""
    runner.open(3)
    outputs = [step(runner, 3, VoiceInput(prefix))]
    while len(outputs[-1].pcm):
        outputs.append(step(runner, 3, VoiceInput("")))
    outputs += [step(runner, 3, VoiceInput("")) for _ in range(pauses)]
    assert not any(len(output.pcm) or output.words for output in outputs[-pauses:])
    outputs.append(step(runner, 3, VoiceInput(rest, final=True)))
    while not outputs[-1].final:
        outputs.append(step(runner, 3, VoiceInput("")))
    return outputs


@pytest.mark.parametrize("words", [1, 2, 5, 9])
def test_no_silence_and_no_jump_where_a_committed_prefix_goes_on(runner: Runner, words: int) -> None:
    parts = SENTENCE.split()
    prefix, rest = " ".join(parts[:words]) + " ", " ".join(parts[words:])
    whole, joined = say(runner, [SENTENCE]), committed(runner, prefix, rest, pauses=4)
    check(joined, SENTENCE)
    assert spoken(joined) == spoken(whole)
    # Nothing is cut and nothing added: not at the seam, which lies where the prefix ran dry, and nowhere else.
    np.testing.assert_array_equal(audio(joined), audio(whole))
    dry = next(number for number, output in enumerate(joined) if not len(output.pcm))
    played = len(audio(joined[:dry]))
    first = spoken(whole)[words].start_sample
    assert played <= first, "the sound of the words to come cannot have been known"
    for place in (played, first):
        assert seam(audio(joined), place) == seam(audio(whole), place)


def test_a_prefix_that_is_ended_early_is_another_sound(runner: Runner) -> None:
    """Why a reply's words go into one slot: the figure that `relay bench quality --part voice` gives for it."""
    found = seams(runner, SENTENCE, speak(runner, SENTENCE, slot=4))
    assert found is not None
    assert found.equal
    assert found.longer_ms != 0
    assert found.flushed != found.whole


def test_the_first_word_alone_is_heard(runner: Runner) -> None:
    runner.open(2)
    first = step(runner, 2, VoiceInput("Hello "))
    assert 0 < len(first.pcm) <= 24_000 * 80 // 1000
    assert [word.text for word in first.words] == ["Hello"]


def test_a_flush_speaks_what_is_known_and_the_reply_goes_on(runner: Runner) -> None:
    text = "Sure, the old station"
    heard = {}
    for flush in (False, True):
        runner.open(3)
        outputs = [step(runner, 3, VoiceInput(text + " "))]
        outputs += [step(runner, 3, VoiceInput("", flush=flush)) for _ in range(40)]
        heard[flush] = [word for output in outputs for word in output.words]
        assert not any(output.final for output in outputs)
    assert len(heard[True]) > len(heard[False])
    outputs.append(step(runner, 3, VoiceInput("is open.", final=True)))
    while not outputs[-1].final:
        outputs.append(step(runner, 3, VoiceInput("")))
    check(outputs, text + " is open.")


def side_by_side(runner: Runner, texts: dict[int, str]) -> dict[int, list[VoiceOutput]]:
    """Speaks one text a slot until the last is done; words come slowly to some, which wait while others speak."""
    heard: dict[int, list[VoiceOutput]] = {slot: [] for slot in texts}
    waiting = {slot: text.split() for slot, text in texts.items()}
    for slot in texts:
        runner.open(slot)
    under_way = list(texts)
    for number in itertools.count():
        slots = [slot for slot in under_way if number >= slot]
        xs = []
        for slot in slots:
            word = waiting[slot].pop(0) + " " if waiting[slot] and number % (1 + 3 * (slot % 4)) == 0 else ""
            xs.append(VoiceInput(word, final=not waiting[slot]))
        for slot, result in zip(slots, runner.step(slots, xs), strict=True):
            assert isinstance(result, VoiceOutput), result
            heard[slot].append(result)
            if result.final:
                under_way.remove(slot)
        if not under_way:
            break
    return heard


def check_side_by_side(runner: Runner, *, exact: bool) -> None:
    some = ["no no no", REPLY, "A restaurant near the station, please.", "😀", "", "One."]
    texts = {slot: some[slot % len(some)] for slot in range(16)}
    alone = {text: say(runner, [text], slot=15) for text in some}
    for slot, outputs in side_by_side(runner, texts).items():
        expected = alone[texts[slot]]
        assert spoken(outputs) == spoken(expected)
        together, apart = audio(outputs).astype(np.int32), audio(expected).astype(np.int32)
        assert len(together) == len(apart)
        # Products of several rows round otherwise in their last bits.
        assert not len(apart) or np.abs(together - apart).max() <= (0 if exact else 64)


def test_slots_side_by_side_do_not_touch_each_other(runner: Runner) -> None:
    check_side_by_side(runner, exact=isinstance(runner, TorchVoiceRunner))


@pytest.mark.parametrize("rows", [16, 5])
def test_rows_of_a_batch_do_not_touch_each_other(folder: Path, rows: int) -> None:
    """As on a GPU: the shapes of a batch do not depend on who speaks in it, so not even rounding does."""
    made = TorchVoiceRunner(folder, device="cpu", max_slots=16, rows=rows)
    made.load()
    check_side_by_side(made, exact=True)


def test_a_failing_slot_begins_anew_and_harms_no_neighbour(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = audio(say(runner, ["Good morning."], slot=6))
    for slot in (5, 6):
        runner.open(slot)
    plan_of = runner._take

    def fail(reply: object, plan: object, x: VoiceInput) -> None:
        if x.text.startswith("bad"):
            raise ValueError("broken")
        plan_of(reply, plan, x)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_take", fail)
        bad, good = runner.step([5, 6], [VoiceInput("bad.", final=True), VoiceInput("Good morning.", final=True)])
    assert isinstance(bad, ValueError)
    assert isinstance(good, VoiceOutput)
    rest = [good]
    while not rest[-1].final:
        rest.append(step(runner, 6, VoiceInput("")))
    np.testing.assert_array_equal(audio(rest), alone)
    check(say(runner, ["Well."], slot=5), "Well.")


def test_a_failing_model_is_told_to_every_reply_of_the_batch(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    for name in ("_encode", "_speak"):
        for slot in (5, 6):
            runner.open(slot)
        with monkeypatch.context() as patch:
            patch.setattr(runner, name, broken)
            assert all(
                isinstance(result, RuntimeError) for result in runner.step([5, 6], [VoiceInput("a", final=True)] * 2)
            )
        check(say(runner, ["Well."], slot=5), "Well.")


def test_speed(runner: Runner) -> None:
    slow, fast = (len(audio(say(runner, ["one two three four five"], speed=speed))) for speed in (0.6, 1.4))
    assert slow > 1.3 * fast


@pytest.mark.parametrize(
    ("text", "sounds"),
    [*ODD_TEXTS, ("```", True), ("नमस्ते दुनिया", True)],  # "code block"
    ids=lambda x: repr(x[:12]) if isinstance(x, str) else str(x),
)
def test_odd_text(onnx: OnnxVoiceRunner, text: str, sounds: bool) -> None:
    """Defined behaviour: all words reported, an end, and sound wherever there is something to pronounce."""
    outputs = say(onnx, [text])
    check(outputs, text)
    assert (len(audio(outputs)) > 0) == sounds
    check(say(onnx, ["And on we go."]), "And on we go.")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_ends(onnx: OnnxVoiceRunner, text: str) -> None:
    check(say(onnx, [text]), text)


@pytest.mark.parametrize("text", ["", "... —", "Привет мир", "a" * 600])
def test_odd_text_in_both(runner: Runner, text: str) -> None:
    check(say(runner, [text]), text)


def test_both_runners_speak_alike(onnx: OnnxVoiceRunner, folder: Path) -> None:
    torch = TorchVoiceRunner(folder, device="cpu", max_slots=1)
    torch.load()
    for text in (REPLY, "No.", "A restaurant near the station, please: the third on the left."):
        ours = [say(made, increments_of(text, [2, 3])) for made in (onnx, torch)]
        assert spoken(ours[0]) == spoken(ours[1])
        one, other = (audio(outputs).astype(np.int32) for outputs in ours)
        assert len(one) == len(other)
        assert np.abs(one).max() > 1000
        # A pitch that is rounded otherwise in its last bit moves the pulses by a 2^24th of a cycle and more.
        assert np.abs(one - other).max() <= 0.01 * np.abs(one).max()


def test_a_voice_that_was_never_exported(tmp_path: Path) -> None:
    from relay_models.voice import save_voice
    from tests.models.voice.tiny import voice

    save_voice(voice().float(), tmp_path)
    made = TorchVoiceRunner(tmp_path, device="cpu", max_slots=1)
    made.load()
    check(say(made, [REPLY]), REPLY)


@pytest.mark.parametrize("kind", [OnnxVoiceRunner, TorchVoiceRunner])
def test_a_folder_without_a_voice(tmp_path: Path, folder: Path, kind: type[OnnxVoiceRunner | TorchVoiceRunner]) -> None:
    with pytest.raises(WeightsError, match=r"config\.json"):
        kind(tmp_path).load()
    shutil.copyfile(folder / "config.json", tmp_path / "config.json")
    with pytest.raises(WeightsError):
        kind(tmp_path).load()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="not that of a voice"):
        kind(tmp_path).load()
