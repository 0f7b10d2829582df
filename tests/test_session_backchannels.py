"""Speech under a reply, in virtual time: a listener's words let it go on where it was, an interruption stops it."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import pytest

from relay.engine.draft import Signals
from relay.engine.ears import EarsInput, EarsOutput
from relay.services import Fast
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.fakes import FakeBrain, FakeEars
from tests.test_session import Caller, Stand, kinds, room_noise, voiced
from tests.virtual_time import run

LONG = [f"word{n} " for n in range(24)]  # 6 s
DUCKS: dict[str, Any] = {"relay": {"duck": True}, "audio": {"input": {"transcription": {"model": "relay"}}}}
INPUT = "input_audio_buffer.speech_started"


@dataclass
class StreamingEars(FakeEars):
    """Ears whose early words can be believed."""

    word_delay_ms: int | None = 160


def stand(*texts: str, ears: type[FakeEars] = StreamingEars, replies: Any = (LONG, ["All right."])) -> Stand:
    return Stand(ears(["tell me a story", *texts]), FakeBrain([list(script) for script in replies]))


async def into_the_reply(caller: Caller) -> None:
    """A turn, and a second of its answer."""
    await caller.say_one_turn()
    await caller.transport.wait_for("response.output_audio.delta")
    await caller.speak(room_noise(1.0))


def ducks(caller: Caller) -> list[tuple[float, bool]]:
    return [(at, event["ducked"]) for at, event in caller.transport.received if event["type"] == "relay.duck"]


def audio_s(caller: Caller) -> float:
    sent = caller.transport.events("response.output_audio.delta")
    return sum(len(base64.b64decode(event["delta"])) for event in sent) / 48_000


def test_a_backchannel_is_no_turn_and_the_reply_is_said_whole() -> None:
    async def main() -> None:
        async with stand("yeah").call(**DUCKS) as caller:
            await into_the_reply(caller)
            before = kinds(caller)
            now_s = asyncio.get_running_loop().time()
            await caller.speak(voiced(0.4), room_noise(1.0))
            (down_s, down), (up_s, up) = ducks(caller)
            assert (down, up) == (True, False)
            assert 0.08 <= down_s - now_s <= 0.2
            assert up_s - now_s <= 0.4 + 0.3
            told = {kind for kind in kinds(caller)[len(before) :] if not kind.startswith("response.")}
            assert told <= {"relay.duck", "relay.words", "relay.metrics"}, "the client learns of no turn"
            done = await caller.done()
            assert done["status"] == "completed"
            assert audio_s(caller) == pytest.approx(6.0)
            await caller.speak(room_noise(6.0))
            assert kinds(caller).count("response.created") == 1
            assert [m.text for m in caller.context] == ["tell me a story", "".join(LONG).strip()]
            assert caller.services.metrics.backchannels._value.get() == 1
            assert caller.services.metrics.barge_ins._value.get() == 0

    run(main())


def test_while_it_is_ducked_nothing_is_sent_beyond_the_lead_and_nothing_counts_as_heard() -> None:
    async def main() -> None:
        async with stand("yeah yeah yeah", "stop").call(**DUCKS) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(1.2), room_noise(0.5))
            (down_s, _), (up_s, _) = ducks(caller)
            sent_s = [at for at in caller.transport.times("response.output_audio.delta") if down_s + 0.2 < at < up_s]
            assert sent_s == []
            assert up_s - down_s > 1.0
            await caller.speak(voiced(0.6), room_noise(0.8))
            began_s = caller.transport.times("response.output_audio.delta")[0]
            stopped_s = ducks(caller)[2][0]
            heard = caller.context[1].text.split()
            assert abs(len(heard) - (stopped_s - began_s - (up_s - down_s)) / 0.25) <= 1
            assert (await caller.done())["status_details"]["reason"] == "turn_detected"

    run(main())


def test_an_interruption_is_told_as_it_began_and_answered() -> None:
    async def main() -> None:
        async with stand("I want something else").call(**DUCKS) as caller:
            await into_the_reply(caller)
            spoken_ms = sum(len(voiced(s)) for s in (0.4, 0.8, 0.7, 1.0)) / 48
            await caller.speak(voiced(0.8), room_noise(0.8))
            (down,) = ducks(caller)
            assert down[1], "speech_started ends it"
            started = caller.transport.events(INPUT)[1]
            assert abs(started["audio_start_ms"] + 300 - spoken_ms) <= 60
            at_s = caller.transport.times(INPUT)[1]
            assert at_s - down[0] <= 0.1
            first = await caller.done(1)
            assert (first["status"], first["status_details"]["reason"]) == ("cancelled", "turn_detected")
            order = [event["type"] for at, event in caller.transport.received if at >= at_s]
            assert order.index(INPUT) < order.index("response.done")
            assert "response.output_audio.delta" not in order[: order.index("response.done")]
            assert (await caller.done(2))["status"] == "completed"
            assert [m.text for m in caller.context][2:] == ["I want something else", "All right."]

    run(main())


@pytest.mark.parametrize(("text", "status"), [("okay", "completed"), ("a table", "cancelled"), ("", "completed")])
def test_an_end_that_comes_before_the_verdict_is_told_after_it(text: str, status: str) -> None:
    async def main() -> None:
        standing = stand(text, ears=LateEars)
        detection = {"type": "server_vad", "silence_duration_ms": 100}
        audio = {"input": {**DUCKS["audio"]["input"], "turn_detection": detection}}
        async with standing.call(**DUCKS | {"audio": audio}) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.4), room_noise(2.0))
            assert (await caller.done(1))["status"] == status
            names = [kind for kind in kinds(caller) if kind.startswith("input_") or "transcription.completed" in kind]
            each = [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.input_audio_transcription.completed",
            ]
            assert names == each * (2 if status == "cancelled" else 1)
            if status == "cancelled":
                assert (await caller.done(2))["status"] == "completed"

    run(main())


@dataclass
class LateEars(StreamingEars):
    """Shows no word before the end of the utterance."""

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> EarsOutput:
        output = await super().step(slot, x)
        return output if x.final else EarsOutput("", "", word_delay_ms=self.word_delay_ms)


def test_a_client_that_plays_on_learns_of_an_interruption_soon_and_of_a_backchannel_never() -> None:
    async def main() -> None:
        async with stand("yeah", "go back").call() as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.4), room_noise(1.0))
            assert ducks(caller) == []
            assert kinds(caller).count(INPUT) == 1
            now_s = asyncio.get_running_loop().time()
            await caller.speak(voiced(0.8), room_noise(0.8))
            assert 0.08 <= caller.transport.times(INPUT)[1] - now_s <= 0.4
            assert (await caller.done())["status"] == "cancelled"

    run(main())


@dataclass
class SlowEars(FakeEars):
    """Ears whose words can be believed, when they come."""

    word_delay_ms: int | None = 560


@pytest.mark.parametrize("ears", [FakeEars, SlowEars, StreamingEars])
@pytest.mark.parametrize("extras", [{}, {"relay": {"duck": True}}])
def test_where_nothing_is_weighed_speech_stops_the_reply_at_once(ears: type[FakeEars], extras: dict[str, Any]) -> None:
    async def main() -> None:
        early = bool(extras) or ears is StreamingEars  # of those, the beginning of a reply is the end of the turn
        async with stand("yeah", ears=ears).call(**extras) as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("response.output_audio.delta")
            await caller.speak(room_noise(0.1 if early else 1.0), voiced(0.4), room_noise(1.0))
            assert ducks(caller) == []
            assert kinds(caller).count(INPUT) == 2
            assert (await caller.done())["status"] == "cancelled"

    run(main())


def test_without_interrupt_response_nothing_is_ducked() -> None:
    async def main() -> None:
        audio = {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}
        async with stand("yeah").call(**DUCKS | {"audio": audio}) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.4), room_noise(1.0))
            assert ducks(caller) == []
            assert kinds(caller).count(INPUT) == 2
            assert (await caller.done(2))["status"] == "completed"

    run(main())


@pytest.mark.parametrize(
    "command",
    [
        {"type": "input_audio_buffer.clear"},
        {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
    ],
)
def test_a_client_that_forgets_what_is_said_lets_the_reply_go_on(command: dict[str, Any]) -> None:
    async def main() -> None:
        async with stand("yeah").call(**DUCKS) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.3))
            caller.transport.push(**command)
            assert (await caller.done())["status"] == "completed"
            assert [ducked for _, ducked in ducks(caller)] == [True, False]

    run(main())


@pytest.mark.parametrize("command", ["input_audio_buffer.commit", "response.cancel"])
def test_a_client_that_claims_the_turn_or_cancels_decides(command: str) -> None:
    async def main() -> None:
        async with stand("yeah").call(**DUCKS) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.3))
            caller.transport.push(type=command)
            await caller.speak(room_noise(1.0))
            assert (await caller.done())["status"] == "cancelled"
            assert kinds(caller).count(INPUT) == 2
            assert (await caller.done(2))["status"] == "completed"
            assert [m.text for m in caller.context][2:] == ["yeah", "All right."]

    run(main())


@pytest.mark.parametrize(("nats", "is_turn"), [(2.5, True), (1.0, False), (None, False)])
def test_a_draft_model_that_would_stop_brings_the_decision_forward(nats: float | None, is_turn: bool) -> None:
    """The recogniser's early words cannot be believed, and so short a sound was a listener's until now."""

    async def main() -> None:
        on = stand("yesterday", ears=FakeEars)
        on.fast = Fast(ScriptedDrafter(signals=Signals(0, 0.0, 0.0, 0.9, stop_evidence=nats)), ScriptedVerifier())
        async with on.call(**DUCKS) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.6), room_noise(0.8))
            assert kinds(caller).count(INPUT) == (2 if is_turn else 1)
            if is_turn:
                assert caller.transport.times(INPUT)[1] - ducks(caller)[0][0] <= 0.05

    run(main())


def test_a_client_that_stops_sending_in_the_middle_hears_the_rest_of_the_reply() -> None:
    async def main() -> None:
        async with stand("yeah", "and then").call(**DUCKS) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.3))
            await asyncio.sleep(20.0)
            assert [ducked for _, ducked in ducks(caller)] == [True, False]
            assert (await caller.done())["status"] == "completed"
            await caller.say_one_turn()
            assert (await caller.done(2))["status"] == "completed"
            assert [m.text for m in caller.context][2:] == ["and then", "All right."]

    run(main())


def test_a_client_that_leaves_while_its_reply_is_ducked_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with stand("yeah").call(**DUCKS) as caller:
            await into_the_reply(caller)
            await caller.speak(voiced(0.3))
            assert len(ducks(caller)) == 1

    run(main())
