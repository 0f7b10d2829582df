"""A voice that began before it was asked says the same as one that did not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio import VOICE_RATE_HZ
from relay.channel import Channel
from relay.engine.engine import Engine
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.engine.voice_onnx import OnnxVoiceRunner
from relay.speculation import HeldVoice
from relay.stages.speak import speak
from tests.fakes import FakeVoice, WordwiseVoice
from tests.virtual_time import run

GROUPS = st.lists(st.integers(1, 4), max_size=6)


def groups_of(count: int, sizes: list[int]) -> list[list[str]]:
    """`count` words as they come: so many at a time, the last group takes the rest."""
    words = [f" w{n}" if n else "w0" for n in range(count)]
    groups = []
    for size in sizes:
        groups.append(words[:size])
        words = words[size:]
    return [group for group in [*groups, words] if group]


@given(st.integers(0, 14), GROUPS, st.integers(0, 6), GROUPS, st.booleans())
def test_what_is_held_and_what_follows_is_the_whole_reply(
    count: int, fed_sizes: list[int], fed_groups: int, given_sizes: list[int], wordwise: bool
) -> None:
    async def main() -> None:
        voice = WordwiseVoice() if wordwise else FakeVoice()
        fed = groups_of(count, fed_sizes)
        said: list[SpokenWord] = []
        samples = 0
        given_words = 0

        async def out(output: VoiceOutput) -> None:
            nonlocal samples
            samples += len(output.pcm)
            said.extend(output.words)
            assert len(said) <= given_words, "nothing is said before its words are known"

        async with voice.slot() as slot:
            held = HeldVoice(voice, slot, speed=1.0)
            for number, group in enumerate(fed[:fed_groups], 1):
                await held.feed(group, final=number == len(fed))
            words: Channel[str] = Channel(64)
            for group in groups_of(count, given_sizes):
                for word in group:
                    given_words += 1
                    await words.put(word)
            words.close()
            await speak(words, held, out)
            assert [word.text for word in said] == [f"w{n}" for n in range(count)]
            assert [word.start_sample for word in said] == [n * 6000 for n in range(count)]
            assert samples == count * 6000
            # Its slot is spent; what else is to be said is said by the voice itself.
            assert voice.open_slots == 1
            async with held.slot() as other:
                assert voice.open_slots == 2
                more = await held.step(other, VoiceInput("Sorry.", final=True))
            assert [word.text for word in more.words] == ["Sorry."]
            assert more.final

    run(main())


@given(GROUPS, st.integers(1, 5))
def test_words_that_come_one_by_one_are_not_overtaken_by_their_sound(fed_sizes: list[int], count: int) -> None:
    async def main() -> None:
        voice = WordwiseVoice()
        async with voice.slot() as slot:
            held = HeldVoice(voice, slot, speed=1.0)
            for group in groups_of(count, fed_sizes):
                await held.feed(group, final=False)
            async with held.slot() as own:
                for n in range(count):
                    output = await held.step(own, VoiceInput(f" w{n}" if n else "w0"))
                    while output.words:
                        assert int(output.words[-1].text[1:]) <= n
                        output = await held.step(own, VoiceInput(""))

    run(main())


def test_words_of_a_draft_have_their_first_sound_before_more_words_come() -> None:
    """The voice that ships looks ahead; seven words are enough for it, whatever follows them."""
    pytest.importorskip("onnxruntime")
    prefix = ["Sure,", " I", " can", " help", " you", " with", " that."]

    async def main() -> None:
        async with Engine(OnnxVoiceRunner(), name="voice") as voice, voice.slot() as slot:
            held = HeldVoice(voice, slot, speed=1.0)
            await held.feed(prefix, final=False)
            assert held.held_samples >= VOICE_RATE_HZ // 25
            assert not held.has_failed

    asyncio.run(main())
