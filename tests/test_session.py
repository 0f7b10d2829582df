"""A session against stand-in models in virtual time: order, interruption, failure, and nothing left behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from relay.audio import Resampler, decode_bytes, encode_bytes
from relay.config import Limits
from relay.errors import AudioTooFast, BrainUnavailable, SlowReader
from relay.events import Message
from relay.metrics import Metrics
from relay.services import Services
from relay.session import Session
from relay.wire.config import SessionConfig
from relay.wire.realtime import RealtimeProtocol
from tests.fakes import FakeBrain, FakeEars, FakeVoice, MemoryTransport
from tests.virtual_time import run

FRAME_S = 0.02
RNG = np.random.default_rng(7)


def room_noise(seconds: float) -> bytes:
    return (RNG.standard_normal(int(seconds * 24_000)) * 12).astype("<i2").tobytes()


def voiced(seconds: float) -> bytes:
    """A buzz with the spectrum and the tremor of a vowel: the detector takes it for speech."""
    t = np.arange(int(seconds * 24_000)) / 24_000
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 25)) * (1 + 0.5 * np.sin(2 * np.pi * 4 * t))
    return (buzz * 4000).clip(-32768, 32767).astype("<i2").tobytes()


@dataclass
class Caller:
    """A client of one session."""

    transport: MemoryTransport
    session: Session
    services: Services

    async def speak(self, *parts: bytes) -> None:
        """Sends audio in real time."""
        data = b"".join(parts)
        step = int(FRAME_S * 24_000) * 2
        for at in range(0, len(data), step):
            self.append(data[at : at + step])
            await asyncio.sleep(FRAME_S)

    def append(self, data: bytes) -> None:
        self.transport.push(type="input_audio_buffer.append", audio=base64.b64encode(data).decode())

    async def say_one_turn(self) -> None:
        await self.speak(room_noise(0.4), voiced(0.8), room_noise(0.7))

    async def done(self, count: int = 1) -> dict[str, Any]:
        return cast(dict[str, Any], (await self.transport.wait_for("response.done", count))["response"])

    @property
    def context(self) -> list[Message]:
        return list(self.session._protocol.conversation.messages())


@dataclass
class Stand:
    ears: FakeEars
    brain: FakeBrain
    voice: FakeVoice = field(default_factory=FakeVoice)
    limits: Limits = field(default_factory=Limits)
    read_delay_s: float = 0.0
    denoiser: Any = None
    speculate: bool = True
    fast: Any = None

    @contextlib.asynccontextmanager
    async def call(self, **session: Any) -> AsyncIterator[Caller]:
        transport = MemoryTransport(self.read_delay_s)
        models = (cast(Any, self.ears), cast(Any, self.voice), cast(Any, self.brain))
        services = Services(*models, Metrics(), self.limits, self.denoiser, self.speculate, self.fast)
        running = Session(transport, RealtimeProtocol(config=SessionConfig(paths=services.paths)), services)
        task = asyncio.create_task(running.run())
        caller = Caller(transport, running, services)
        greeting = asyncio.create_task(transport.wait_for("session.created"))
        await asyncio.wait([greeting, task], return_when=asyncio.FIRST_COMPLETED)
        greeting.cancel()
        if session:
            transport.push(type="session.update", session={"type": "realtime", **session})
            await transport.wait_for("session.updated")
        try:
            yield caller
        finally:
            transport.leave()
            try:
                await asyncio.wait_for(task, 60)
            finally:
                assert self.ears.open_slots == self.voice.open_slots == self.brain.running == 0
                assert asyncio.all_tasks() == {asyncio.current_task()}, "no task outlives its session"


def kinds(caller: Caller) -> list[str]:
    return [event["type"] for _, event in caller.transport.received]


def test_a_turn_is_heard_answered_and_measured() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["what is the time"], delay_s=0.01), FakeBrain([[0.2, "It is ", 0.1, "noon", "."]]))
        async with stand.call(
            audio={"input": {"transcription": {"model": "relay"}}}, relay={"playback": True}
        ) as caller:
            await caller.say_one_turn()
            done = await caller.done()
            assert done["status"] == "completed"
            assert done["output"][0]["content"][0]["transcript"] == "It is noon."
            order = kinds(caller)
            for before, after in [
                ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
                ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
                ("input_audio_buffer.committed", "conversation.item.input_audio_transcription.completed"),
                ("conversation.item.input_audio_transcription.completed", "response.created"),
                ("response.created", "response.output_audio.delta"),
                ("response.output_audio.delta", "response.output_audio.done"),
                ("response.output_audio.done", "response.done"),
            ]:
                assert order.index(before) < order.index(after)
            audio = b"".join(
                base64.b64decode(e["delta"]) for e in caller.transport.events("response.output_audio.delta")
            )
            assert len(audio) == 3 * 6000 * 2
            metrics = caller.transport.events("relay.metrics")[0]["metrics"]
            assert 480 <= metrics["stages_ms"]["endpointing"] <= 560
            assert abs(sum(metrics["stages_ms"].values()) - metrics["onset_ms"]) < 0.01
            assert [m.text for m in stand.brain.asked[0]][1:] == ["what is the time"]
            assert [(m.role, m.text) for m in caller.context] == [
                ("user", "what is the time"),
                ("assistant", "It is noon."),
            ]

    run(main())


def test_barge_in_silences_the_old_turn_and_keeps_only_the_words_played() -> None:
    async def main() -> None:
        long = [f"word{n} " for n in range(40)]
        stand = Stand(FakeEars(["tell me a story", "stop"]), FakeBrain([list(long), ["All right."]]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("response.output_audio.delta")
            began = caller.transport.times("response.output_audio.delta")[0]
            await caller.speak(room_noise(1.5), voiced(0.6), room_noise(0.8))
            first = await caller.done(1)
            assert (first["status"], first["status_details"]["reason"]) == ("cancelled", "turn_detected")
            events = [(at, e) for at, e in caller.transport.received]
            stopped_at = next(
                n for n, (_, e) in enumerate(events) if e["type"] == "input_audio_buffer.speech_started" and n > 10
            )
            late = [e for _, e in events[stopped_at:] if e.get("response_id") == first["id"] and "delta" in e["type"]]
            assert late == []
            played_s = events[stopped_at][0] - began
            heard = caller.context[1].text.split()
            assert abs(len(heard) - played_s / 0.25) <= 1
            assert heard == [word.strip() for word in long[: len(heard)]]
            assert (await caller.done(2))["status"] == "completed"
            assert [m.text for m in stand.brain.asked[1]][1:] == ["tell me a story", " ".join(heard), "stop"]

    run(main())


def test_the_clients_own_report_of_what_it_played_wins() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello", "wait"]), FakeBrain([[f"w{n} " for n in range(20)], ["Yes."]]))
        async with stand.call(relay={"playback": True}) as caller:
            await caller.say_one_turn()
            response = await caller.transport.wait_for("response.created")
            await caller.speak(room_noise(1.0))
            caller.transport.push(
                type="relay.playback", response_id=response["response"]["id"], played_samples=6000 * 2
            )
            await caller.speak(voiced(0.4))
            caller.transport.push(
                type="relay.playback", response_id=response["response"]["id"], played_samples=6000 * 3
            )
            await caller.speak(room_noise(0.8))
            await caller.done(2)
            assert caller.context[1].text == "w0 w1 w2"

    run(main())


def test_truncate_after_the_response_is_done() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([["one two three four"]]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            item = (await caller.done())["output"][0]
            caller.transport.push(
                type="conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=500
            )
            await caller.transport.wait_for("conversation.item.truncated")
            assert caller.context[1].text == "one two"
            caller.transport.push(
                type="conversation.item.truncate", item_id="nonsense", content_index=0, audio_end_ms=5, event_id="e9"
            )
            assert (await caller.transport.wait_for("error"))["error"]["event_id"] == "e9"

    run(main())


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([BrainUnavailable("no server at that address")], "Sorry"),
        ([ValueError("odd")], "Sorry"),
        ([], "Sorry"),
        (["One ", "two ", BrainUnavailable("it went away")], "One two"),
    ],
)
def test_a_failing_brain_is_heard_and_named_and_the_session_goes_on(script: list[Any], said: str) -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello", "again"]), FakeBrain([script, ["Fine."]]), speculate=False)
        async with stand.call() as caller:
            await caller.say_one_turn()
            first = await caller.done()
            assert first["status"] == "failed"
            assert first["status_details"]["error"]["code"] in ("brain_unavailable", "stage_failed")
            assert first["output"][0]["content"][0]["transcript"].startswith(said)
            assert caller.transport.events("response.output_audio.delta")
            await caller.say_one_turn()
            assert (await caller.done(2))["status"] == "completed"
            assert len(caller.transport.events("response.done")) == 2

    run(main())


def test_a_failing_voice_or_recogniser_ends_the_response_and_the_session_goes_on() -> None:
    async def main() -> None:
        stand = Stand(
            FakeEars([RuntimeError("microphone on fire"), "hello", "again", "more"]),
            FakeBrain([["One two three."], ["Never heard."], ["Four."]]),
            FakeVoice(),
            speculate=False,
        )
        async with stand.call(audio={"input": {"transcription": {"model": "relay"}}}) as caller:
            await caller.say_one_turn()
            deaf = await caller.done(1)
            assert (deaf["status"], deaf["status_details"]["error"]["code"]) == ("failed", "stage_failed")
            assert caller.transport.events("conversation.item.input_audio_transcription.failed")
            stand.voice.fails_at = 1
            await caller.say_one_turn()
            assert (await caller.done(2))["status"] == "failed"
            stand.voice.fails_at, stand.voice.busy = None, True
            await caller.say_one_turn()
            assert (await caller.done(3))["status"] == "failed"
            stand.voice.busy = False
            await caller.say_one_turn()
            assert (await caller.done(4))["status"] == "completed"

    run(main())


def test_manual_commit_and_response_create_in_one_breath() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["push to talk", "second"], delay_s=0.3), FakeBrain([["Heard."], ["Text."]]))
        async with stand.call(audio={"input": {"turn_detection": None}}) as caller:
            caller.append(voiced(1.0))
            caller.transport.push(type="input_audio_buffer.commit")
            caller.transport.push(type="response.create")
            assert (await caller.done())["status"] == "completed"
            assert stand.brain.asked[0][-1] == Message("user", "push to talk")
            assert "input_audio_buffer.speech_started" not in kinds(caller)
            caller.transport.push(type="input_audio_buffer.commit", event_id="c2")
            error = (await caller.transport.wait_for("error"))["error"]
            assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "c2")
            caller.append(voiced(0.5))
            caller.transport.push(type="input_audio_buffer.clear")
            await caller.transport.wait_for("input_audio_buffer.cleared")
            caller.transport.push(
                type="conversation.item.create",
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "typed"}]},
            )
            caller.transport.push(type="response.create", response={"output_modalities": ["text"]})
            done = await caller.done(2)
            assert done["output"][0]["content"][0] == {"type": "output_text", "text": "Text."}
            assert [m.text for m in stand.brain.asked[1]][1:] == ["push to talk", "Heard.", "typed"]

    run(main())


def test_cancel_stops_at_once_and_the_audio_lead_is_bounded() -> None:
    async def main() -> None:
        stand = Stand(
            FakeEars(["hello"]), FakeBrain([[f"w{n} " for n in range(400)]]), limits=Limits(playout_lead_s=1.0)
        )
        async with stand.call() as caller:
            await caller.say_one_turn()
            await asyncio.sleep(3.0)
            sent = caller.transport.events("response.output_audio.delta")
            sent_s = sum(len(base64.b64decode(e["delta"])) for e in sent) / 48_000
            played_s = asyncio.get_running_loop().time() - caller.transport.times("response.output_audio.delta")[0]
            assert 0.5 <= sent_s - played_s <= 1.2
            caller.transport.push(type="response.cancel")
            done = await caller.done()
            assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")
            count = len(caller.transport.received)
            await asyncio.sleep(5.0)
            assert [e["type"] for _, e in caller.transport.received[count:]] in ([], ["rate_limits.updated"])
            assert abs(len(caller.context[1].text.split()) - sent_s / 0.25) <= 1

    run(main())


def test_a_client_that_leaves_in_the_middle_of_a_reply_leaves_nothing_behind() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([[5.0, "late"]]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            await asyncio.sleep(1.0)  # the brain is thinking when the block, and with it the connection, ends
            assert stand.brain.running == 1

    run(main())


def test_a_slow_reader_is_closed_and_a_flood_of_audio_too() -> None:
    async def slow() -> None:
        stand = Stand(FakeEars([]), FakeBrain([]), read_delay_s=40.0)
        async with asyncio.timeout(600), stand.call():
            pass

    async def flood() -> None:
        stand = Stand(FakeEars(["x"] * 9, delay_s=1e6), FakeBrain([]), limits=Limits(max_audio_ahead_s=5.0))
        async with stand.call() as caller:
            for _ in range(60):
                caller.append(voiced(1.0))

    async def fast_silence() -> None:
        stand = Stand(FakeEars([]), FakeBrain([]), limits=Limits(max_audio_ahead_s=5.0))
        async with stand.call() as caller:
            for _ in range(40):  # nothing of it is heard, and it is still too fast
                caller.append(room_noise(1.0))
                await asyncio.sleep(0.8)

    async def real_time() -> None:
        stand = Stand(FakeEars([]), FakeBrain([]), limits=Limits(max_audio_ahead_s=5.0))
        async with stand.call() as caller:
            caller.append(room_noise(4.0))
            for _ in range(40):
                await asyncio.sleep(1.0)
                caller.append(room_noise(1.0))

    with pytest.raises(SlowReader):
        run(slow())
    for sending in (flood, fast_silence):
        with pytest.raises(AudioTooFast):
            run(sending())
    run(real_time())


def test_noise_gets_no_answer() -> None:
    async def main() -> None:
        stand = Stand(FakeEars([""]), FakeBrain([]))
        async with stand.call() as caller:
            await caller.say_one_turn()
            await caller.speak(room_noise(3.0))
            assert "response.created" not in kinds(caller)

    run(main())


def test_telephone_audio_both_ways() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([["One two three four."]]))
        ulaw = {"format": {"type": "audio/pcmu"}}
        async with stand.call(audio={"input": ulaw, "output": ulaw}) as caller:
            audio = b"".join([room_noise(0.4), voiced(0.8), room_noise(0.7)])
            pcm = Resampler(24_000, 8_000).step(np.frombuffer(audio, "<i2"), last=True)
            caller.append(encode_bytes(pcm, "g711_ulaw"))
            assert (await caller.done())["status"] == "completed"
            sent = b"".join(
                base64.b64decode(e["delta"]) for e in caller.transport.events("response.output_audio.delta")
            )
            assert len(sent) == 4 * 2000, "four words of 250 ms, a byte a sample at 8 kHz"
            assert abs(int(np.median(decode_bytes(sent, "g711_ulaw"))) - 1000) < 40
            assert stand.ears.heard_samples[0] > 0.8 * 16_000

    run(main())
