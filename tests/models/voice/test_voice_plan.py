from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models import vocoder, vocoder_source
from relay_models.phonemes import END_ID
from relay_models.voice_plan import (
    CONTEXT_WORDS,
    DELAY_FRAMES,
    HOP_SAMPLES,
    LONGEST_FRAMES,
    STEP_FRAMES,
    VoicePlan,
    WordTime,
    padded,
    positions_of,
    whole_frames,
    window_of,
    word_time,
)

WORDS = [(n + 1,) * (n % 3 + 1) for n in range(9)]


def test_constants_are_those_of_the_vocoder() -> None:
    assert (HOP_SAMPLES, DELAY_FRAMES) == (vocoder_source.HOP_SAMPLES, vocoder.DELAY_FRAMES)


def test_the_first_word_sees_itself_and_later_ones_the_next() -> None:
    first, second, seventh = (window_of(WORDS, number) for number in (0, 1, 6))
    assert first.ids.tolist() == list(WORDS[0])
    assert second.ids.tolist() == [*WORDS[0], *WORDS[1], *WORDS[2]]
    assert seventh.ids.tolist() == [i for word in WORDS[2:8] for i in word]
    assert seventh.ids[seventh.begin : seventh.end].tolist() == list(WORDS[6])
    assert set(seventh.places[seventh.begin : seventh.end].tolist()) == {CONTEXT_WORDS}
    assert (seventh.places[0], seventh.places[-1]) == (0, CONTEXT_WORDS + 1)


def test_padding_keeps_windows_apart() -> None:
    ids, _ = padded([window_of(WORDS, 0), window_of(WORDS, 2)])
    assert ids.shape == (2, len(window_of(WORDS, 2).ids))
    assert ids[0].tolist() == [1] + [0] * (ids.shape[1] - 1)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=20), st.floats(0.25, 1.5), st.booleans())
def test_frames_are_whole_and_enough(lengths: list[float], speed: float, first: bool) -> None:
    counts = whole_frames(np.array(lengths), speed=speed, first=first)
    assert counts.min() >= 1
    assert counts.sum() >= (STEP_FRAMES if first else DELAY_FRAMES)
    exact = np.clip(np.array(lengths) / speed, 1, LONGEST_FRAMES)
    ends = np.cumsum(counts)[:-1] - np.cumsum(exact)[:-1]
    assert np.abs(ends).max(initial=0) <= 0.5 + 1e-9


def test_positions_count_up_and_down() -> None:
    positions = positions_of(np.array([1, 4]))
    np.testing.assert_allclose(positions[:, 0], [0.5, 0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(positions[:, 1], [0, 0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(positions[:, 2], [0, 0.3, 0.2, 0.1, 0])


def test_a_word_ends_before_its_pause() -> None:
    assert word_time(3, 10, np.array([4, 5, 6])) == WordTime(3, 2400, 2400 + 9 * HOP_SAMPLES)
    assert word_time(3, 10, np.array([4])) == WordTime(3, 2400, 2400 + 4 * HOP_SAMPLES)


@given(st.data())
def test_steps_and_samples_do_not_depend_on_the_split(data: st.DataObject) -> None:
    lengths = {word: np.full(len(word), 2.0 + word[0] % 4) for word in [*WORDS, (END_ID,)]}

    def advance(plan: VoicePlan, steps: list[tuple[int, int, int]]) -> None:
        while True:
            if (frames := plan.take()) is not None:
                steps.append((int(frames.valid.sum()), frames.skip, frames.keep))
                assert not frames.vectors[~frames.valid].any()
            elif (window := plan.window()) is not None:
                word = tuple(window.ids[window.begin : window.end].tolist())
                plan.encoded(np.full((len(word), 2), float(word[0])), lengths[word])
            else:
                return

    at_once, expected = VoicePlan(2), []
    for word in WORDS:
        at_once.push(word)
    at_once.finish()
    advance(at_once, expected)

    plan, steps = VoicePlan(2), []
    for word in WORDS:
        plan.push(word)
        if data.draw(st.booleans()):
            advance(plan, steps)
    if data.draw(st.booleans()):
        plan = plan.copy()
    plan.finish()
    advance(plan, steps)
    assert plan.done
    assert steps == expected
    assert plan.times == at_once.times
    assert [time.word for time in plan.times] == list(range(len(WORDS)))
    assert sum(keep for _, _, keep in steps) == plan.samples


def test_a_copy_goes_its_own_way() -> None:
    plan = VoicePlan(1)
    plan.push((1,))
    twin = plan.copy()
    twin.push((2,))
    twin.finish()
    assert plan.window() is not None
    plan.encoded(np.zeros((1, 1)), np.array([9.0]))
    assert plan.window() is None
    assert twin.times == []
    assert not plan.done


def test_a_flush_lets_the_known_words_be_encoded_and_no_others() -> None:
    plan = VoicePlan(1)
    plan.push((1,))
    plan.push((2,))
    plan.encoded(np.zeros((1, 1)), np.array([9.0]))
    assert plan.window() is None
    plan.flush()
    window = plan.window()
    assert window is not None
    assert window.ids.tolist() == [1, 2]
    plan.encoded(np.zeros((1, 1)), np.array([9.0]))
    plan.push((3,))
    assert plan.window() is None
    plan.push((4,))
    assert plan.window() is not None


def test_words_that_are_empty_or_late_are_refused() -> None:
    plan = VoicePlan(1)
    with pytest.raises(ValueError, match="a word needs symbols"):
        plan.push(())
    plan.finish()
    with pytest.raises(ValueError, match="finished"):
        plan.push((1,))
