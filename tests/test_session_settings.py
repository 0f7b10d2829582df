"""What the settings of a session do: turn detection, idle timeout, transcription alone."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from relay.audio import Int16Array
from relay.engine.draft import Signals
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.events import Message
from relay.services import Fast
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.fakes import FakeBrain, FakeEars
from tests.test_session import Caller, Stand, kinds, room_noise, voiced
from tests.test_session_backchannels import StreamingEars
from tests.virtual_time import run


def detection(kind: str = "server_vad", **settings: Any) -> dict[str, Any]:
    return {"input": {"turn_detection": {"type": kind, **settings}}}


def stopped_after_ms(caller: Caller, speech_s: float) -> float:
    """From the end of a sound that began 400 ms into the audio to the server's decision that the turn is over."""
    return (
        float(caller.transport.events("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]) - 400 - speech_s * 1000
    )


@pytest.mark.parametrize(
    ("eagerness", "text", "least_ms", "most_ms"),
    [
        ("high", "turn the light on", 300, 700),
        ("low", "turn the light on", 950, 1400),
        ("auto", "turn the light on", 550, 1000),
        ("high", "turn on the", 1950, 2400),
        ("medium", "turn on the", 3950, 4400),
        ("low", "so um", 7950, 8400),
    ],
)
def test_semantic_detection_waits_for_the_rest_of_a_sentence(
    eagerness: str, text: str, least_ms: int, most_ms: int
) -> None:
    async def main() -> None:
        stand = Stand(FakeEars([text]), FakeBrain([["Yes."]]))
        async with stand.call(audio=detection("semantic_vad", eagerness=eagerness)) as caller:
            await caller.speak(room_noise(0.4), voiced(0.8), room_noise(9.0))
            assert least_ms <= stopped_after_ms(caller, 0.8) <= most_ms

    run(main())


@pytest.mark.parametrize("silence_ms", [200, 500, 1500])
def test_server_detection_waits_as_long_as_it_is_told(silence_ms: int) -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["turn on the"]), FakeBrain([["Yes."]]))
        async with stand.call(audio=detection(silence_duration_ms=silence_ms)) as caller:
            await caller.speak(room_noise(0.4), voiced(0.8), room_noise(2.5))
            assert silence_ms - 60 <= stopped_after_ms(caller, 0.8) <= silence_ms + 300

    run(main())


async def endpointing_ms(stand: Stand, audio: dict[str, Any]) -> float:
    """How long the silence was that ended a turn."""
    async with stand.call(audio=audio, relay={}) as caller:
        await caller.speak(room_noise(0.4), voiced(0.8), room_noise(1.4))
        await caller.done()
        ms: float = caller.transport.events("relay.metrics")[0]["metrics"]["stages_ms"]["endpointing"]
    return ms


@pytest.mark.parametrize(("probability", "silence_ms"), [(0.9, 240), (0.1, 700), (0.001, 800), (None, 600)])
def test_semantic_detection_asks_the_language_model_whether_the_turn_ends(
    probability: float | None, silence_ms: int
) -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["what time is it"]), FakeBrain([["Noon."], ["Noon."]]))
        if probability is not None:
            stand.brain.ends["what time is it"] = probability
        assert silence_ms <= await endpointing_ms(stand, detection("semantic_vad")) <= silence_ms + 60

    run(main())


CERTAIN = Signals(0, 0.9, 0.0, 0.0, end_evidence=2.5)


@pytest.mark.parametrize(
    ("probability", "drafter", "silence_ms"),
    [
        (0.9, ScriptedDrafter(signals=CERTAIN), 160),
        (0.2, ScriptedDrafter(signals=CERTAIN), 240),
        (0.9, ScriptedDrafter(signals=replace(CERTAIN, end_evidence=0.0)), 600),
        (0.9, ScriptedDrafter(signals=replace(CERTAIN, end_evidence=-2.5)), 800),
        (0.9, ScriptedDrafter(signals=replace(CERTAIN, end_evidence=None)), 240),
        (0.9, ScriptedDrafter(), 240),
        (0.9, ScriptedDrafter(signals=CERTAIN, step_s=1.0), 240),
        (0.9, ScriptedDrafter(signals=CERTAIN, fails_at=1), 240),
        (0.9, ScriptedDrafter(signals=CERTAIN, busy=True), 240),
        (None, ScriptedDrafter(signals=CERTAIN), 600),
    ],
    ids=[
        "both",
        "against_words",
        "open",
        "against_draft",
        "untrusted",
        "silent",
        "late",
        "failing",
        "busy",
        "unjudged",
    ],
)
def test_semantic_detection_weighs_the_draft_models_view_where_there_is_one(
    probability: float | None, drafter: ScriptedDrafter, silence_ms: int
) -> None:
    async def main() -> None:
        ears, fast = StreamingEars(["what time is it"]), Fast(copy.deepcopy(drafter), ScriptedVerifier())
        stand = Stand(ears, FakeBrain([["Noon."], ["Noon."]]), fast=fast)
        if probability is not None:
            stand.brain.ends["what time is it"] = probability
        assert silence_ms <= await endpointing_ms(stand, detection("semantic_vad")) <= silence_ms + 60

    run(main())


def test_a_reply_is_prepared_before_a_turn_that_has_certainly_ended_is_taken() -> None:
    async def main() -> None:
        drafter = ScriptedDrafter(signals=CERTAIN)
        stand = Stand(
            StreamingEars(["what time is it"]), FakeBrain([["Noon."]]), fast=Fast(drafter, ScriptedVerifier())
        )
        stand.brain.ends["what time is it"] = 0.9
        async with stand.call(audio=detection("semantic_vad"), relay={"metrics": True}) as caller:
            await caller.speak(room_noise(0.4), voiced(0.8))
            asked_before = 0
            while "input_audio_buffer.speech_stopped" not in kinds(caller):
                asked_before = len(drafter.asked)
                await caller.speak(room_noise(0.02))
            await caller.speak(room_noise(1.0))
            await caller.done()
            assert asked_before == len(drafter.asked) == 1

    run(main())


def test_without_semantic_detection_the_draft_models_view_changes_nothing() -> None:
    async def main() -> None:
        ears, fast = StreamingEars(["what time is it"]), Fast(ScriptedDrafter(signals=CERTAIN), ScriptedVerifier())
        stand = Stand(ears, FakeBrain([["Noon."], ["Noon."]]), fast=fast)
        assert 500 <= await endpointing_ms(stand, detection(silence_duration_ms=500)) <= 560

    run(main())


def test_padding_is_audio_before_the_speech() -> None:
    async def main(padding_ms: int) -> int:
        stand = Stand(FakeEars(["hello"]), FakeBrain([["Yes."]]))
        async with stand.call(audio=detection(prefix_padding_ms=padding_ms)) as caller:
            await caller.speak(room_noise(5.0), voiced(0.8), room_noise(0.7))
            await caller.done()
            return stand.ears.heard_samples[0]

    none, usual, long = (run(main(padding_ms)) / 16 for padding_ms in (0, 300, 4000))
    # A burst of noise just before the speech may move its start by a frame or two.
    assert abs(usual - none - 300) <= 60
    assert abs(long - usual - 3700) <= 60


def test_without_create_response_the_client_asks() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([["Yes."]]))
        async with stand.call(audio=detection(create_response=False)) as caller:
            await caller.say_one_turn()
            await caller.speak(room_noise(2.0))
            assert "response.created" not in kinds(caller)
            caller.transport.push(type="response.create")
            assert (await caller.done())["status"] == "completed"

    run(main())


def test_without_interrupt_response_a_reply_is_said_to_its_end_and_then_the_turn_is_answered() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello", "and you"]), FakeBrain([[f"w{n} " for n in range(16)], ["Fine."]]))
        async with stand.call(audio=detection(interrupt_response=False)) as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("response.output_audio.delta")
            await caller.say_one_turn()
            assert (await caller.done(1))["status"] == "completed"
            assert (await caller.done(2))["output"][0]["content"][0]["transcript"] == "Fine."

    run(main())


def test_a_change_that_does_not_touch_how_turns_are_found_leaves_the_turn_alone() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([["Yes."]]))
        async with stand.call() as caller:
            await caller.speak(room_noise(0.4), voiced(0.5))
            caller.transport.push(
                type="session.update", session={"audio": detection(create_response=True, interrupt_response=False)}
            )
            await caller.speak(voiced(0.3), room_noise(0.7))
            assert (await caller.done())["status"] == "completed"
            assert len(caller.transport.events("input_audio_buffer.speech_started")) == 1

    run(main())


def test_too_long_a_silence_is_committed_and_answered_again_and_again() -> None:
    async def main() -> None:
        brain = FakeBrain([["One two three four."], ["Are you there?"], ["Still there?"]])
        stand = Stand(FakeEars(["hello"]), brain)
        audio = {"input": {**detection(idle_timeout_ms=5000)["input"], "transcription": {"model": "relay"}}}
        async with stand.call(audio=audio) as caller:
            await caller.speak(room_noise(8.0))
            assert "input_audio_buffer.timeout_triggered" not in kinds(caller), "nothing has been answered yet"
            await caller.say_one_turn()
            await caller.speak(room_noise(15.0))
            triggered = caller.transport.events("input_audio_buffer.timeout_triggered")
            assert len(triggered) == 2
            first = triggered[0]
            assert 5000 <= first["audio_end_ms"] - first["audio_start_ms"] <= 5100
            spoke_until_ms = 8000 + 400 + 800
            assert first["audio_start_ms"] >= spoke_until_ms + 500 + 1000, "it counts from the end of the playback"
            order = kinds(caller)
            at = order.index("input_audio_buffer.timeout_triggered")
            assert order[at : at + 6] == [
                "input_audio_buffer.timeout_triggered",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                "conversation.item.input_audio_transcription.completed",
                "response.created",
            ]
            committed = caller.transport.events("input_audio_buffer.committed")[1]
            assert committed["item_id"] == first["item_id"]
            assert brain.asked[1][-2:] == [
                Message("assistant", "One two three four."),
                Message("user", "(The user has said nothing for a while.)"),
            ]

    run(main())


@pytest.mark.parametrize("settings", [{"create_response": False}, {"idle_timeout_ms": None}])
def test_no_timeout_where_none_is_wanted(settings: dict[str, Any]) -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello"]), FakeBrain([["Yes."]]))
        async with stand.call(audio=detection(**{"idle_timeout_ms": 5000, **settings})) as caller:
            await caller.say_one_turn()
            await caller.speak(room_noise(9.0))
            assert "input_audio_buffer.timeout_triggered" not in kinds(caller)

    run(main())


def test_a_transcription_session_transcribes_and_says_nothing() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello", "again"]), FakeBrain([]))
        async with stand.call(type="transcription", audio=detection(idle_timeout_ms=5000)) as caller:
            await caller.say_one_turn()
            await caller.say_one_turn()
            await caller.speak(room_noise(8.0))
            completed = caller.transport.events("conversation.item.input_audio_transcription.completed")
            assert [event["transcript"] for event in completed] == ["hello", "again"]
            assert not {kind for kind in kinds(caller) if kind.startswith("response.")}
            caller.transport.push(type="response.create", event_id="e")
            assert (await caller.transport.wait_for("error"))["error"]["code"] == "transcription_session"

    run(main())


def test_a_manual_transcription_session() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["by hand"]), FakeBrain([]))
        async with stand.call(type="transcription", audio={"input": {"turn_detection": None}}) as caller:
            caller.append(voiced(1.0))
            caller.transport.push(type="input_audio_buffer.commit")
            completed = await caller.transport.wait_for("conversation.item.input_audio_transcription.completed")
            assert completed["transcript"] == "by hand"

    run(main())


class SureEars(FakeEars):
    """Ears that say how sure they are, and whose first word is stable at once."""

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> EarsOutput:
        output = await super().step(slot, x, deadline_s=deadline_s)
        stable = output.stable if output.final else output.unstable.split()[0]
        words = tuple(Word(text, 0, 1, 0.5) for text in stable.split())
        return EarsOutput(stable, "", words, output.final)


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_a_transcription_session_is_told_words_as_soon_as_they_are_stable(kind: str) -> None:
    async def main() -> None:
        stand = Stand(SureEars(["good night"]), FakeBrain([["Good night."]]))
        transcription = {"input": {"transcription": {"model": "relay"}}}
        include = ["item.input_audio_transcription.logprobs"]
        async with stand.call(type=kind, audio=transcription, include=include) as caller:
            await caller.say_one_turn()
            await caller.transport.wait_for("conversation.item.input_audio_transcription.completed")
            deltas = caller.transport.events("conversation.item.input_audio_transcription.delta")
            told = [(event["delta"], [entry["token"] for entry in event["logprobs"]]) for event in deltas]
            committed_at = kinds(caller).index("input_audio_buffer.committed")
            first_at = kinds(caller).index("conversation.item.input_audio_transcription.delta")
            if kind == "transcription":
                assert told == [("good", ["good"]), (" night", [" night"])]
                assert first_at < committed_at
            else:
                assert told == [("good night", ["good", " night"])]
                assert first_at > committed_at

    run(main())


def test_how_sure_the_recogniser_is() -> None:
    async def main() -> None:
        stand = Stand(SureEars(["good night"]), FakeBrain([["Good night."]]))
        transcription = {"input": {"transcription": {"model": "relay"}}}
        include = ["item.input_audio_transcription.logprobs"]
        async with stand.call(audio=transcription, include=include) as caller:
            await caller.say_one_turn()
            event = await caller.transport.wait_for("conversation.item.input_audio_transcription.completed")
            assert [(entry["token"], round(entry["logprob"], 2)) for entry in event["logprobs"]] == [
                ("good", -0.69),
                (" night", -0.69),
            ]
            await caller.done()

    run(main())


class Denoiser:
    """Noise suppression that counts what it is given."""

    samples = 0

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        yield 0

    async def step(self, slot: int, x: EarsInput, *, deadline_s: float = 0.0) -> Int16Array:
        self.samples += len(x.pcm)
        return x.pcm


@pytest.mark.parametrize("noise_reduction", [None, {"type": "far_field"}])
def test_noise_is_reduced_where_that_is_asked_for(noise_reduction: dict[str, str] | None) -> None:
    async def main() -> None:
        denoiser = Denoiser()
        stand = Stand(FakeEars(["hello"]), FakeBrain([["Yes."]]), denoiser=denoiser)
        async with stand.call(audio={"input": {"noise_reduction": noise_reduction}}) as caller:
            await caller.say_one_turn()
            await caller.done()
            assert denoiser.samples == (0 if noise_reduction is None else stand.ears.heard_samples[0])

    run(main())


def test_a_reply_asked_for_before_a_session_became_one_of_transcription_is_still_interrupted() -> None:
    async def main() -> None:
        stand = Stand(FakeEars(["hello", "stop"]), FakeBrain([["w "] * 60]), speculate=False)
        async with stand.call() as caller:
            await caller.speak(voiced(0.5), room_noise(0.6))  # the request waits behind the end of this turn
            caller.transport.push(type="response.create")
            caller.transport.push(type="session.update", session={"type": "transcription"})
            await caller.transport.wait_for("response.output_audio.delta")
            await caller.speak(voiced(0.6), room_noise(0.7))
            done = await caller.done()
            assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")

    run(main())
