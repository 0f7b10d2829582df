from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.batcher import Batcher, Job, StepTimes
from tests.engine.served import Served

verbs = st.sampled_from(["open", "step", "close"])
jobs = st.lists(st.tuples(verbs, st.integers(0, 5)), max_size=40)


def filled(batcher: Batcher[int], given_jobs: list[tuple[str, int]]) -> list[Job[int]]:
    added = [Job(slot=i, verb=verb, x=i, deadline_s=float(due)) for i, (verb, due) in enumerate(given_jobs)]
    for job in added:
        batcher.add(job)
    return added


def drained(batcher: Batcher[int]) -> list[list[Job[int]]]:
    batches = []
    while len(batcher):
        batches.append(batcher.take())
    return batches


@given(jobs, st.integers(1, 8))
def test_everything_comes_out_once_in_order(given_jobs: list[tuple[str, int]], max_batch: int) -> None:
    batcher: Batcher[int] = Batcher(max_batch=max_batch)
    added = filled(batcher, given_jobs)
    out = [job for batch in drained(batcher) for job in batch]
    # Opens and closes first, then by deadline, then by arrival.
    assert out == sorted(added, key=lambda job: (job.verb == "step", job.deadline_s, job.slot))


@given(jobs, st.integers(1, 8))
def test_a_batch_is_one_open_or_close_or_as_many_steps_as_fit(
    given_jobs: list[tuple[str, int]], max_batch: int
) -> None:
    batcher: Batcher[int] = Batcher(max_batch=max_batch)
    steps = sum(job.verb == "step" for job in filled(batcher, given_jobs))
    batches = drained(batcher)
    step_batches = [batch for batch in batches if batch[0].verb == "step"]
    assert all(len(batch) == 1 for batch in batches if batch[0].verb != "step")
    assert all(job.verb == "step" for batch in step_batches for job in batch)
    assert [len(batch) for batch in step_batches] == [max_batch] * (steps // max_batch) + [steps % max_batch] * (
        steps % max_batch > 0
    )


def test_a_late_arrival_with_an_early_deadline_goes_first() -> None:
    batcher: Batcher[int] = Batcher(max_batch=1)
    filled(batcher, [("step", 3), ("step", 2)])
    assert batcher.take()[0].slot == 1
    batcher.add(Job(slot=7, verb="step", x=0, deadline_s=1.0))
    assert [batch[0].slot for batch in drained(batcher)] == [7, 0]


def test_nothing_waits() -> None:
    with pytest.raises(IndexError):
        Batcher[int](max_batch=1).take()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40), st.integers(1, 8))
def test_urgent_steps_go_before_others(given_jobs: list[tuple[bool, int]], max_batch: int) -> None:
    batcher: Batcher[int] = Batcher(max_batch=max_batch)
    added = [Job(slot=i, verb="step", x=i, deadline_s=due, urgent=u) for i, (u, due) in enumerate(given_jobs)]
    for job in added:
        batcher.add(job)
    batches = drained(batcher)
    assert [job for batch in batches for job in batch] == sorted(
        added, key=lambda job: (not job.urgent, job.deadline_s, job.slot)
    )
    assert all(len(batch) == max_batch for batch in batches[:-1])  # urgent ones do not go with empty rows beside them


def measured(times: dict[int, float]) -> StepTimes:
    found = StepTimes(list(times))
    for rows, seconds in times.items():
        found.observe(rows, seconds)
    return found


@pytest.mark.parametrize(
    ("waiting", "sizes"),
    [
        (3, [3]),  # 4 rows take 3 s, as 2 and 1 would: one step
        (5, [4, 1]),  # 8 rows take 5.5 s, 4 and 1 take 4 s
        (7, [7]),
        (8, [8]),
        (9, [8, 1]),
    ],
)
def test_a_batch_is_cut_where_padding_costs_more(waiting: int, sizes: list[int]) -> None:
    batcher: Batcher[int] = Batcher(max_batch=8, times=measured({1: 1.0, 2: 2.0, 4: 3.0, 8: 5.5}))
    filled(batcher, [("step", 0)] * waiting)
    assert [len(batch) for batch in drained(batcher)] == sizes


@given(jobs, st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.floats(0.001, 10)))
def test_buckets_lose_nothing_and_keep_the_order(given_jobs: list[tuple[str, int]], seconds: dict[int, float]) -> None:
    times = StepTimes([1, 2, 4, 8])
    for rows, took in seconds.items():
        times.observe(rows, took)
    batcher: Batcher[int] = Batcher(max_batch=8, times=times)
    added = filled(batcher, given_jobs)
    out = [job for batch in drained(batcher) for job in batch]
    assert out == sorted(added, key=lambda job: (job.verb == "step", job.deadline_s, job.slot))


def test_estimates_are_of_the_slower_steps() -> None:
    times = StepTimes([1, 4, 16])
    assert times.estimate(1) is None
    for seconds in [0.010] * 50 + [0.020] + [0.010] * 5:
        times.observe(3, seconds)
    assert times.estimate(1) is None
    assert 0.0125 < (times.estimate(4) or 0) < 0.02
    assert times.estimate(16) == times.estimate(4)  # a larger batch is no quicker
    for _ in range(9):
        times.observe(16, 0.1)
    assert times.estimate(16) == pytest.approx(0.1)
    assert times.bucket(99) == 16


def test_within_capacity_nobody_is_late_and_all_are_served_alike() -> None:
    world = Served(80)
    assert sum(world.late.values()) == 0
    assert max(world.served) - min(world.served) <= 8 + 1  # the last one came eight periods after the first


def test_past_capacity_lateness_falls_on_all_alike() -> None:
    world = Served(160)
    per_s = [count / (60 - index / 10) for index, count in enumerate(world.served)]
    assert sum(world.late.values()) > 1000
    # Nobody is starved: the one worst off has nearly the share of the mean.
    assert min(per_s[:100]) > 0.6 * sum(per_s[:100]) / 100


def test_urgent_steps_wait_for_one_step_at_most_even_past_capacity() -> None:
    world = Served(160, urgent_every=25)
    assert len(world.waits[True]) > 100
    assert max(world.waits[True]) <= Served.step_s(16)
    assert max(world.waits[False]) > 1.0
