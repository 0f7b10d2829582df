"""Whatever callers and models do: every response ends once, nobody is talked over, nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import BrainUnavailable
from relay.events import CallDelta, ReplyEnd
from tests.fakes import FakeBrain, FakeEars, FakeVoice
from tests.test_session import Caller, Stand, room_noise, voiced
from tests.virtual_time import run

SPEECH = voiced(0.5)
SOUND = {
    "turn": SPEECH + room_noise(0.7),
    "speech": SPEECH,
    "silence": room_noise(0.7),
    "blip": voiced(0.06),
    "short pause": room_noise(0.3),
}

ACTIONS = st.one_of(
    st.just(("sound", "turn")),
    st.sampled_from([("sound", name) for name in SOUND]),
    st.sampled_from([("wait", seconds) for seconds in (0.01, 0.4, 3.0)]),
    st.sampled_from(
        [
            ("send", {"type": "input_audio_buffer.commit"}),
            ("send", {"type": "input_audio_buffer.clear"}),
            ("send", {"type": "output_audio_buffer.clear"}),
            ("send", {"type": "response.create"}),
            ("send", {"type": "response.create", "response": {"output_modalities": ["text"]}}),
            ("send", {"type": "response.create", "response": {"conversation": "none"}}),
            (
                "send",
                {"type": "response.create", "response": {"conversation": "none", "output_modalities": ["text"]}},
            ),
            ("send", {"type": "session.update", "session": {"type": "transcription"}}),
            ("send", {"type": "session.update", "session": {"type": "realtime"}}),
            ("send", {"type": "response.cancel"}),
            ("cancel", 0),
            ("cancel", 1),
            ("send", {"type": "nonsense"}),
            ("send", {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}),
            (
                "send",
                {
                    "type": "session.update",
                    "session": {
                        "audio": {
                            "input": {
                                "turn_detection": {
                                    "type": "server_vad",
                                    "silence_duration_ms": 300,
                                    "idle_timeout_ms": 1000,
                                }
                            }
                        }
                    },
                },
            ),
            ("send", {"type": "session.update", "session": {"audio": {"output": {"format": {"type": "audio/pcmu"}}}}}),
            ("playback", 4000),
            ("truncate", 300),
        ]
    ),
)
TEXTS = st.sampled_from(["hello there", "yes", "well", "I see", "", RuntimeError("deaf")])
SCRIPTS = st.sampled_from(
    [
        ["Fine."],
        [],
        [0.3, "One ", "two."],
        ["w "] * 60,
        [0.1, *["v "] * 30],
        [BrainUnavailable("gone")],
        ["Half a ", ValueError("bad")],
        [9.0],
        [CallDelta(0, "f", "{"), 1.0, CallDelta(0, "f", "}"), CallDelta(1, "g", "{}")],
        ["One ", "moment.", CallDelta(0, "f", "{}"), ReplyEnd("length")],
        [CallDelta(0, "f", "{"), BrainUnavailable("gone")],
    ]
)


async def act(caller: Caller, action: Any) -> None:
    what, value = action
    if what == "sound":
        await caller.speak(SOUND[value])
    elif what == "wait":
        await asyncio.sleep(value)
    elif what == "send":
        caller.transport.push(**value)
    elif what == "cancel":
        if created := caller.transport.events("response.created"):
            chosen = created[-1 - value % len(created)]
            caller.transport.push(type="response.cancel", response_id=chosen["response"]["id"])
    elif replies := caller.transport.events("response.output_audio.delta"):
        last = replies[-1]
        if what == "playback":
            caller.transport.push(type="relay.playback", response_id=last["response_id"], played_samples=value)
        else:
            caller.transport.push(
                type="conversation.item.truncate", item_id=last["item_id"], content_index=0, audio_end_ms=value
            )


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ACTIONS, min_size=3, max_size=14),
    st.lists(TEXTS, min_size=1, max_size=6),
    st.lists(SCRIPTS, min_size=1, max_size=6),
    st.sampled_from([None, 0, 5]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([None, 160, 560]),
    st.sampled_from([{}, {"relay": {"duck": True}}, {"relay": {"duck": True, "playback": True}}]),
)
def test_whatever_happens(
    actions: list[Any],
    texts: list[Any],
    scripts: list[Any],
    voice_fails_at: int | None,
    delay_s: float,
    word_delay_ms: int | None,
    extras: dict[str, Any],
) -> None:
    async def main() -> None:
        stand = Stand(
            FakeEars(texts * 20, delay_s, word_delay_ms=word_delay_ms),
            FakeBrain([list(s) for s in scripts * 20]),
            FakeVoice(delay_s, voice_fails_at),
        )
        async with stand.call(**extras) as caller:
            for action in actions:
                await act(caller, action)
            if extras:  # speech under a reply is weighed as long as audio comes
                await caller.speak(room_noise(3.0))
            await asyncio.sleep(30.0)  # every reply has come to its end by now
            created = [e["response"] for e in caller.transport.events("response.created")]
            done = [e["response"] for e in caller.transport.events("response.done")]
            assert sorted(r["id"] for r in created) == sorted(r["id"] for r in done), "each ends exactly once"
            own = [[r["id"] for r in rs if r["conversation_id"] is not None] for rs in (created, done)]
            assert own[0] == own[1], "those of the conversation follow one another"
            check_calls(caller)
            check_silence_after_interruption(caller)
            check_turns(caller)
            for event in caller.transport.events("response.output_audio.delta"):
                assert base64.b64decode(event["delta"])

    run(main())


def check_calls(caller: Caller) -> None:
    """Every call is announced, grows to what its end says, and ends once."""
    growing: dict[str, str] = {}
    for _, event in caller.transport.received:
        match event["type"]:
            case "response.output_item.added" if event["item"]["type"] == "function_call":
                assert event["item"]["id"] not in growing
                growing[event["item"]["id"]] = ""
            case "response.function_call_arguments.delta":
                growing[event["item_id"]] += event["delta"]
            case "response.function_call_arguments.done":
                assert growing[event["item_id"]] == event["arguments"]
            case "response.output_item.done" if event["item"]["type"] == "function_call":
                assert growing.pop(event["item"]["id"]) == event["item"]["arguments"]
    assert growing == {}


def check_turns(caller: Caller) -> None:
    """What is ducked goes on or is stopped; a turn is told from its beginning to its end, or not at all."""
    ducked: str | None = None
    speaking: str | None = None
    for _, event in caller.transport.received:
        match event["type"]:
            case "relay.duck":
                assert (ducked is None) == event["ducked"]
                ducked = event["response_id"] if event["ducked"] else None
            case "input_audio_buffer.speech_started":
                ducked, speaking = None, event["item_id"]
            case "input_audio_buffer.speech_stopped":
                assert event["item_id"] == speaking
                speaking = None
    assert ducked is None


def check_silence_after_interruption(caller: Caller) -> None:
    """When the server stops a reply because the user speaks, nothing of it follows."""
    silenced: set[str] = set()
    speaking: str | None = None
    for _, event in caller.transport.received:
        match event["type"]:
            case "response.created" if event["response"]["conversation_id"] is not None:
                speaking = event["response"]["id"]
            case "response.output_audio.delta":
                assert event["response_id"] not in silenced
            case "input_audio_buffer.speech_started" if speaking is not None:
                silenced.add(speaking)
            case "response.done":
                if event["response"]["status"] == "cancelled":
                    silenced.add(event["response"]["id"])
