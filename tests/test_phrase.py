"""Words that sound finished, and words that do not."""

from __future__ import annotations

import pytest

from relay.phrase import goes_on


@pytest.mark.parametrize(
    "text",
    [
        "turn on the",
        "I would like a coffee and",
        "so um",
        "because",
        "Well, I",
        "I think,",
        "it costs a hundred -",
        "THE",
    ],
)
def test_unfinished(text: str) -> None:
    assert goes_on(text)


@pytest.mark.parametrize(
    "text", ["", "no", "turn the light on", "where are you from", "I like that", "what's it for?", "yes it is", "12"]
)
def test_finished(text: str) -> None:
    assert not goes_on(text)
