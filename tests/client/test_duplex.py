from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio import Int16Array
from relay.client.duplex import PacedCard, Recorder, Room, Script
from relay.client.playout import Playback, PlayoutClock


def test_room_noise_is_quiet_and_never_digital_silence() -> None:
    room = Room(seed=1, level_dbfs=-60.0)
    noise = np.concatenate([room.read(n) for n in (1, 500, 24_000 * 9)])
    assert (noise != 0).all()
    rms_dbfs = 20 * np.log10(np.sqrt(np.mean(noise.astype(float) ** 2)) / 32768)
    assert -62 < rms_dbfs < -58
    assert np.array_equal(noise[:1000], noise[8 * 24_000 :][:1000])  # a loop without a seam


@given(st.lists(st.integers(1, 300), max_size=5), st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_a_script_says_everything_where_it_promised(utterances: list[int], reads: list[int]) -> None:
    room, script = Room(seed=3), Script(Room(seed=3))
    starts = [(script.say(np.full(n, 1000, dtype=np.int16)), n) for n in utterances]
    said = np.concatenate([script.read(n) for n in reads])
    expected = room.read(sum(reads)).astype(int)
    for start, n in starts:
        expected[start : start + n] += 1000
    assert np.array_equal(said, expected)
    assert script.position == sum(reads)
    assert script.silent == (sum(utterances) <= sum(reads))


def test_loud_speech_in_noise_is_clipped_not_wrapped() -> None:
    script = Script(Room(level_dbfs=-20.0))
    script.say(np.full(5000, 32767, dtype=np.int16))
    assert script.read(5000).min() > 0


class Ending(Exception):
    pass


def test_a_paced_card_sends_plays_and_reports_on_one_clock() -> None:
    sent: list[Int16Array] = []
    reports: list[Playback] = []
    recorder = Recorder()
    playout = PlayoutClock(prebuffer_ms=0)
    reply = np.arange(1, 1201, dtype=np.int16)

    async def send(pcm: Int16Array) -> None:
        sent.append(pcm)
        if len(sent) == 2:
            playout.push("a", 0, reply)
        if len(sent) == 12:
            raise Ending

    async def report(playback: Playback) -> None:
        reports.append(playback)

    script = Script()
    card = PacedCard(script, playout, send, report=report, on_block=recorder.add, block_ms=10)
    with pytest.raises(Ending):
        asyncio.run(card.run())
    heard, played = recorder.heard(), recorder.played()
    assert np.array_equal(heard, np.concatenate(sent[:-1]))
    assert len(played) == len(heard) + 240
    span = playout.spans("a")[0]
    assert span.position >= 720  # pushed while the second block was sent: in the third block or later
    assert span.position % 240 == 0
    assert np.array_equal(played[span.position : span.position + 1200], reply)
    assert reports[-1] == Playback("a", 1200)
    assert recorder.stereo().shape == (len(heard), 2)
    assert np.array_equal(recorder.stereo()[:, 1], played[: len(heard)])
    assert card.position_at(card.started_s + 0.5) == pytest.approx(12_000)
