"""The playback ledger."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.voice import SpokenWord
from relay.heard import Ledger

WORDS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 400)), min_size=1, max_size=20)


def make(gaps_and_lengths: list[tuple[int, int]]) -> tuple[Ledger, list[SpokenWord]]:
    at, words = 0, []
    for number, (gap, length) in enumerate(gaps_and_lengths):
        words.append(SpokenWord(f"w{number}", at + gap, at + gap + length))
        at += gap + length
    ledger = Ledger()
    ledger.sent(at, words)
    return ledger, words


@given(WORDS, st.integers(0, 10_000), st.integers(0, 10_000))
def test_more_played_never_means_fewer_words(spec: list[tuple[int, int]], one: int, other: int) -> None:
    ledger, words = make(spec)
    less, more = sorted((one, other))
    assert ledger.heard(more).startswith(ledger.heard(less))
    assert ledger.heard(words[-1].end_sample) == ledger.text == " ".join(w.text for w in words)
    assert ledger.heard(0) == ""


@given(WORDS)
def test_a_word_counts_when_half_of_it_was_played(spec: list[tuple[int, int]]) -> None:
    ledger, words = make(spec)
    for number, word in enumerate(words):
        middle = (word.start_sample + word.end_sample + 1) // 2
        assert len(ledger.heard(middle).split()) == number + 1
        assert len(ledger.heard(word.start_sample).split()) == number


def test_reports_never_go_back_and_never_pass_what_was_sent() -> None:
    ledger, _ = make([(0, 100), (0, 100)])
    for report, known in ((50, 50), (30, 50), (900, 200), (-5, 200)):
        ledger.played(report)
        assert ledger.reported_samples == known
