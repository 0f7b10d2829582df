"""What a draft model's signals tell of turn ends and interruptions: which frames count, and what is made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.draft_config import END_FRAMES, Special, Trust
from relay_models.draft_export import trust_of
from relay_models.loading import WeightsError
from relay_models.training.conversations import ASSISTANT, USER, Habits
from relay_models.training.draft_data import FRAME_SAMPLES, Spoken, Turn
from relay_models.training.draft_turns import (
    LEAST_EXAMPLES,
    TurnSignals,
    Watched,
    area_at,
    fit,
    trade_off,
)
from tests.models.draft.test_draft_data import TOKENIZER, dialogue

PROBABILITY = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0])
WATCHED = st.builds(Watched, st.booleans(), st.lists(PROBABILITY, max_size=5))
MANY = st.lists(WATCHED, max_size=30)


def oracle(said: Spoken) -> np.ndarray:
    """What a model would say that knows the labels."""
    return (np.array(said.labels)[:, None] == TOKENIZER.size + np.arange(len(Special))).astype(np.float64)


@pytest.mark.parametrize("seed", range(12))
def test_silences_are_watched_while_nobody_speaks(seed: int) -> None:
    said = dialogue(seed, Habits(paused_share=0.8, barge_in_share=0.4, backchannel_share=0.6, late_share=0.5))
    numbers = np.repeat(np.arange(len(said.labels), dtype=np.float64)[:, None], len(Special), axis=1)
    signals = TurnSignals()
    signals.add(said.turns, said.pauses, numbers)
    pauses = [each for each in signals.silences if not each.is_true]
    assert [each.probabilities[0] for each in pauses] == [first for first, _ in said.pauses]
    assert all(len(each.probabilities) >= 1 for each in pauses), "the shortest lasts 300 ms"
    ends = [each.probabilities for each in signals.silences if each.is_true]
    replies = [turn for turn in said.turns if turn.speaker == ASSISTANT and turn.kind == "turn"]
    assert len(ends) == len(replies)
    for frames, reply in zip(ends, replies, strict=True):
        assert list(frames) == list(range(reply.first - len(frames), reply.first))
        (before,) = [t for t in said.turns if t.speaker == USER and t.last == (frames[0] if frames else reply.first)]
        assert before.kind != "backchannel"
        begin = next(at for at in range(reply.first, len(said.labels)) if said.labels[at] == TOKENIZER.size + 1)
        assert begin >= reply.first, "the model has not begun in any of them"
    for frames in [each.probabilities for each in signals.silences]:
        for frame in frames[1:]:  # in the first the user was still to be heard
            part = said.pcm[int(frame) * FRAME_SAMPLES : (int(frame) + 1) * FRAME_SAMPLES].astype(np.float64)
            assert part.std() < 0.5 * said.pcm.std(), "nobody speaks"


def test_speech_under_a_reply_is_an_interruption_or_a_backchannel() -> None:
    signals = TurnSignals()
    for seed in range(60):
        said = dialogue(seed, Habits(barge_in_share=0.5, backchannel_share=1.0, paused_share=0.0))
        signals.add(said.turns, said.pauses, oracle(said))
    interruptions = [each.probabilities for each in signals.overlaps if each.is_true]
    assert len(interruptions) >= 10
    assert all(tuple(each) in ((0.0, 1.0), (0.0, 0.0)) for each in interruptions), "it is due in the second frame"
    assert sum(each[1] for each in interruptions) >= 0.5 * len(interruptions), "or the reply was over before it"
    turns = [Turn(USER, "hi", 0, 3, "turn"), Turn(ASSISTANT, "well", 5, 20, "turn")]
    heard = [Turn(USER, "yeah", 9, 10, "backchannel"), Turn(ASSISTANT, "right", 2, 3, "backchannel")]
    signals = TurnSignals()
    signals.add([*turns, *heard], [], np.full((30, len(Special)), 0.25))
    assert signals.overlaps == [Watched(False, [0.25, 0.25])]
    assert signals.silences == [Watched(True, [0.25, 0.25])]


@given(MANY, st.integers(0, 3))
def test_the_area_is_that_of_those_that_last(watched: list[Watched], frame: int) -> None:
    good, bad = (
        [each.probabilities[frame] for each in watched if each.is_true == kind and len(each.probabilities) > frame]
        for kind in (True, False)
    )
    area = area_at(watched, frame)
    if not good or not bad:
        assert math.isnan(area)
        return
    wins = [(g > b) + 0.5 * (g == b) for g in good for b in bad]
    assert area == pytest.approx(sum(wins) / len(wins))


@given(MANY, st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_no_more_pauses_are_taken_than_may_be_and_noticing_only_grows(watched: list[Watched], share: float) -> None:
    found = trade_off(watched, share)
    taken, threshold, noticed = found["takeovers"], found["threshold"], found["noticed"]
    assert isinstance(threshold, float)
    assert isinstance(noticed, list)
    assert taken is None or taken <= share + 1e-4
    known = [each for each in noticed if each is not None]
    assert len(noticed) == END_FRAMES
    assert known == sorted(known)
    whole = [each for each in watched if each.is_true and len(each.probabilities) >= END_FRAMES]
    if whole:  # without any that are cut short, it is the plain share
        bad = [each for each in watched if not each.is_true]
        (last,) = trade_off([*whole, *bad], share)["noticed"][-1:]  # type: ignore[index]
        plain = [any(p > threshold for p in each.probabilities[:END_FRAMES]) for each in whole]
        assert last == pytest.approx(sum(plain) / len(plain), abs=1e-4)


def test_silences_that_are_cut_short_by_chance_change_nothing() -> None:
    chance = np.random.default_rng(0)
    whole = [Watched(True, chance.choice([0.2, 0.8], size=END_FRAMES, p=[0.7, 0.3]).tolist()) for _ in range(4000)]
    cut = [Watched(True, each.probabilities[: int(chance.integers(1, END_FRAMES + 1))]) for each in whole]
    pauses = [Watched(False, [0.5])] * 20
    expected = [1 - 0.7**frames for frames in range(1, END_FRAMES + 1)]
    for watched in (whole, cut):
        assert trade_off([*watched, *pauses], 0.05)["noticed"] == pytest.approx(expected, abs=0.04)


def test_evidence_is_the_likelihood_ratio_whatever_share_ends() -> None:
    chance = np.random.default_rng(0)

    def draw(is_true: bool, count: int) -> list[Watched]:
        log_odds = chance.normal((1 if is_true else -1) - 2, 1, size=(count, END_FRAMES))
        return [Watched(is_true, row) for row in (1 / (1 + np.exp(-log_odds))).tolist()]

    trust = fit([*draw(True, 4000), *draw(False, 1000)], END_FRAMES)
    assert trust.weight == pytest.approx(2, abs=0.2)  # of normal densities at +-1 with deviation 1, shifted by -2
    assert trust.bias == pytest.approx(4, abs=0.4)
    assert fit([*draw(True, LEAST_EXAMPLES // (END_FRAMES + 1)), *draw(False, 1000)], END_FRAMES) == Trust(), "too few"
    mixed = [Watched(bool(n % 2), each.probabilities) for n, each in enumerate(draw(True, 1000))]
    assert fit(mixed, END_FRAMES) == Trust(), "nothing to tell them apart by"
    upside_down = [Watched(not each.is_true, each.probabilities) for each in draw(True, 500) + draw(False, 500)]
    assert fit(upside_down, END_FRAMES) == Trust()


def test_the_report_is_what_the_export_reads(tmp_path: Path) -> None:
    signals = TurnSignals()
    for seed in range(40):
        said = dialogue(seed)
        signals.add(said.turns, said.pauses, 0.2 + 0.5 * oracle(said))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(signals.report(), allow_nan=False))
    assert trust_of(path, "turn_ends") == Trust(), "an oracle begins when it does, and no silence before that"
    stops = trust_of(path, "stops")
    assert stops == Trust(**json.loads(path.read_text())["trust"]["stops"])
    assert {"end_auc_160", "end_auc_480", "stop_auc_320"} <= set(signals.scores())
    path.write_text('{"trust": {"turn_ends": {"weight": -1, "bias": 0}}}')
    for name in ("turn_ends", "stops"):
        with pytest.raises(WeightsError, match="draft_eval"):
            trust_of(path, name)
