"""What the draft model's newest frame tells, and when it tells nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.draft import DRAFT_FRAME_SAMPLES, Signals
from relay.evidence import MAX_AGE_MS, MAX_NATS, end_evidence, stop_evidence
from relay_models.draft_config import END_FRAMES, STOP_FRAMES

NATS = st.floats(-30, 30)
NOW = st.integers(0, 10_000_000)
SIGNALS = Signals(16_000, 0.5, 0.0, 0.5, end_evidence=1.5, stop_evidence=-0.5)


def test_a_frame_of_this_silence_or_speech_tells_what_its_model_says() -> None:
    assert end_evidence(SIGNALS, 16_000 + 1600, 100) == 1.5
    assert stop_evidence(SIGNALS, 16_000 + 1600, 15_900) == -0.5


def test_a_frame_from_before_tells_nothing() -> None:
    assert end_evidence(SIGNALS, 16_000 + 1600, 99) is None, "he spoke after it"
    assert stop_evidence(SIGNALS, 16_000 + 1600, 16_000) is None, "he had not begun"


def test_a_late_model_tells_nothing() -> None:
    newest, late = 16_000 + MAX_AGE_MS * 16, 16_000 + (MAX_AGE_MS + 1) * 16
    assert end_evidence(SIGNALS, newest, 600) == 1.5
    assert end_evidence(SIGNALS, late, 600) is None
    assert stop_evidence(SIGNALS, newest, 15_000) == -0.5
    assert stop_evidence(SIGNALS, late, 15_000) is None
    assert MAX_AGE_MS * 16 > DRAFT_FRAME_SAMPLES, "a model that keeps up always has a frame that is young enough"


def test_a_frame_from_so_late_in_it_that_nobody_has_measured_it_tells_nothing() -> None:
    ago = 16_000 - END_FRAMES * DRAFT_FRAME_SAMPLES
    assert end_evidence(SIGNALS, 16_160, END_FRAMES * 160 + 10) == 1.5
    assert end_evidence(SIGNALS, 16_160, END_FRAMES * 160 + 11) is None
    assert stop_evidence(SIGNALS, 16_160, 16_000 - STOP_FRAMES * DRAFT_FRAME_SAMPLES) == -0.5
    assert stop_evidence(SIGNALS, 16_160, ago) is None


@given(NOW, st.integers(0, 20_000), NATS | st.none(), st.integers(0, 5000), st.booleans())
def test_evidence_is_bounded_and_grows_with_what_the_model_says(
    until: int, age: int, nats: float | None, silence_ms: int, known: bool
) -> None:
    signals = replace(SIGNALS, until_sample=until, end_evidence=nats, stop_evidence=nats) if known else None
    ends, stops = end_evidence(signals, until + age, silence_ms), stop_evidence(signals, until + age, until - 100)
    if not known or nats is None or age > (MAX_AGE_MS + 1) * 16:
        assert ends is None
        assert stops is None
    for found in (ends, stops):
        assert found is None or found == max(-MAX_NATS, min(MAX_NATS, nats or 0.0))
    assert end_evidence(signals, until - 1 - age, silence_ms) is None or age < 8, "no frame is of the future"
