"""What is measured of an engine, and who is let in: in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.load import WINDOW_S, Admission, Load
from tests.engine.served import Served


def test_what_full_batches_would_take_is_told_from_what_half_empty_ones_took() -> None:
    load = Load(16)
    for number in range(1000):  # 10 s: steps of 1 and of 3 rows, 8 ms and 1 ms a row, always busy
        rows = 1 if number % 2 else 3
        load.stepped(number / 100, rows, 0.008 + 0.001 * rows)
    assert load.busy(9.99) == pytest.approx(1.0, abs=0.001)
    assert load.used(9.99) == pytest.approx(200 * (0.001 + 0.008 / 16), rel=0.01)


def test_batches_of_one_size_tell_nothing_of_fuller_ones() -> None:
    load = Load(16)
    for number in range(500):
        load.stepped(number / 50, 2, 0.01)
    assert load.used(9.99) == pytest.approx(0.5)
    assert load.busy(9.99) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0, 0.1)), max_size=60))
def test_hardly_more_is_used_than_the_engine_was_busy(steps: list[tuple[int, float]]) -> None:
    load, now = Load(16), 100.0
    for rows, seconds in steps:
        now += seconds
        load.stepped(now, rows, seconds)
    if now < 100 + WINDOW_S - 1:  # nothing has left the window
        assert 0 <= load.used(now) <= 1.25 * load.busy(now) + 1e-9  # what a row costs is that of the newest, mostly


def test_what_is_past_is_forgotten() -> None:
    load = Load(1)
    assert (load.used(5.0), load.deadline_share(5.0)) == (0.0, 0.0)
    for number in range(100):
        load.stepped(20.0, 1, 0.05)
        load.answered(20.0, number / 100)
    assert load.used(20.0) == pytest.approx(0.5)
    assert load.deadline_share(20.0) == 15.0 / 16 + 1 / 16
    assert load.used(29.0) == pytest.approx(0.5)
    assert (load.used(31.0), load.busy(31.0), load.deadline_share(31.0)) == (0.0, 0.0, 0.0)


@given(st.lists(st.floats(allow_nan=False), min_size=40, max_size=90))
def test_the_deadline_share_is_the_p95_within_a_bin(shares: list[float]) -> None:
    load = Load(1)
    for share in shares:
        load.answered(1.0, share)
    p95 = min(max(sorted(shares)[-(-len(shares) * 95 // 100) - 1], 0.0), 2.0)
    assert p95 - 1e-9 <= load.deadline_share(1.0) <= p95 + 1 / 16 + 1e-9


def test_few_callers_are_never_refused_and_a_refusal_says_why() -> None:
    load = Load(1)
    admission = Admission({"voice": load})
    for number in range(100):
        load.stepped(number / 10, 1, 0.1)
    for callers in range(4):
        admission.count(9.99, callers)
        assert admission.refusal(9.99) is None
    admission.count(9.99, 4)
    assert admission.refusal(9.99) == "with one caller more the voice would take 500% of the time there is"
    assert Admission({"voice": load}, max_share=0.0).refusal(9.99) is None
    admission.count(30.0, 4)
    assert admission.refusal(30.0) is None  # all of it is long past


def test_late_steps_count_where_the_engine_is_busy_only() -> None:
    busy, idle = Load(16), Load(16)
    for load, seconds in ((busy, 0.06), (idle, 0.02)):
        for number in range(100):
            load.stepped(number / 10, 1 + number % 16, seconds)
            load.answered(number / 10, 1.5)
    for load, refused in ((busy, True), (idle, False)):
        admission = Admission({"ears": load})
        admission.count(0.0, 10)
        reason = admission.refusal(9.99)
        assert (reason is not None) == refused
        if reason:
            assert reason == "one step in twenty of the ears takes 156% of the time it has"


# --------------------------------------------------------------------------------------------------- a world of callers


def test_past_capacity_newcomers_are_refused_and_those_inside_stay_on_time() -> None:
    world = Served(400, seconds=30, max_share=0.8)
    assert 70 <= len(world.inside) <= 90  # 106 fill all of the time
    assert len(world.refused) == 400 - len(world.inside)
    assert sum(world.late.values()) == 0
    assert sum(Served(400, seconds=30).late.values()) > 10_000


def test_callers_who_are_silent_at_first_do_not_slip_in_beyond_what_they_will_need() -> None:
    world = Served(400, seconds=120, every_s=0.3, silent_s=4.0, max_share=0.8)
    assert 65 <= len(world.inside) <= 95
    assert sum(world.late.values()) == 0


def test_seats_that_are_given_up_are_taken_again_without_flapping() -> None:
    # Callers stay 20 s, and one comes every tenth of a second: 200 would be inside.
    world = Served(3000, seconds=300, every_s=0.1, stay_s=20.0, max_share=0.8)
    assert world.most_inside <= 95
    assert sum(world.late.values()) == 0
    assert sum(world.served) / (300 / 0.16) > 60  # what the mean caller inside was served
    # 240 callers went, and each made room for one; a newcomer every tenth of a second is let in or not on that.
    assert world.flips() < 100


def test_a_steady_load_below_the_limit_refuses_nobody() -> None:
    world = Served(3000, seconds=300, every_s=0.4, stay_s=20.0, max_share=0.8)
    assert not world.refused
    assert world.most_inside >= 49
    assert sum(world.late.values()) == 0
