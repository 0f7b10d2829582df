from __future__ import annotations

import itertools
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.brains.filters import OverlapFilter, ThinkFilter
from relay.handoff import continuation


class Filter(Protocol):
    def push(self, piece: str) -> str: ...

    def end(self) -> str: ...


def run(filter_: Filter, pieces: list[str]) -> str:
    return "".join([filter_.push(piece) for piece in pieces] + [filter_.end()])


def split(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


cut_lists = st.lists(st.integers(0, 120), max_size=12)


@pytest.mark.parametrize(
    ("stream", "spoken"),
    [
        ("Hello.", "Hello."),
        ("<think>hm</think>\n\nHello.", "Hello."),
        ("<thinking>hm <b></thinking>Hello.", "Hello."),
        ("Well, <think>hm</think> yes.", "Well, yes."),
        ("<think>a</think><think>b</think> c", "c"),
        ("<think>never ends", ""),
        ("a < b and <thin> ice <thi", "a < b and <thin> ice <thi"),
        ("stray </think> end", "stray end"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_thoughts_are_not_spoken(stream: str, spoken: str, size: int) -> None:
    assert run(ThinkFilter(), [stream[at : at + size] for at in range(0, len(stream), size)]) == spoken


@given(st.lists(st.sampled_from(["<think>", "</think>", "<thinking>", "</thinking>", "<th", "a", " ", "<"])), cut_lists)
def test_thoughts_in_any_split(parts: list[str], cuts: list[int]) -> None:
    stream = "".join(parts)
    assert run(ThinkFilter(), split(stream, cuts)) == run(ThinkFilter(), [stream])


@given(st.text(st.characters(exclude_characters="<"), max_size=40))
def test_text_without_tags_is_not_held_back(text: str) -> None:
    assert ThinkFilter().push(text) == text


@pytest.mark.parametrize(
    ("prefix", "stream", "spoken"),
    [
        ("Sure, I can", "book a table.", " book a table."),
        ("Sure, I can", " book a table.", " book a table."),
        ("Sure, I can", "Sure, I can book a table.", " book a table."),
        ("Sure, I can", "sure i CAN book a table.", " book a table."),
        ("Sure, I can", "...I can book a table.", " book a table."),
        ("Sure, I can", "can, of course, help.", " of course, help."),
        ("Sure, I can", "Sure, I could", " Sure, I could"),
        ("Sure, I can", "Sure, I can", ""),
        ("Sure, I can", "Sure, I ca", " Sure, I ca"),
        ("Sure, I can", ", of course", ", of course"),
        ("Sure, I can ", " help.", "help."),
        ("We can and we", "we can and we do", " do"),
        ("we can we", "we can help", " can help"),
        ("", " Hello there.", "Hello there."),
        ("...", "Hello.", " Hello."),
        ("Sure", "", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_what_was_said_is_not_said_again(prefix: str, stream: str, spoken: str, size: int) -> None:
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert run(OverlapFilter(prefix), pieces) == spoken


words = st.lists(st.sampled_from(["We", "can,", "do", "it", "and", "well.", "don't"]), max_size=6)


@given(words, words, cut_lists, st.data())
def test_any_repetition_in_any_split(said: list[str], more: list[str], cuts: list[int], data: st.DataObject) -> None:
    """The longest run of words that ends what was said and begins the stream is gone, and nothing else is."""
    repeated = data.draw(st.integers(0, len(said)))
    prefix = " ".join(said)
    stream = " ".join(word.swapcase() for word in said[len(said) - repeated :]) + " " + " ".join(more)
    spoken = run(OverlapFilter(prefix), split(stream, cuts))
    assert spoken == run(OverlapFilter(prefix), [stream])
    given_words, left = stream.split(), spoken.split()
    dropped = len(given_words) - len(left)
    assert left == given_words[dropped:]
    assert dropped >= repeated
    plain = [word.casefold().strip(",.") for word in said]
    heard = [word.casefold().strip(",.") for word in given_words]
    assert all(plain[len(plain) - k :] != heard[:k] for k in range(dropped + 1, min(len(plain), len(heard)) + 1))
    assert heard[:dropped] == plain[len(plain) - dropped :]


marks = st.sampled_from(["", ",", "...", '"', " -", "!", "'"])


@given(
    st.lists(st.sampled_from(["Sure,", "I", "can", "do", "that", "we"]), min_size=1, max_size=7),
    st.lists(st.sampled_from(["book", "a", "table", "tonight."]), max_size=5),
    st.sampled_from(["nothing", "all", "tail"]),
    st.lists(marks, min_size=12, max_size=12),
    cut_lists,
    st.data(),
)
def test_an_instructed_model_may_echo_as_it_likes(
    said: list[str], more: list[str], echo: str, noise: list[str], cuts: list[int], data: st.DataObject
) -> None:
    """Repeated in whole or from any word on, in other case, with marks around, in any split: only the rest is left.

    No word of the rest occurs in what was said, so what must be left is known.
    """
    first = {"nothing": len(said), "all": 0, "tail": data.draw(st.integers(0, len(said)))}[echo]
    echoed = [noise[place % 12] + word.upper() + noise[-place % 12] for place, word in enumerate(said[first:])]
    prefix = " ".join(said) + data.draw(st.sampled_from(["", " "]))
    spoken = run(OverlapFilter(prefix), split(" ".join([*echoed, *more]), cuts))
    assert continuation(spoken).split() == more, "marks by themselves are dropped by the hand-off"
    if more and not prefix.endswith(" "):
        assert spoken.startswith(" "), "its first word is not glued to what was said"


def test_a_stream_that_repeats_nothing_is_not_held_back() -> None:
    overlap = OverlapFilter("Sure, I can")
    assert overlap.push("s") == ""
    assert overlap.push("o") == " so"
    assert OverlapFilter("I can hel", add_space=False).push("p you") == "p you"
