"""Which written word is heard when, on readings made up for the purpose."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.voice import SpokenWord
from relay.engine.voice_words import AHEAD_WORDS, WordTrack
from relay_models.frontend import SpokenWord as ReadWord
from relay_models.voice_plan import WordTime


def read(start: int, end: int, *, silent: bool = False) -> ReadWord:
    return ReadWord("" if silent else "x", () if silent else ("AH0",), "", start, end)


def times(*edges: tuple[int, int]) -> list[WordTime]:
    return [WordTime(number, *edge) for number, edge in enumerate(edges)]


def test_a_word_is_told_of_when_its_first_sample_is_sent() -> None:
    track = WordTrack()
    track.give("one two")
    track.read([read(0, 3), read(4, 7)])
    known = times((0, 100), (120, 200))
    assert track.begun(known[:1], 0, everything=False) == ()
    assert track.begun(known[:1], 1, everything=False) == (SpokenWord("one", 0, 100),)
    assert track.begun(known, 120, everything=False) == ()
    assert track.begun(known, 121, everything=False) == (SpokenWord("two", 120, 200),)
    assert track.begun(known, 200, everything=True) == ()


def test_words_said_together_share_what_is_said() -> None:
    track = WordTrack()
    track.give("$3.5 million,")
    track.read([read(0, 13)] * 5)
    known = times(*((n * 100, n * 100 + 90) for n in range(5)))
    assert track.begun(known, 250, everything=False) == (SpokenWord("$3.5", 0, 290),)
    assert track.begun(known, 500, everything=False) == (SpokenWord("million,", 300, 490),)


def test_more_written_words_than_spoken_ones_share_their_time() -> None:
    track = WordTrack()
    track.give("1 000 000")
    track.read([read(0, 9), read(0, 9)])
    told = track.begun(times((0, 100), (100, 200)), 200, everything=True)
    assert told == (SpokenWord("1", 0, 50), SpokenWord("000", 50, 100), SpokenWord("000", 100, 200))


def test_what_has_no_sound_lies_where_the_next_word_begins_and_at_the_end() -> None:
    track = WordTrack()
    track.give("😀 well — 🎉")
    track.read([read(2, 6), read(7, 8, silent=True)])
    assert track.begun(times((240, 480), (480, 500)), 240, everything=False) == ()
    told = track.begun(times((240, 480), (480, 500)), 500, everything=True)
    assert told == (
        SpokenWord("😀", 240, 240), SpokenWord("well", 240, 480), SpokenWord("—", 500, 500), SpokenWord("🎉", 500, 500),
    )  # fmt: skip


def test_the_rest_of_a_number_is_asked_for_when_it_begins_but_not_without_end() -> None:
    track = WordTrack()
    track.give("2026 then")
    track.read([read(0, 4)] * 3 + [read(5, 9)])
    known = times((0, 100), (100, 200), (200, 300))
    assert not track.wants_more(known[:1], 0)
    assert track.wants_more(known[:1], 50)
    assert not track.wants_more(known[:2], 50)  # the last one's sound depends on the word after it
    long = WordTrack()
    long.give("1234567890123")
    long.read([read(0, 13)] * 13)
    asked = 1
    while long.wants_more(times(*((n * 10, n * 10 + 10) for n in range(asked))), 5):
        asked += 1
    assert asked == AHEAD_WORDS


@st.composite
def readings(draw: st.DrawFn) -> tuple[list[str], list[ReadWord]]:
    """Written words of one to three characters, cut into stretches of which each is read as nothing or as several."""
    words = draw(st.lists(st.sampled_from(["a", "bc", "def"]), max_size=8))
    starts = [sum(len(word) + 1 for word in words[:n]) for n in range(len(words))]
    said: list[ReadWord] = []
    at = 0
    while at < len(words):
        last = min(at + draw(st.integers(0, 2)), len(words) - 1)
        place = (starts[at], starts[last] + len(words[last]))
        said += [read(*place) for _ in range(draw(st.integers(0, 4)))]
        at = last + 1
    return words, said


@given(readings(), st.lists(st.integers(1, 200), min_size=40, max_size=40), st.integers(1, 150))
def test_every_word_is_told_of_once_in_order_and_in_time(
    reading: tuple[list[str], list[ReadWord]], lengths: list[int], piece: int
) -> None:
    words, said = reading
    track = WordTrack()
    track.give(" ".join(words))
    track.read(said)
    edges = [sum(lengths[:n]) for n in range(len(said) + 1)]
    known = times(*pairwise(edges))
    total, sent, told = edges[-1], 0, list[SpokenWord]()
    while not told or sent < total:
        before, sent = sent, min(sent + piece, total)
        # As a plan does it: times are known of what begins before the end of the piece, and no further.
        begun = track.begun([one for one in known if one.start_sample < sent], sent, everything=sent == total)
        assert all(before <= word.start_sample <= sent for word in begun)
        told += begun
        if sent == total:
            break
    assert [word.text for word in told] == words
    line = [edge for word in told for edge in (word.start_sample, word.end_sample)]
    assert line == sorted(line)
