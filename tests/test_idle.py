"""The idle timer: what it reports is quiet, and as long as the timeout."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.idle import IdleTimer


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=60), st.integers(1000, 3000))
def test_only_unbroken_quiet_of_that_length_is_reported_and_all_of_it(
    steps: list[tuple[int, bool]], timeout_ms: int
) -> None:
    timer = IdleTimer()
    now_ms = 0
    began_ms: int | None = None
    for step_ms, quiet in steps:
        now_ms += step_ms
        began_ms = (now_ms if began_ms is None else began_ms) if quiet else None
        found = timer.step(now_ms, quiet=quiet, timeout_ms=timeout_ms)
        if began_ms is not None and now_ms - began_ms >= timeout_ms:
            assert found == began_ms
            began_ms = None
        else:
            assert found is None
        assert IdleTimer().step(now_ms, quiet=True, timeout_ms=None) is None
