"""Whatever a client sends, and whatever the session does, the protocol keeps its promises."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import BadEvent
from relay.events import CallDelta
from relay.wire.client_events import ERROR_CODES
from relay.wire.commands import ResponseParams
from relay.wire.context import message_of
from relay.wire.realtime import MAX_BESIDE, RealtimeProtocol
from tests.wire.protocol_talk import NewProtocol, SdkParse

# One letter an event: created, item, konversation item, part, transcript, written text, audio, function's arguments;
# upper case: done.
LETTERS = {
    "response.created": "c",
    "response.output_item.added": "i",
    "conversation.item.added": "k",
    "response.content_part.added": "p",
    "response.output_audio_transcript.delta": "t",
    "response.output_text.delta": "w",
    "response.output_audio.delta": "a",
    "response.function_call_arguments.delta": "f",
    "response.output_audio.done": "A",
    "response.output_audio_transcript.done": "T",
    "response.output_text.done": "W",
    "response.function_call_arguments.done": "F",
    "response.content_part.done": "P",
    "conversation.item.done": "K",
    "response.output_item.done": "I",
    "response.done": "C",
}
SPOKEN, WRITTEN, CALL = "ikp[ta]*ATPKI", "ikpw*WPKI", "ikf*FKI"
GRAMMAR = f"c({CALL})*(({SPOKEN}|{WRITTEN})({CALL})*)?C"
UNFINISHED = f"c({CALL})*(({SPOKEN}|{WRITTEN})({CALL})*)?(ikp([ta]*|w*)|ikf*)?"


def tells(story: str, *, done: bool, in_conversation: bool) -> bool:
    """Whether the letters of a response are in a documented order."""
    grammar = GRAMMAR if done else UNFINISHED
    return re.fullmatch(grammar if in_conversation else grammar.replace("k", "").replace("K", ""), story) is not None


EVENT_TYPES = [
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.delete",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
    "relay.playback",
]
FIELDS = [
    *("event_id", "type", "audio", "item", "item_id", "previous_item_id", "content_index", "audio_end_ms", "response"),
    *("response_id", "played_samples", "session", "instructions", "role", "content", "text", "transcript", "input"),
    *("output", "format", "rate", "turn_detection", "tools", "relay", "id", "name", "arguments", "call_id", "metadata"),
    *("conversation", "tool_choice", "parameters", "output_modalities", "prompt", "truncation", "noise_reduction"),
]
VALUES = [
    "message",
    "user",
    "assistant",
    "input_text",
    "input_audio",
    "output_audio",
    "root",
    "none",
    "function",
    "transcription",
    "item_reference",
    "AAAA",
    "audio/pcm",
    "inf",
]
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([*VALUES, *EVENT_TYPES])
)
nested = st.recursive(
    leaves,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), below, max_size=4),
    max_leaves=12,
)
almost_events = st.dictionaries(st.sampled_from(FIELDS), nested, max_size=5).flatmap(
    lambda fields: st.sampled_from(EVENT_TYPES).map(lambda kind: {**fields, "type": kind})
)


def check_answers(protocol: RealtimeProtocol, sdk_parse: SdkParse) -> None:
    for frame in protocol.outgoing():
        assert isinstance(frame, str)
        event = json.loads(frame)
        if event["type"] == "error":
            assert event["error"]["code"] in ERROR_CODES
            assert len(event["error"]["message"]) < 500
        if "relay" not in event.get("session", ()):
            sdk_parse(frame)


@given(data=st.text(max_size=64) | st.binary(max_size=64))
def test_any_text_and_any_bytes_get_a_documented_answer(
    data: str | bytes, new_protocol: NewProtocol, sdk_parse: SdkParse
) -> None:
    for subprotocol in ("realtime", "relay.v1"):
        protocol = new_protocol(subprotocol=subprotocol)
        protocol.receive(data)
        check_answers(protocol, sdk_parse)


@settings(max_examples=400)
@given(events=st.lists(almost_events, max_size=4))
def test_anything_like_an_event_gets_a_documented_answer(
    events: list[Any], new_protocol: NewProtocol, sdk_parse: SdkParse
) -> None:
    protocol = new_protocol()
    for event in events:
        protocol.receive(json.dumps(event))
    check_answers(protocol, sdk_parse)


@dataclass
class Watcher:
    """A client that believes every event and notices every broken promise."""

    event_ids: set[str] = field(default_factory=set)
    order: list[str] = field(default_factory=list)
    done_items: set[str] = field(default_factory=set)
    story: dict[str, str] = field(default_factory=dict)
    response_of_item: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def see(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        assert event["event_id"] not in self.event_ids
        self.event_ids.add(event["event_id"])
        response_id = event.get("response_id") or event.get("response", {}).get("id")
        item_id = event.get("item_id") or event.get("item", {}).get("id")
        if kind == "response.output_item.added":
            assert event["output_index"] == len(
                [name for name in self.response_of_item.values() if name == response_id]
            )
            self.response_of_item[item_id] = response_id
        elif kind == "conversation.item.added":
            assert item_id not in self.order
            previous = event["previous_item_id"]
            self.order.insert(0 if previous is None else self.order.index(previous) + 1, item_id)
        elif kind == "conversation.item.done":
            assert item_id in self.order
            assert item_id not in self.done_items
            self.done_items.add(item_id)
        elif kind == "conversation.item.deleted":
            assert item_id in self.done_items
            self.order.remove(item_id)
        elif kind in ("conversation.item.retrieved", "conversation.item.truncated"):
            assert item_id in self.order
        response_id = response_id or self.response_of_item.get(item_id)
        if response_id is not None and kind in LETTERS:
            self.story[response_id] = self.story.get(response_id, "") + LETTERS[kind]
            if "delta" in kind and "audio.delta" not in kind:
                self.said[item_id] = self.said.get(item_id, "") + event["delta"]
            if kind in ("response.output_audio_transcript.done", "response.output_text.done"):
                assert event.get("transcript", event.get("text")) == self.said.get(item_id, "")
            if kind == "response.function_call_arguments.done":
                assert event["arguments"] == self.said.get(item_id, "")


picks = st.integers(0, 7)
words = st.sampled_from(["", "Hello", " there", "\n", "é"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(["system", "user", "assistant", "tool"]), picks),
        st.tuples(st.sampled_from(["retrieve", "delete", "truncate", "reference"]), picks),
        st.tuples(st.sampled_from(["speak", "commit", "cancel", "ask"])),
        st.tuples(st.sampled_from(["begin", "begin_text", "begin_aside", "begin_text_aside"])),
        st.tuples(st.just("cancel_by_id"), picks),
        st.tuples(st.just("transcript"), picks, words),
        st.tuples(st.just("audio"), picks, st.integers(0, 3)),
        st.tuples(st.just("call"), picks, st.integers(0, 2), st.sampled_from(["", "{", '"x":1}'])),
        st.tuples(st.just("heard"), picks, words),
        st.tuples(st.just("truncated"), picks, words),
        st.tuples(st.just("finish"), picks, st.sampled_from(["completed", "cancelled", "failed", "incomplete"])),
        st.tuples(st.just("configure"), st.sampled_from(["text", "audio"]), st.booleans()),
    ),
    min_size=20,
    max_size=60,
)


class Dialogue:
    """Plays steps on a protocol: those of the client as frames, those of the session as verbs."""

    def __init__(self, protocol: RealtimeProtocol) -> None:
        self.protocol = protocol
        self.ever: list[Any] = []

    def item_id(self, pick: int) -> str:
        ids = [str(item.id) for item in self.protocol.conversation.items]
        return ids[pick % len(ids)] if ids else "nobody"

    def send(self, kind: str, **fields: Any) -> None:
        self.protocol.receive(json.dumps({"type": kind, **fields}))

    def play(self, step: tuple[Any, ...]) -> None:
        protocol = self.protocol
        match step:
            case ("create", "tool", _):
                item = {"type": "function_call_output", "call_id": "c", "output": "42"}
                self.send("conversation.item.create", item=item)
            case ("create", role, pick):
                kind = "output_text" if role == "assistant" else "input_text"
                item = {"type": "message", "role": role, "content": [{"type": kind, "text": "x"}]}
                place = ["root", None, self.item_id(pick)][pick % 3]
                self.send("conversation.item.create", item=item, previous_item_id=place)
            case ("truncate", pick):
                self.send("conversation.item.truncate", item_id=self.item_id(pick), content_index=0, audio_end_ms=0)
            case ("reference", pick):
                self.send("response.create", response={"input": [{"type": "item_reference", "id": self.item_id(pick)}]})
            case ("retrieve" | "delete" as verb, pick):
                self.send(f"conversation.item.{verb}", item_id=self.item_id(pick))
            case ("speak",):
                item_id = protocol.speech_started(0)
                protocol.speech_stopped(10, item_id)
                protocol.transcription_completed(protocol.input_committed(item_id), "hello", 1.0)
            case ("commit",):
                self.send("input_audio_buffer.commit")
                protocol.input_committed()
            case ("cancel",):
                self.send("response.cancel")
            case ("cancel_by_id", pick) if self.ever:
                self.send("response.cancel", response_id=self.ever[-1 - pick % len(self.ever)].id)
            case ("ask",):
                self.send("response.create")
            case ("configure", modality, relay):
                session = {"output_modalities": [modality], "relay": {} if relay else None}
                self.send("session.update", session=session)
            case ("heard", pick, text):
                protocol.set_heard(self.item_id(pick), text)
            case ("truncated", pick, text):
                protocol.item_truncated(self.item_id(pick), 0, text)
            case (how,) if how.startswith("begin"):
                params = ResponseParams(
                    output_modalities=("text",) if "text" in how else None,
                    conversation="none" if "aside" in how else "auto",
                )
                open_beside = [each for each in self.ever if each.is_out_of_band and not each.done]
                if "aside" in how and len(open_beside) == MAX_BESIDE:
                    with pytest.raises(BadEvent):
                        protocol.begin_response(params)
                elif "aside" in how or protocol.response is None:
                    self.ever.append(protocol.begin_response(params))
            case (_, pick, *_) if self.ever:
                self.play_on(self.ever[-1 - pick % len(self.ever)], step)

    def play_on(self, response: Any, step: tuple[Any, ...]) -> None:
        """A step of a response, which may have ended."""
        match step:
            case ("transcript", _, text):
                response.transcript(text)
            case ("audio", _, samples) if response.output_modalities == ("audio",):
                was_muted = response.muted
                response.audio(bytes(2 * samples), 0)
                assert not (was_muted and self.protocol.has_outgoing)
            case ("call", _, index, arguments):
                was_muted = response.muted
                response.call(CallDelta(index, "f", arguments))
                assert not (was_muted and self.protocol.has_outgoing)
            case ("finish", _, status):
                response.finish(status, error=ValueError("x") if status == "failed" else None)


@settings(max_examples=300)
@given(steps=steps, binary=st.booleans())
def test_promises_are_kept_in_any_dialogue(
    steps: list[tuple[Any, ...]], binary: bool, new_protocol: NewProtocol, sdk_parse: SdkParse
) -> None:
    protocol = new_protocol(subprotocol="relay.v1" if binary else "realtime", max_items=20)
    protocol.open()
    dialogue, watcher = Dialogue(protocol), Watcher()
    for step in steps:
        dialogue.play(step)
        for frame in protocol.outgoing():
            if isinstance(frame, bytes):
                continue
            event = json.loads(frame)
            watcher.see(event)
            shows_relay = "relay" in event.get("session", ()) or "relay" in event.get("response", ())
            if not shows_relay and not event["type"].startswith("relay."):
                sdk_parse(frame)
        assert watcher.order == [item.id for item in protocol.conversation.items]
    for response in dialogue.ever:
        story = watcher.story[response.id]
        assert tells(story, done=response.done, in_conversation=not response.is_out_of_band), story
    spoken = [response for response in dialogue.ever if not response.is_out_of_band]
    assert all(response.done for response in spoken[:-1])
    messages = protocol.conversation.messages()
    assert all(message.text or message.calls or message.call_id for message in messages)
    assert messages == [message for item in protocol.conversation.items if (message := message_of(item)) is not None]
