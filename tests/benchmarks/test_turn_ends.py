"""When turns are taken by words alone and with the draft model, on silences whose every frame is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relay.events import Message
from relay_benchmarks.turn_ends import HABITS, PHASES_MS, Silence, silences, summarise, taken_after_ms
from relay_models.draft_config import Special, Trust
from relay_models.training.conversations import ASSISTANT, USER
from relay_models.training.draft_batches import Heard
from relay_models.training.draft_data import Turn
from tests.models.draft.test_draft_data import dialogue

ASKED = [Message("user", "turn the light on")]
TRUST = Trust(1.0, 0.0)
SURE, UNSURE = 0.95, 0.05  # of the draft model: 2.9 nats either way


def heard(turns: list[Turn], pauses: list[tuple[int, int]], frames: int) -> Heard:
    return Heard(torch.zeros(2 * frames, 1), torch.zeros(frames, dtype=torch.int64), turns, pauses)


def silence(lasts_ms: int, begins: float, *, is_end: bool) -> Silence:
    return Silence(ASKED, is_end, lasts_ms, [begins] * (lasts_ms // 160))


@pytest.mark.parametrize(
    ("complete", "begins", "trust", "taken_ms"),
    [
        (0.9, SURE, Trust(), 240),
        (0.9, SURE, TRUST, 160),
        (0.9, UNSURE, Trust(), 240),
        (0.9, UNSURE, TRUST, 1040),  # the last frame that counts ends at 880 ms, the next at 1040
        (0.1, SURE, TRUST, 240),
        (0.1, SURE, Trust(), 700),
        (None, SURE, TRUST, 600),
    ],
)
def test_a_turn_is_taken_as_a_session_would(complete: float | None, begins: float, trust: Trust, taken_ms: int) -> None:
    found = taken_after_ms(silence(1600, begins, is_end=True), complete, trust, 80)
    assert found is not None
    assert taken_ms <= found <= taken_ms + 20


def test_a_pause_is_taken_only_if_it_lasts() -> None:
    assert taken_after_ms(silence(320, SURE, is_end=False), 0.9, TRUST, 80) == 160
    assert taken_after_ms(silence(320, UNSURE, is_end=False), 0.9, TRUST, 80) is None
    assert taken_after_ms(silence(320, UNSURE, is_end=False), 0.9, Trust(), 80) == 240
    assert taken_after_ms(silence(160, SURE, is_end=False), 0.9, Trust(), 80) is None


@given(st.none() | st.floats(0, 1), st.lists(st.floats(0, 1), max_size=6), st.sampled_from(PHASES_MS), st.booleans())
def test_ends_are_always_taken_and_without_trust_the_draft_model_changes_nothing(
    complete: float | None, begins: list[float], phase_ms: int, is_end: bool
) -> None:
    one = Silence(ASKED, is_end, 160 * len(begins), begins)
    other = Silence(ASKED, is_end, 160 * len(begins), [0.5] * len(begins))
    assert taken_after_ms(one, complete, Trust(), phase_ms) == taken_after_ms(other, complete, Trust(), phase_ms)
    found = taken_after_ms(one, complete, TRUST, phase_ms)
    assert (found is not None and 160 <= found <= 1200) if is_end else (found is None or found < one.lasts_ms)


def test_silences_and_what_was_said_before_them() -> None:
    turns = [
        Turn(USER, "Turn on, the light.", 2, 20, "turn", "Turn on,"),
        Turn(ASSISTANT, "mm-hm", 15, 16, "backchannel"),
        Turn(ASSISTANT, "It is on.", 26, 30, "turn"),
        Turn(USER, "Thanks!", 31, 34, "turn"),
    ]
    specials = np.zeros((40, len(Special)))
    specials[:, Special.BOS] = np.arange(40) / 100
    pause, end = silences(heard(turns, [(8, 11)], 40), specials)
    assert pause == Silence([Message("user", "turn on")], False, 480, [0.08, 0.09, 0.1])
    assert end == Silence([Message("user", "turn on the light")], True, 960, [n / 100 for n in range(20, 26)])


def test_spoken_dialogues_hold_them() -> None:
    for seed in range(6):
        said = dialogue(seed, HABITS)
        frames = len(said.labels)
        found = silences(heard(said.turns, said.pauses, frames), np.zeros((frames, len(Special))))
        assert sum(each.is_end for each in found) == 2
        assert sum(not each.is_end for each in found) == len(said.pauses)
        assert all(each.lasts_ms >= 640 for each in found if each.is_end)
        assert all(each.messages[-1].role == "user" for each in found)


def test_the_report_compares_both_rules() -> None:
    found = [silence(1600, SURE, is_end=True), silence(640, UNSURE, is_end=False), silence(480, UNSURE, is_end=False)]
    report = summarise(found, [0.9, 0.9, 0.001], TRUST)
    assert (report["ends"], report["pauses"]) == (1, 2)
    assert report["words"] == {"pauses_taken": 0.5, "end_ms": {"mean": 240.0, "p50": 240.0, "p95": 240.0}}
    assert report["words_and_draft"]["pauses_taken"] < 0.5
    assert report["words_and_draft"]["end_ms"]["p50"] < 240.0
    assert summarise([], [], TRUST)["words"]["end_ms"] == {"mean": None, "p50": None, "p95": None}
    assert summarise([], [], TRUST)["words"]["pauses_taken"] is None
