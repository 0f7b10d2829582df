from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.batcher import Batcher, Job

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
