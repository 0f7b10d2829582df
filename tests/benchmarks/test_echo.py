from __future__ import annotations

import json
import os

import numpy as np
import pytest

from relay.cli import run
from relay.client.echo import Through
from relay_benchmarks.echo import Barge, barge_ins, echo_of, room_response, scenes, summarise


def tone(seconds: float, hz: float) -> np.ndarray:
    time_s = np.arange(int(seconds * 24_000)) / 24_000
    return (8000 * np.sin(2 * np.pi * hz * time_s)).astype(np.int16)


@pytest.mark.parametrize("level_db", [-20.0, -30.0])
def test_an_echo_has_its_level_and_comes_after_its_cause(level_db: float) -> None:
    reply = tone(1.0, 300)
    response = room_response(np.random.default_rng(1))
    echo = echo_of(reply, response, level_db)
    assert not response[:240].any()
    assert 10 * np.log10(np.sum(echo**2) / np.sum(reply.astype(float) ** 2)) == pytest.approx(level_db, abs=0.01)


def test_scenes_are_the_same_for_the_same_seed_and_the_user_is_in_his_place() -> None:
    replies, users = [tone(2.0, 300)], [tone(0.5, 900)]

    def made(user_db: float | None) -> list:  # type: ignore[type-arg]
        rooms = scenes(replies, users, count=12, echo_db=-20, user_db=user_db, seed=3)
        return [scene for room in rooms for scene in room]

    with_user, again = made(20.0), made(20.0)
    assert len(with_user) == 12
    for one, other in zip(with_user, again, strict=True):
        assert np.array_equal(one.heard, other.heard)
        assert one.user_start is not None
        assert 9_600 <= one.user_start < 28_800
        assert np.abs(one.heard[one.user_start : one.user_start + 12_000]).max() > 4000
        assert np.abs(one.heard[: one.user_start]).max() < 4000
    assert all(scene.user_start is None for scene in made(None))


def test_silence_interrupts_nothing() -> None:
    rooms = scenes([tone(2.0, 300)], [tone(0.5, 900)], count=2, echo_db=-90, user_db=None, seed=0)
    assert [barge.at for barge in barge_ins(rooms, Through, 0)] == [None, None]


def test_interruptions_are_counted_as_what_they_are() -> None:
    summary = summarise([Barge(None, None), Barge(None, 480)])
    assert summary["false_barge_ins"] == 1
    assert summary["false_rate"] == 0.5
    assert "detected" not in summary
    summary = summarise([Barge(4800, None), Barge(4800, 4800), Barge(4800, 7200), Barge(4800, 9600)])
    assert (summary["false_barge_ins"], summary["detected"], summary["detected_rate"]) == (1, 2, 0.5)
    assert summary["delay_ms"]["p50"] == 150.0
    assert summarise([Barge(None, None)] * 200)["false_rate_at_most"] == pytest.approx(0.0188, abs=1e-4)


def test_the_command_reports_every_condition(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--replies", "2", "--echo-db", "-20", "--json", "-"]
    assert run(["bench", "echo", *flags], dict(os.environ)) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {(row["control"], row["user_db"]): row for row in report["results"]}
    assert set(rows) == {("no echo", 0.0), ("no echo", 20.0)} | {
        (control, user) for control in ("off", "guard", "cancel") for user in (None, 0.0, 20.0)
    }
    assert rows["off", None]["false_barge_ins"] == 2  # without control the echo interrupts
    assert rows["guard", None]["false_barge_ins"] == rows["cancel", None]["false_barge_ins"] == 0
    assert rows["no echo", 20.0]["detected"] == 2
