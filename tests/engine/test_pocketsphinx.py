from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import relay
from relay.audio import EARS_RATE_HZ, Int16Array, Resampler
from relay.engine import pocketsphinx_ears
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.engine.pocketsphinx_ears import FRAME_SAMPLES, WAITING_SAMPLES, PocketsphinxRunner, Settling
from relay.engine.sphinx import TYPICAL_CMN, Sphinx
from relay.errors import EngineUnavailable, RelayError

TEXT = "can you help me find a restaurant"


@pytest.fixture(scope="module")
def runner() -> Iterator[PocketsphinxRunner]:
    runner = PocketsphinxRunner(max_slots=8, max_decoders=2)
    runner.load()
    yield runner
    runner.unload()


@pytest.fixture(scope="module")
def question() -> Int16Array:
    """The bundled question, [samples] int16 at 16 kHz."""
    pcm, rate_hz = soundfile.read(Path(relay.__file__).parent / "assets" / "question.wav", dtype="int16")
    return Resampler(rate_hz, EARS_RATE_HZ).step(pcm, last=True)


def noise(seconds: float, level: float = 30.0) -> Int16Array:
    return np.random.default_rng(7).normal(0, level, int(seconds * EARS_RATE_HZ)).astype(np.int16)


def step(runner: PocketsphinxRunner, slot: int, pcm: Int16Array, *, final: bool = False) -> EarsOutput:
    (result,) = runner.step([slot], [EarsInput(pcm, final)])
    assert isinstance(result, EarsOutput), result
    return result


def hear(runner: PocketsphinxRunner, slot: int, pcm: Int16Array, chunk: int = 1600) -> list[EarsOutput]:
    outputs = [step(runner, slot, pcm[at : at + chunk]) for at in range(0, len(pcm), chunk)]
    return [*outputs, step(runner, slot, pcm[:0], final=True)]


def check(outputs: list[EarsOutput]) -> None:
    """What every recogniser promises."""
    stable = ""
    for output in outputs:
        assert output.stable.startswith(stable)
        stable = output.stable
        assert output.stable == " ".join(word.text for word in output.words)
        assert in_order(output.words)
        assert all(0.0 <= word.confidence <= 1.0 for word in output.words)
    assert [output.final for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert outputs[-1].unstable == ""


def in_order(words: Sequence[Word]) -> bool:
    edges = [edge for word in words for edge in (word.start_sample, word.end_sample)]
    return edges == sorted(edges)


def opened(runner: PocketsphinxRunner, *slots: int) -> None:
    for slot in slots:
        if slot in runner._slots:
            runner.close(slot)
        runner.open(slot)


def test_a_spoken_question_word_by_word(runner: PocketsphinxRunner, question: Int16Array) -> None:
    opened(runner, 0)
    outputs = hear(runner, 0, question)
    check(outputs)
    assert outputs[-1].stable == TEXT
    assert any(output.stable for output in outputs[:-1])
    assert any(output.unstable for output in outputs[:-1])
    assert outputs[-1].words[-1].end_sample <= len(question)
    # The slot is ready for the next utterance, and knows the microphone by now.
    again = hear(runner, 0, question)
    check(again)
    assert again[-1].stable.startswith("can you help me find")


def test_words_are_where_they_were_said(runner: PocketsphinxRunner, question: Int16Array) -> None:
    opened(runner, 0)
    before = hear(runner, 0, question)[-1].words
    opened(runner, 0)
    lead = noise(0.5)
    after = hear(runner, 0, np.concatenate([lead, question]))[-1].words
    shifts = {w.text: w.start_sample - v.start_sample for v, w in zip(before, after, strict=True) if v.text == w.text}
    assert len(shifts) >= 6
    assert all(abs(shift - len(lead)) <= 0.1 * EARS_RATE_HZ for shift in shifts.values())


@settings(max_examples=4)
@given(cuts=st.lists(st.integers(0, 46_000), max_size=12))
def test_any_split_hears_the_same(runner: PocketsphinxRunner, question: Int16Array, cuts: list[int]) -> None:
    opened(runner, 0, 1)
    whole = step(runner, 0, question, final=True)
    edges = [0, *sorted(min(cut, len(question)) for cut in cuts), len(question)]
    outputs = [step(runner, 1, question[a:b]) for a, b in pairwise(edges)]
    outputs.append(step(runner, 1, question[:0], final=True))
    check(outputs)
    assert outputs[-1] == whole


def test_neighbours_do_not_disturb(runner: PocketsphinxRunner, question: Int16Array) -> None:
    opened(runner, 0, 1)
    alone = hear(runner, 0, question)[-1]
    opened(runner, 0)
    other = np.concatenate([noise(0.3, 2000), question[::-1]])
    for at in range(0, len(question), 1600):
        step(runner, 0, question[at : at + 1600])
        step(runner, 1, other[at : at + 1600])
    assert step(runner, 0, question[:0], final=True) == alone
    assert step(runner, 1, question[:0], final=True).final


def test_audio_waits_for_a_decoder(question: Int16Array) -> None:
    runner = PocketsphinxRunner(max_slots=3, max_decoders=1)
    runner.load()
    opened(runner, 0, 1, 2)
    half = len(question) // 2
    step(runner, 0, question[:half])  # takes the only decoder
    assert step(runner, 1, question) == EarsOutput("", "")
    assert step(runner, 2, question) == EarsOutput("", "")
    # An utterance that ends while it waits is answered all the same.
    assert step(runner, 1, question[:0], final=True).stable == TEXT
    assert step(runner, 0, question[half:], final=True).stable == TEXT
    # One that goes on is decoded as soon as a decoder is free, a little in every step.
    partial = step(runner, 2, question[:0])
    assert len(runner._slots[2].waiting) == len(question) - pocketsphinx_ears.CATCH_UP_SAMPLES
    assert not partial.final
    assert step(runner, 2, question[:0], final=True).stable == TEXT
    runner.unload()


def test_waiting_audio_is_bounded(question: Int16Array) -> None:
    runner = PocketsphinxRunner(max_slots=2, max_decoders=1)
    runner.load()
    opened(runner, 0, 1)
    step(runner, 0, question[:1600])  # takes the only decoder
    for _ in range(4):
        step(runner, 1, noise(10.0))
    assert len(runner._slots[1].waiting) == WAITING_SAMPLES
    runner.close(0)
    runner.unload()


def test_decoders_come_back(runner: PocketsphinxRunner, question: Int16Array) -> None:
    for _ in range(20):
        opened(runner, 0)
        step(runner, 0, question[:3200])
        assert len(runner._free) < len(runner._all)
        runner.close(0)
        assert len(runner._free) == len(runner._all)
    runner.open(0)
    assert step(runner, 0, question, final=True).stable == TEXT


def test_a_second_decoder_is_made_when_needed(question: Int16Array) -> None:
    runner = PocketsphinxRunner(max_slots=2, max_decoders=2)
    runner.load()
    opened(runner, 0, 1)
    step(runner, 0, question[:1600])
    assert step(runner, 1, question) == EarsOutput("", "")
    assert runner._building is not None
    runner._building.result(30)
    step(runner, 1, question[:0])
    assert runner._slots[1].decoder is not None
    assert step(runner, 1, question[:0], final=True).stable == TEXT
    assert step(runner, 0, question[1600:], final=True).stable == TEXT
    runner.unload()


def test_a_long_utterance_goes_in_parts(
    runner: PocketsphinxRunner, question: Int16Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.concatenate([question, noise(0.4)])
    whole = whole[: len(whole) // FRAME_SAMPLES * FRAME_SAMPLES]
    monkeypatch.setattr(pocketsphinx_ears, "PART_SAMPLES", len(whole))
    opened(runner, 0)
    outputs = hear(runner, 0, np.concatenate([whole, whole, whole]))
    check(outputs)
    assert outputs[-1].stable.startswith(f"{TEXT} can you help me find")
    assert outputs[-1].words[7].start_sample >= len(whole)


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(0, np.int16),
        np.ones(1, np.int16),
        np.zeros(16_000, np.int16),
        noise(1.0, 8000),
        np.tile(np.array([32767, -32768], np.int16), 16_000),
        np.full(16_000, 32767, np.int16),
    ],
    ids=["nothing", "one sample", "digital silence", "loud noise", "square wave", "offset"],
)
def test_odd_audio(runner: PocketsphinxRunner, question: Int16Array, pcm: Int16Array) -> None:
    opened(runner, 0)
    check(hear(runner, 0, pcm))
    check(hear(runner, 0, question))


def test_a_decoder_that_fails_harms_its_own_utterance_only(
    runner: PocketsphinxRunner, question: Int16Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(runner, 0, 1)
    step(runner, 0, question[:1600])
    decoder = runner._slots[0].decoder
    assert decoder is not None

    def fail(pcm: Int16Array) -> None:
        raise RelayError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "feed", fail)
        failed, _ = runner.step([0, 1], [EarsInput(question[1600:]), EarsInput(question[:0])])
    assert isinstance(failed, RelayError)
    assert step(runner, 0, question, final=True).stable == TEXT


def test_other_threads_run_while_it_decodes() -> None:
    sphinx = Sphinx()
    decoder = sphinx.decoder()
    go, ran = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: ran.set() if go.wait(30) else None)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # from here on the other thread runs only if this one gives the interpreter lock up
    try:
        decoder.begin(TYPICAL_CMN)
        go.set()
        decoder.feed(noise(3.0, 1000))
        assert ran.is_set()
    finally:
        sys.setswitchinterval(interval)
    decoder.end()
    decoder.free()
    sphinx.free()
    thread.join()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'relay-dialogue\[baseline\]'"):
        PocketsphinxRunner().load()


hypotheses = st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=30)


def as_words(texts: list[str]) -> list[Word]:
    # Where a word lies depends a little on its text, as when a recogniser changes its mind.
    late = [100 * "abcx".index(text) for text in texts]
    return [
        Word(text, 1000 * i + 2 * k, 1000 * i + 700 + k, 0.5)
        for i, (text, k) in enumerate(zip(texts, late, strict=True))
    ]


@given(hypotheses, st.integers(1, 4))
def test_settled_words_stay(script: list[list[str]], ticks: int) -> None:
    settling = Settling(ticks)
    stable: list[Word] = []
    for tick, texts in enumerate(script):
        rest = settling.step(as_words(texts), now_sample=1000 * len(texts) + 100 * tick)
        assert settling.settled[: len(stable)] == stable
        stable = list(settling.settled)
        assert in_order([*stable, *rest])
    final = settling.finish(as_words(script[-1] if script else []))
    assert in_order(final)
    assert [word.text for word in final[: len(stable)]] == [word.text for word in stable]


def test_a_word_settles_after_standing_and_being_followed() -> None:
    settling = Settling(2)
    assert len(settling.step(as_words(["a"]), 1000)) == 1
    assert settling.step(as_words(["a"]), 1000)[0].text == "a"  # stood twice, but nothing follows
    assert [word.text for word in settling.step(as_words(["a", "b"]), 2000)] == ["b"]
    assert [word.text for word in settling.settled] == ["a"]
    assert settling.step(as_words(["a", "b"]), 9000) == []  # a pause follows
    assert [word.text for word in settling.finish(as_words(["x", "b", "c"]))] == ["a", "b", "c"]
