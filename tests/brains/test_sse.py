from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.brains.sse import MAX_EVENT_CHARACTERS, EventTooLong, SseParser


def parse(chunks: list[bytes]) -> list[str]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.push(chunk)]
    return events + parser.end()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": ping\n\ndata: a\n: more\nid: 7\nevent: x\nretry: 1\n\n", ["a"]),
        (b"data\n\ndata:\n\n\n\n", ["", ""]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: cut off", ["cut off"]),
        (b"data: \xc3\xa9\xff\n\n", ["é\ufffd"]),
        (b"", []),
        (b"<html>\n</html>\n", []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_streams(stream: bytes, events: list[str], size: int) -> None:
    assert parse([stream[at : at + size] for at in range(0, len(stream), size)]) == events


payloads = st.lists(
    st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]), min_size=1), max_size=6
)


@given(payloads, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 300), max_size=10))
def test_any_split_gives_the_same(texts: list[str], end: str, cuts: list[int]) -> None:
    stream = "".join(f": ping{end}data: {text}{end}{end}" for text in texts).encode()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert parse([stream[a:b] for a, b in itertools.pairwise(edges)]) == texts


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_bytes(chunks: list[bytes]) -> None:
    assert parse(chunks) == parse([b"".join(chunks)])


@pytest.mark.parametrize("stream", [b"x" * 9999, b"data: " + b"x" * 9993 + b"\n"])
def test_memory_is_bounded(stream: bytes) -> None:
    parser = SseParser()
    with pytest.raises(EventTooLong):
        for _ in range(MAX_EVENT_CHARACTERS // 9000 + 1):
            parser.push(stream)
