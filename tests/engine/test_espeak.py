from __future__ import annotations

import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.engine import espeak_voice
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.errors import EngineUnavailable
from tests.engine.voices import ODD_TEXTS, audio, check, say, spoken, step

REPLY = (
    "Hello there! I can book a table for two people at seven in the evening, near the window of the restaurant, "
    "and **Dr. Smith** will see you at [the clinic](http://www.example.com/a?b=c) 😀. It costs $3.50 — that's all."
)

words = st.sampled_from(
    ["yes,", "of", "the", "a", "no.", "restaurant", "😀", "...", "—", "3.5", "Dr.", "(well)", "why?"]
)
texts = st.lists(words, max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def runner() -> EspeakRunner:
    runner = EspeakRunner(max_slots=8)
    runner.load()
    return runner


def test_speaks_and_says_where_each_word_is(runner: EspeakRunner) -> None:
    outputs = say(runner, [REPLY])
    check(outputs, REPLY)
    pcm = audio(outputs)
    assert 8 < len(pcm) / VOICE_RATE_HZ < 16
    for word in spoken(outputs):
        if word.text in ("😀.", "—"):
            assert word.start_sample == word.end_sample
        else:
            assert np.abs(pcm[word.start_sample : word.end_sample]).max() > 1000, word
    assert np.abs(pcm[-VOICE_RATE_HZ // 20 :]).max() > 100  # no silence is left at the end


def test_speech_begins_with_the_third_word(runner: EspeakRunner) -> None:
    runner.open(1)
    assert len(step(runner, 1, VoiceInput("I can ")).pcm) == 0
    first = step(runner, 1, VoiceInput("book "))
    assert [word.text for word in first.words] == ["I", "can", "book"]
    assert len(first.pcm) > 0.3 * VOICE_RATE_HZ
    runner.close(1)


def test_what_waits_for_the_end_of_a_phrase_is_spoken_when_it_is_flushed(runner: EspeakRunner) -> None:
    runner.open(0)
    first = step(runner, 0, VoiceInput("I think"))
    assert not len(first.pcm)
    flushed = step(runner, 0, VoiceInput("", flush=True))
    assert len(flushed.pcm) > VOICE_RATE_HZ // 4
    assert not flushed.final
    assert not len(step(runner, 0, VoiceInput("", flush=True)).pcm)
    last = step(runner, 0, VoiceInput("so", final=True))
    check([first, flushed, last], "I think so")


def test_speech_begins_with_punctuation(runner: EspeakRunner) -> None:
    runner.open(1)
    first = step(runner, 1, VoiceInput("Sure! "))
    assert [word.text for word in first.words] == ["Sure!"]
    # The pause after it comes with what follows, so nothing trails when nothing follows.
    rest = step(runner, 1, VoiceInput("Yes.", final=True))
    assert rest.words[0].start_sample - len(first.pcm) == espeak_voice.PAUSE_SAMPLES["sentence"]
    assert rest.final
    runner.close(1)


@settings(max_examples=25, deadline=None)
@given(texts, st.data())
def test_any_split_sounds_the_same(runner: EspeakRunner, text: str, data: st.DataObject) -> None:
    whole = say(runner, [text])
    check(whole, text)
    pieces = text.split(" ")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pieces)), max_size=5)))
    edges = [0, *cuts, len(pieces)]
    parts = [" ".join(pieces[a:b]) for a, b in pairwise(edges)]
    split = say(runner, parts, slot=2)
    check(split, text)
    assert spoken(split) == spoken(whole)
    np.testing.assert_array_equal(audio(split), audio(whole))


def test_two_runners_share_the_library(runner: EspeakRunner) -> None:
    expected = audio(say(runner, [REPLY]))
    other = EspeakRunner(max_slots=1)
    other.load()
    heard: list[Int16Array] = []
    threads = [
        threading.Thread(target=lambda r=r, speed=speed: heard.append(audio(say(r, [REPLY], slot=3, speed=speed))))
        for r, speed in ((runner, 1.0), (other, 1.0))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.unload()
    assert len(heard) == 2
    for pcm in heard:
        np.testing.assert_array_equal(pcm, expected)
    np.testing.assert_array_equal(audio(say(runner, [REPLY])), expected)  # unloading one does not silence the other


def test_speed(runner: EspeakRunner) -> None:
    durations = [len(audio(say(runner, [REPLY], speed=speed))) for speed in (0.5, 1.0, 1.5)]
    assert durations[0] > 1.5 * durations[1]
    assert durations[1] > 1.25 * durations[2]
    assert len(audio(say(runner, ["yes"], speed=0.01))) > 0  # beyond eSpeak's range: its slowest


@pytest.mark.parametrize(
    ("text", "sounds"),
    [*ODD_TEXTS, ("```", False)],
    ids=lambda x: repr(x[:12]) if isinstance(x, str) else str(x),
)
def test_odd_text(runner: EspeakRunner, text: str, sounds: bool) -> None:
    outputs = say(runner, [text])
    check(outputs, text)
    assert (len(audio(outputs)) > 0) == sounds
    check(say(runner, ["And on we go."]), "And on we go.")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_ends(runner: EspeakRunner, text: str) -> None:
    check(say(runner, [text]), text)


def test_words_without_sound_do_not_hold_up_the_rest(runner: EspeakRunner) -> None:
    runner.open(4)
    output = step(runner, 4, VoiceInput("😀! 🎉. Hello there. "))
    assert [word.text for word in output.words] == ["😀!", "🎉.", "Hello", "there."]
    assert len(output.pcm)
    runner.close(4)


def test_a_failing_slot_harms_no_neighbour(runner: EspeakRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    for slot in (5, 6):
        runner.open(slot)
    synthesise = runner._library.synthesise

    def fail(text: str, words_per_minute: int) -> tuple[Int16Array, list[tuple[int, int]]]:
        if text.startswith("bad"):
            raise EngineUnavailable("broken")
        return synthesise(text, words_per_minute)

    with monkeypatch.context() as patch:
        patch.setattr(runner._library, "synthesise", fail)
        bad, good = runner.step([5, 6], [VoiceInput("bad.", final=True), VoiceInput("good.", final=True)])
    assert isinstance(bad, EngineUnavailable)
    assert isinstance(good, VoiceOutput)
    check(say(runner, ["Well."], slot=5), "Well.")
    for slot in (5, 6):
        runner.close(slot)


def test_a_deep_installation(tmp_path: Path) -> None:
    """eSpeak itself has room for 160 bytes of path."""
    script = """
import pathlib, sys
import espeakng_loader
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.voice import VoiceInput
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
(folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
espeakng_loader.get_data_path = lambda: str(folder / "espeak-ng-data")
runner = EspeakRunner()
runner.load()
runner.open(0)
print(len(runner.step([0], [VoiceInput("Deep down here.", final=True)])[0].pcm))
"""
    deep = tmp_path / ("deep/" * 40)
    done = subprocess.run(
        [sys.executable, "-c", script, str(deep)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert int(done.stdout) > VOICE_RATE_HZ // 2


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak_voice, "_library", espeak_voice._Library)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'relay-dialogue\[baseline\]'"):
        EspeakRunner().load()
