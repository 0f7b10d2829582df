from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relay.client.playout import Playback, PlayoutClock, Span


def ramp(start: int, samples: int) -> np.ndarray:
    return (np.arange(start, start + samples) % 30_000 + 1).astype(np.int16)


def test_plays_at_once_without_prebuffer_and_knows_where() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.pull(7)
    assert clock.push("a", 0, ramp(0, 5)) == 5
    assert clock.pull(10).tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 0, 0]
    assert clock.spans("a") == (Span("a", 0, 7, 5),)
    assert clock.played_samples("a") == 5
    assert clock.played_samples("a", 9) == 2
    assert clock.underruns == 0  # an end is not an underrun


def test_gathers_before_it_plays_but_not_for_ever() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=20)
    clock.push("a", 0, ramp(0, 10))
    assert not clock.pull(10).any()
    assert not clock.pull(10).any()
    assert clock.pull(10).tolist() == ramp(0, 10).tolist()


def test_a_gap_in_a_response_is_an_underrun_and_the_gap_between_two_is_not() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.push("a", 0, ramp(0, 5))
    clock.pull(10)
    clock.push("a", 5, ramp(5, 5))
    clock.pull(10)
    assert (clock.underruns, clock.underrun_samples) == (1, 5)
    clock.push("b", 0, ramp(0, 5))
    clock.pull(10)
    assert (clock.underruns, clock.underrun_samples) == (1, 5)
    assert clock.spans("a") == (Span("a", 0, 0, 5), Span("a", 5, 10, 5))


def test_flush_silences_what_waits_and_what_is_still_under_way() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.push("a", 0, ramp(0, 50))
    clock.pull(10)
    assert clock.flush() == 40
    assert clock.push("a", 50, ramp(50, 10)) == 0
    assert not clock.pull(10).any()
    assert clock.played_samples("a") == 10
    clock.push("b", 0, ramp(0, 5))
    assert clock.pull(5).any()


def test_flush_between_two_arrivals_of_a_response() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.push("a", 0, ramp(0, 10))
    clock.pull(10)
    assert clock.flush() == 0
    assert clock.push("a", 10, ramp(10, 10)) == 0


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0, capacity_ms=10)
    assert clock.push("a", 0, ramp(0, 15)) == 10
    assert clock.push("a", 15, ramp(15, 5)) == 0
    assert clock.overflow_samples == 10


def test_what_arrives_after_its_block_was_due_waits_for_the_next() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.now = lambda: 10
    clock.push("a", 0, ramp(0, 10))
    clock.now = lambda: 13  # the pull that is due at 10 comes late, and so does this
    clock.push("a", 10, ramp(10, 10))
    assert not clock.pull(10).any()
    assert clock.pull(10).tolist() == ramp(0, 10).tolist()
    assert clock.pull(15).tolist() == [*ramp(10, 10).tolist(), 0, 0, 0, 0, 0]
    assert clock.underruns == 0


def test_reports_come_every_interval_and_once_at_the_end() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0, report_every_ms=100)
    clock.push("a", 0, ramp(0, 250))
    reports = []
    for _ in range(40):
        clock.pull(10)
        reports += [(clock.position, report) for report in clock.reports()]
    assert reports == [
        (10, Playback("a", 10)),
        (110, Playback("a", 110)),
        (210, Playback("a", 210)),
        (250, Playback("a", 250)),
    ]


def test_a_flush_is_reported_at_once() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0, report_every_ms=100)
    clock.push("a", 0, ramp(0, 250))
    clock.pull(10)
    clock.reports()
    clock.pull(10)
    clock.flush()
    assert clock.reports() == [Playback("a", 20)]
    assert clock.reports() == []


def test_device_latency_delays_what_counts_as_played() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0, latency_ms=30)
    clock.push("a", 0, ramp(0, 50))
    clock.pull(40)
    assert clock.played_samples("a") == 10
    clock.pull(40)
    assert clock.reports() == [Playback("a", 50)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc"), st.integers(0, 60)),
        st.tuples(st.just("pull"), st.just(""), st.integers(1, 40)),
        st.tuples(st.just("flush"), st.just(""), st.just(0)),
        st.tuples(st.just("report"), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 50), st.integers(1, 200), st.integers(0, 30))
def test_every_sample_is_played_once_in_order_dropped_or_waiting(
    steps: list[tuple[str, str, int]], prebuffer_ms: int, capacity_ms: int, latency_ms: int
) -> None:
    clock = PlayoutClock(
        1000, prebuffer_ms=prebuffer_ms, capacity_ms=capacity_ms, report_every_ms=50, latency_ms=latency_ms
    )
    pushed = dict.fromkeys("abc", 0)
    kept_total = dropped = played = pulled = 0
    flushed: set[str] = set()
    reported: dict[str, int] = {}
    track = np.zeros(0, dtype=np.int16)
    for verb, response_id, samples in steps:
        if verb == "push":
            kept = clock.push(response_id, pushed[response_id], ramp(pushed[response_id], samples))
            assert not (kept and response_id in flushed)
            pushed[response_id] += samples
            kept_total += kept
        elif verb == "pull":
            out = clock.pull(samples)
            pulled += samples
            assert len(out) == samples
            track = np.concatenate([track, out])
            played += int((out > 0).sum())
        elif verb == "flush":
            waiting = clock.buffered_samples
            assert clock.flush() == waiting
            dropped += waiting
        else:
            for report in clock.reports():
                assert report.played_samples > reported.get(report.response_id, 0)
                reported[report.response_id] = report.played_samples
        assert clock.position == pulled
        assert clock.buffered_samples <= capacity_ms
        assert kept_total == played + dropped + clock.buffered_samples
    for response_id in "abc":
        for span in clock.spans(response_id):  # the ledger says what was heard
            heard = track[span.position : span.position + span.samples]
            assert heard.tolist() == ramp(span.first_sample, span.samples).tolist()
        assert reported.get(response_id, 0) <= clock.played_samples(response_id)
    assert sum(span.samples for key in "abc" for span in clock.spans(key)) == played


def test_a_hold_is_silence_that_loses_nothing_and_counts_as_no_underrun() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.push("a", 0, ramp(0, 30))
    clock.pull(10)
    clock.hold()
    clock.push("a", 30, ramp(30, 10))
    assert not clock.pull(25).any()
    assert clock.played_samples("a") == 10
    assert clock.buffered_samples == 30
    clock.resume()
    assert clock.pull(40).tolist() == [*ramp(10, 30).tolist(), *[0] * 10]
    assert clock.spans("a") == (Span("a", 0, 0, 10), Span("a", 10, 35, 30))
    assert (clock.underruns, clock.underrun_samples) == (0, 0)
    clock.push("a", 40, ramp(40, 5))
    clock.pull(5)
    assert clock.underruns == 1, "that one was none of the hold"


def test_a_flush_ends_a_hold() -> None:
    clock = PlayoutClock(1000, prebuffer_ms=0)
    clock.push("a", 0, ramp(0, 30))
    clock.pull(10)
    clock.hold()
    assert clock.flush() == 20
    clock.push("b", 0, ramp(0, 5))
    assert clock.pull(5).any()
