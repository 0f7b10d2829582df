from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay_models.frontend import LONGEST_STRETCH, FrontendState, SpokenWord, TextStream
from relay_models.frontend.context import LOOK_AHEAD
from relay_models.frontend.heteronyms import heteronym
from relay_models.frontend.numbers import cardinal, decimal, fraction, ordinal, roman, whole, year
from relay_models.phonemes import SYMBOLS
from tests.models.voice.small_lexicon import small_frontend, spoken_words

CASES = [
    tuple(part.strip() for part in f"{line} ".split(" => "))
    for line in Path(__file__).with_name("frontend_cases.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("# ")
]
# Pieces that begin, break off or end every rule there is.
BEGINNINGS = """
$ $3.5 million 3 1/2 3:30 p.m. 5-10 % °C (415) 555-2671 +1 Dr. St. No. Jan. U.S. etc. I II VIII Henry War read live
** _ ` ``` # ## - [ ] [a](b " ![x] | |---| <a href= > </b> &amp; &lt; https://a.b/c a@b.co #Tag @you a/b.py --x x^2 ²
½ — … . ? ! , ; : ' ( ) é 你好 Привет β 😀 👩‍👩‍👧 \u200d \ufe0f NASA APIs iPhone GPT-4 kHz km/h the cat 1990s $$ \\( \\
"""
PIECES = st.sampled_from(BEGINNINGS.split())
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.tuples(PIECES, st.sampled_from(["", " ", " ", "\n", "\t"])), max_size=14).map(
        lambda pieces: "".join(piece + blank for piece, blank in pieces)
    ),
)


def said(words: list[SpokenWord]) -> str:
    return " ".join(word.text + word.pause for word in words)


@pytest.mark.parametrize(("written", "spoken"), CASES)
def test_what_is_said(written: str, spoken: str) -> None:
    assert said(spoken_words(written.replace("\\n", "\n"))) == spoken


@given(TEXTS, st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=400)
@example("It costs $3.5 million.", [4, 10, 11, 13])
@example("```x```\n```\ncode\n```\nand", [2, 9])
@example("a" * 300 + "—b", [256, 301])
@example("0!JAN.—\r", [7])
def test_any_split_gives_the_same_words(text: str, cuts: list[int]) -> None:
    stream = TextStream(small_frontend())
    given_out: list[SpokenWord] = []
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    for start, end in pairwise(places):
        given_out += stream.push(text[start:end])
    given_out += stream.finish()
    assert given_out == spoken_words(text)


@given(TEXTS)
@settings(max_examples=300)
def test_any_text_gives_symbols_in_their_places(text: str) -> None:
    words = spoken_words(text)
    for word in words:
        assert set(word.symbols) <= set(SYMBOLS)
        assert word.phonemes or word.pause
        assert bool(word.text) == bool(word.phonemes)
        assert 0 <= word.start <= word.end <= len(text) + 1
    for one, other in pairwise(words):
        assert one.end <= other.start or (one.start, one.end) == (other.start, other.end)


@given(TEXTS)
@settings(max_examples=200)
def test_no_more_than_two_words_wait(text: str) -> None:
    stream = TextStream(small_frontend())
    for character in text:
        stream.push(character)
        assert len(stream.state.waiting) <= LOOK_AHEAD
        assert len(stream.state.tail) < LONGEST_STRETCH


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=100)
def test_a_copy_goes_its_own_way(before: str, one: str, other: str) -> None:
    stream = TextStream(small_frontend())
    start = stream.push(before)
    copy = stream.copy()
    first = start + stream.push(one) + stream.finish()
    second = start + copy.push(other) + copy.finish()
    assert first == spoken_words(before + one)
    assert second == spoken_words(before + other)


def test_words_come_as_soon_as_they_are_certain() -> None:
    stream = TextStream(small_frontend())
    assert said(stream.push("The")) == ""
    assert said(stream.push(" quick ")) == "the quick"
    assert said(stream.push("$3.5 ")) == ""
    assert said(stream.push("million ")) == "three point five million dollars"
    assert said(stream.push("Dr. ")) == ""
    assert said(stream.push("No ")) == "doctor no"
    assert said(stream.push("fast—really")) == "fast-"
    assert said(stream.finish()) == "really."


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("In 2026, ok", [("in", "In"), ("twenty", "2026,"), ("twenty", "2026,"), ("six", "2026,"), ("ok", "ok")]),
        ("$5 million b", [*((word, "$5 million") for word in ("five", "million", "dollars")), ("B", "b")]),
        ("**so** 😀 it", [("so", "**so**"), ("it", "it")]),
        ("[the page](https://a.b/c).", [("the", "[the"), ("page", "page](https://a.b/c).")]),
    ],
)  # fmt: skip
def test_every_word_knows_its_place(text: str, places: list[tuple[str, str]]) -> None:
    assert [(word.text, text[word.start : word.end]) for word in spoken_words(text)] == places


def test_places_go_on_counting_after_the_end() -> None:
    stream = TextStream(small_frontend())
    stream.push("one two")
    stream.finish()
    words = stream.push(" three ")
    assert [(word.text, word.start, word.end) for word in words] == [("three", 8, 13)]
    assert stream.state.before == (stream.state.before[-1],)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "...", "😀" * 500, "?!" * 300, "\u200d\ufe0f", "```\nx = 1\n", "<a href="]
)
def test_nothing_to_say_is_no_word(text: str) -> None:
    assert all(word.text in ("", "code", "block") for word in spoken_words(text))


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "7" * 10_000, "word " * 2_000, "你" * 3_000, "-" * 10_000, "a." * 5_000]
)
def test_long_texts_end(text: str) -> None:
    words = spoken_words(text)
    assert len(words) <= len(text)
    assert not words or words[-1].end <= len(text) + 1


def test_a_block_of_code_is_named_not_read() -> None:
    text = "Look:\n```python\nfor x in y:\n    print(x)\n```\nDone."
    assert said(spoken_words(text)) == "look- code block. done."


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("I read it", "R IY1 D"),
        ("I have read it", "R EH1 D"),
        ("have you read it", "R EH1 D"),
        ("she read it", "R EH1 D"),
        ("live music", "L AY1 V"),
        ("they live here", "L IH1 V"),
        ("a lead pipe", "L EH1 D"),
        ("to lead them", "L IY1 D"),
        ("the wind blew", "W IH1 N D"),
        ("to wind it", "W AY1 N D"),
        ("a record", "R EH1 K ER0 D"),
        ("to record it", "R IH0 K AO1 R D"),
        ("Record your voice", "R IH0 K AO1 R D"),
        ("the use of it", "Y UW1 S"),
        ("we use it", "Y UW1 Z"),
        ("very close to it", "K L OW1 S"),
        ("close the door", "K L OW1 Z"),
        ("a Polish man", "P OW1 L IH0 SH"),
        ("nail polish", "P AA1 L IH0 SH"),
        ("a separate room", "S EH1 P ER0 AH0 T"),
        ("to separate them", "S EH1 P ER0 EY2 T"),
    ],
)
def test_heteronyms(text: str, phonemes: str) -> None:
    names = {"read", "live", "lead", "wind", "record", "use", "close", "polish", "separate"}
    found = [word.phonemes for word in spoken_words(text) if word.text in names]
    assert found == [tuple(phonemes.split())]


def test_only_heteronyms_have_several_pronunciations() -> None:
    around = small_frontend()
    assert around.push(FrontendState(), "cat ")[0][0].phonemes == ("K", "AE1", "T")
    assert heteronym("cat", None) is None  # type: ignore[arg-type]  # never looked at


@given(st.integers(0, 10**18 - 1))
def test_numbers_are_words(number: int) -> None:
    for text in (cardinal(number), ordinal(number), whole(str(number)), decimal(f"{number}.5")):
        assert text.replace(" ", "").isalpha()
        assert text == " ".join(text.split())


def test_number_speller() -> None:
    assert cardinal(1_000_001) == "one million one"
    assert ordinal(21) == "twenty first"
    assert [year(y) for y in (1066, 1905, 2000, 2010)] == [
        "ten sixty six", "nineteen oh five", "two thousand", "twenty ten",
    ]  # fmt: skip
    assert [fraction(1, 2), fraction(3, 2), fraction(5, 8)] == ["one half", "three halves", "five eighths"]
    with pytest.raises(ValueError, match="has no name"):
        cardinal(10**18)
    assert whole("9" * 30).split() == ["nine"] * 30


@given(st.integers(1, 3999))
def test_roman_numerals_have_one_form(number: int) -> None:
    signs = [("M", 1000), ("CM", 900), ("D", 500), ("CD", 400), ("C", 100), ("XC", 90), ("L", 50), ("XL", 40),
             ("X", 10), ("IX", 9), ("V", 5), ("IV", 4), ("I", 1)]  # fmt: skip
    rest, written = number, ""
    for sign, value in signs:
        written += sign * (rest // value)
        rest %= value
    assert roman(written) == number
    assert roman("I" + written) in (0, number + 1, number - 1)
    assert roman(written.lower()) == roman("") == roman("IIX") == 0
