"""The learned voice as an engine: a small random one, exported, with the shipped text front end."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.engine.voice import VoiceInput, VoiceOutput
from relay.engine.voice_onnx import OnnxVoiceRunner
from relay.errors import WeightsError
from tests.engine.voices import audio, say, spoken, step

pytestmark = pytest.mark.timeout(600)  # an export, which a busy machine takes minutes for
REPLY = "Hello there! It costs $3.5 million, 😀 Dr. Smith said — in 2026. Ok?"
WORDS = st.sampled_from(
    ["yes,", "of", "no.", "😀", "...", "—", "$3.50", "million", "Dr.", "(well)", "why?", "2026", "a/b"]
)
TEXTS = st.lists(WORDS, max_size=10).map(" ".join)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> OnnxVoiceRunner:
    pytest.importorskip("onnxscript")
    from relay_models.vocoder import VocoderConfig
    from relay_models.voice_export import export_voice
    from tests.models.voice.tiny import voice

    small = VocoderConfig(size=12, inner=10, kernel=3, layers=1)
    model = voice(speakers=1, text_layers=1, layers=1, vocoder=small).float()
    folder: Path = tmp_path_factory.mktemp("voice")
    export_voice(model, folder)
    runner = OnnxVoiceRunner(folder, max_slots=4)
    runner.load()
    return runner


def increments_of(text: str, cuts: list[int]) -> list[str]:
    """Whole words in groups."""
    words = text.split()
    places = sorted({min(cut, len(words)) for cut in cuts} | {0, len(words)})
    return [" ".join(words[first:last]) + " " for first, last in pairwise(places)]


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 10), max_size=4))
def test_however_the_words_come_the_sound_is_the_same(runner: OnnxVoiceRunner, text: str, cuts: list[int]) -> None:
    whole, parts = say(runner, [text]), say(runner, increments_of(text, cuts), slot=1)
    np.testing.assert_array_equal(audio(parts), audio(whole))
    assert [word.text for word in spoken(parts)] == text.split()
    assert [word.text for word in spoken(whole)] == text.split()


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_words_lie_in_order_inside_the_sound_and_come_with_it(runner: OnnxVoiceRunner, text: str) -> None:
    outputs = say(runner, increments_of(text, list(range(10))))
    samples, latest = len(audio(outputs)), 0
    for word in spoken(outputs):
        assert latest <= word.start_sample <= word.end_sample <= samples
        latest = word.start_sample
    sent = 0
    for output in outputs:
        sent += len(output.pcm)
        assert output.final or all(word.start_sample < sent or not word.text.isalnum() for word in output.words)


def test_words_that_are_read_as_several_or_together_share_their_time(runner: OnnxVoiceRunner) -> None:
    outputs = say(runner, [REPLY])
    words = spoken(outputs)
    assert " ".join(word.text for word in words) == REPLY
    length = {word.text: word.end_sample - word.start_sample for word in words}
    assert length["😀"] == length["—"] == 0
    assert min(length["$3.5"], length["million,"], length["2026."], length["Hello"]) > 0
    for one, other in pairwise(words):
        assert one.end_sample <= other.start_sample


def test_the_first_word_alone_is_heard(runner: OnnxVoiceRunner) -> None:
    runner.open(2)
    first = step(runner, 2, VoiceInput("Hello "))
    assert 0 < len(first.pcm) <= 24_000 * 80 // 1000
    assert [word.text for word in first.words] == ["Hello"]


def test_slots_side_by_side_do_not_touch_each_other(runner: OnnxVoiceRunner) -> None:
    texts = {0: REPLY, 1: "no no no", 3: "A restaurant near the station, please."}
    alone = {slot: audio(say(runner, [text], slot=slot)) for slot, text in texts.items()}
    heard: dict[int, list[VoiceOutput]] = {slot: [] for slot in texts}
    under_way = dict(texts)
    while under_way:
        slots = list(under_way)
        xs = [VoiceInput("" if heard[slot] else texts[slot], final=True) for slot in slots]
        for slot, result in zip(slots, runner.step(slots, xs), strict=True):
            assert isinstance(result, VoiceOutput)
            heard[slot].append(result)
            if result.final:
                del under_way[slot]
    for slot, outputs in heard.items():
        # Products of several rows round otherwise in their last bits.
        together, apart = audio(outputs).astype(np.int32), alone[slot].astype(np.int32)
        assert len(together) == len(apart)
        assert np.abs(together - apart).max() <= 64


@pytest.mark.parametrize("text", ["", "😀", "... —"])
def test_nothing_to_say_ends_at_once(runner: OnnxVoiceRunner, text: str) -> None:
    outputs = say(runner, [text])
    assert [word.text for word in spoken(outputs)] == text.split()
    assert outputs[-1].final


def test_speed(runner: OnnxVoiceRunner) -> None:
    slow, fast = (len(audio(say(runner, ["one two three four five"], speed=speed))) for speed in (0.6, 1.4))
    assert slow > 1.3 * fast


def test_a_folder_without_a_voice(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        OnnxVoiceRunner(tmp_path).load()
