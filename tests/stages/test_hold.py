"""A hold fills the time until words come, is bounded, and moves the words after it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from relay.audio import VOICE_RATE_HZ
from relay.channel import Channel
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.stages.hold import HOLD_MS, Hold, breathing
from relay.stages.speak import speak
from tests.fakes import WORD_SAMPLES, FakeVoice, WordwiseVoice
from tests.virtual_time import run


class Listener:
    """Plays what `speak` gives, in real time."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.outputs: list[VoiceOutput] = []
        self.wanted = wanted
        self.is_over = False
        self.hold = Hold(lambda: self.wanted, self.lead_s, self.over)
        self._first_s: float | None = None

    @property
    def began_s(self) -> float | None:
        return self._first_s

    @property
    def samples(self) -> int:
        return sum(len(output.pcm) for output in self.outputs)

    def lead_s(self) -> float | None:
        if self._first_s is None:
            return None
        return self.samples / VOICE_RATE_HZ - (asyncio.get_running_loop().time() - self._first_s)

    def over(self) -> None:
        self.is_over = True

    async def take(self, output: VoiceOutput) -> None:
        if self._first_s is None and len(output.pcm):
            self._first_s = asyncio.get_running_loop().time()
        lead_s = self.lead_s()
        assert lead_s is None or not self.samples or not self.wanted or lead_s > 0, "no dead air while it holds"
        self.outputs.append(output)


async def say(
    listener: Listener, *, pause_s: float, first: str = "one two", then: str = " three", voice: FakeVoice | None = None
) -> None:
    words: Channel[str] = Channel(64)
    speaking = asyncio.create_task(speak(words, voice or FakeVoice(), listener.take, hold=listener.hold))
    await words.put(first)
    await asyncio.sleep(pause_s)
    listener.wanted = False
    await words.put(then)
    words.close()
    await speaking


@pytest.mark.parametrize("pause_s", [0.0, 0.3, 0.6, 1.7, 2.6])
def test_late_words_are_waited_for_with_a_breath(pause_s: float) -> None:
    async def main() -> None:
        listener = Listener()
        await say(listener, pause_s=pause_s)
        words = [word for output in listener.outputs for word in output.words]
        assert [word.text for word in words] == ["one", "two", "three"]
        held = listener.samples - 3 * WORD_SAMPLES
        assert held == listener.hold.held_samples
        assert words[1].end_sample == 2 * WORD_SAMPLES
        assert words[2].start_sample == 2 * WORD_SAMPLES + held
        wanted_s = max(0.0, pause_s - 0.5)
        assert wanted_s <= held / VOICE_RATE_HZ <= wanted_s + 0.25 or (pause_s < 0.4 and not held)
        assert not listener.is_over

    run(main())


def test_it_is_bounded_and_says_so() -> None:
    async def main() -> None:
        listener = Listener()
        await say(listener, pause_s=20.0)
        assert listener.hold.held_samples == HOLD_MS * VOICE_RATE_HZ // 1000
        assert listener.is_over

    run(main())


def test_nothing_is_held_before_the_first_sound_or_where_it_is_not_wanted() -> None:
    async def main() -> None:
        silent = Listener()
        await say(silent, pause_s=5.0, first="", then="three")
        other = Listener(wanted=False)
        await say(other, pause_s=5.0)
        assert silent.hold.held_samples == other.hold.held_samples == 0

    run(main())


class PhraseVoice(WordwiseVoice):
    """Waits for four words before it speaks, unless it is flushed."""

    async def step(self, slot: int, x: VoiceInput, *, deadline_s: float = 0.0) -> VoiceOutput:
        waiting = self._waiting[slot]
        waiting += x.text.split()
        if len(waiting) < 4 and not x.final and not x.flush:
            return VoiceOutput(np.empty(0, np.int16))
        text = " ".join(waiting)
        waiting.clear()
        return await FakeVoice.step(self, slot, VoiceInput(text, x.final, x.speed))


@pytest.mark.parametrize("words", ["one", "one two three"])
def test_what_the_voice_keeps_back_is_said_at_once_where_nothing_was_heard_yet(words: str) -> None:
    async def main() -> None:
        listener = Listener()
        await say(listener, pause_s=2.0, first=words, then=" four five", voice=PhraseVoice())
        first = next(output for output in listener.outputs if len(output.pcm))
        assert [word.text for word in first.words] == words.split()
        assert listener.began_s == pytest.approx(0.0)
        said = [word for output in listener.outputs for word in output.words]
        assert [word.text for word in said] == [*words.split(), "four", "five"]
        assert 1.5 < said[-2].start_sample / VOICE_RATE_HZ < 2.4

    run(main())


def test_a_breath_is_soft_and_begins_and_ends_in_silence() -> None:
    pcm = breathing()
    assert len(pcm) == HOLD_MS * VOICE_RATE_HZ // 1000
    assert np.abs(pcm).max() < 2000
    assert np.abs(pcm).max() > 100
    assert not pcm[:100].any()
    assert not pcm[-100:].any()


def test_it_ends_without_a_click() -> None:
    hold = Hold(lambda: True, lambda: 0.0, lambda: None)
    assert len(hold.tail()) == 0
    for _ in range(6):
        last = hold.more()
    tail = hold.tail()
    assert abs(int(tail[0]) - int(last[-1])) < 400
    assert tail[-1] == 0
