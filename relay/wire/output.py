"""The items of one response on the wire: each is announced once, grows, and is closed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay.audio import Format
from relay.wire import response_events as ev
from relay.wire.conversation import Conversation
from relay.wire.outbox import Outbox
from relay.wire.server_events import ConversationItemAdded, ConversationItemDone
from relay.wire.types import FunctionCallItem, Item, ItemStatus, MessageItem, OutputAudio, OutputText


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item of a response stands.

    Attributes:
        outbox: Takes its events.
        conversation: What it becomes part of; None out of band, where only `response.*` events tell of it.
        response_id: The response.
        item_id: Id of the item.
        index: Its number within the response.
    """

    outbox: Outbox
    conversation: Conversation | None
    response_id: str
    item_id: str
    index: int


class OutputItem:
    """An item that a response makes; `item` is what became of it, once it is closed."""

    def __init__(self, place: Place) -> None:
        self.item: Item | None = None
        self._place = place
        self._outbox = place.outbox
        self._conversation = place.conversation

    def _announce(self, item: Item) -> None:
        self._outbox.send(
            ev.ResponseOutputItemAdded(
                event_id=self._outbox.event_id(),
                response_id=self._place.response_id,
                output_index=self._place.index,
                item=item,
            )
        )
        if self._conversation is not None:
            previous = self._conversation.add(self._place.item_id, item)
            self._outbox.send(
                ConversationItemAdded(event_id=self._outbox.event_id(), previous_item_id=previous, item=item)
            )

    def _conclude(self, item: Item) -> None:
        self.item = item
        if self._conversation is not None:
            self._conversation.put(self._place.item_id, item)
            previous = self._conversation.previous(self._place.item_id)
            self._outbox.send(
                ConversationItemDone(event_id=self._outbox.event_id(), previous_item_id=previous, item=item)
            )
        self._outbox.send(
            ev.ResponseOutputItemDone(
                event_id=self._outbox.event_id(),
                response_id=self._place.response_id,
                output_index=self._place.index,
                item=item,
            )
        )

    def _of_item(self) -> dict[str, Any]:
        """The fields that all events about the item's growth have."""
        return {
            "event_id": self._outbox.event_id(),
            "response_id": self._place.response_id,
            "item_id": self._place.item_id,
            "output_index": self._place.index,
        }


class MessageOutput(OutputItem):
    """What a response says, or writes. `form` is the format of its audio; None for a message of text."""

    def __init__(self, place: Place, form: Format | None) -> None:
        super().__init__(place)
        self._speaks = form is not None
        self._said: list[str] = []
        self._announce(self._message("in_progress"))
        if self._conversation is not None:
            self._conversation.put(place.item_id, self._message("in_progress", ""))
            self._conversation.get(place.item_id).audio_format = form or "pcm16"
        self._outbox.send(ev.ResponseContentPartAdded(**self._part(), part=self._shown("")))

    def write(self, delta: str) -> None:
        """More of what is said or written."""
        self._said.append(delta)
        kind = ev.ResponseOutputAudioTranscriptDelta if self._speaks else ev.ResponseOutputTextDelta
        self._outbox.send(kind(**self._part(), delta=delta))

    def speak(self, data: bytes, *, as_event: bool) -> None:
        """More audio: counted, and sent as an event unless it travels in a binary frame."""
        if self._conversation is not None:
            self._conversation.get(self._place.item_id).audio_bytes += len(data)
        if as_event:
            self._outbox.send(ev.ResponseOutputAudioDelta(**self._part(), delta=data))

    def close(self, status: ItemStatus) -> None:
        """Ends the part and the item. The item keeps what was heard, the part's events what was sent."""
        said = "".join(self._said)
        if self._speaks:
            self._outbox.send(ev.ResponseOutputAudioDone(**self._part()))
            self._outbox.send(ev.ResponseOutputAudioTranscriptDone(**self._part(), transcript=said))
        else:
            self._outbox.send(ev.ResponseOutputTextDone(**self._part(), text=said))
        self._outbox.send(ev.ResponseContentPartDone(**self._part(), part=self._shown(said)))
        heard = None if self._conversation is None else self._conversation.get(self._place.item_id).heard
        self._conclude(self._message(status, said if heard is None else heard))

    def _message(self, status: ItemStatus, text: str | None = None) -> MessageItem:
        """The item; without content while there is no text yet."""
        content = [] if text is None else [OutputAudio(transcript=text) if self._speaks else OutputText(text=text)]
        return MessageItem(
            id=self._place.item_id, object="realtime.item", status=status, role="assistant", content=list(content)
        )

    def _shown(self, text: str) -> ev.ShownPart:
        return ev.ShownPart(type="audio", transcript=text) if self._speaks else ev.ShownPart(type="text", text=text)

    def _part(self) -> dict[str, Any]:
        return {**self._of_item(), "content_index": 0}


class CallOutput(OutputItem):
    """A call of a function, whose arguments stream. `number` is which of the reply's calls it is."""

    def __init__(self, place: Place, *, number: int, name: str, call_id: str) -> None:
        super().__init__(place)
        self.number = number
        self._name = name
        self._call_id = call_id
        self._arguments: list[str] = []
        self._announce(self._call("in_progress"))

    def write(self, delta: str) -> None:
        """More of the arguments' JSON."""
        if delta:
            self._arguments.append(delta)
            self._outbox.send(
                ev.ResponseFunctionCallArgumentsDelta(**self._of_item(), call_id=self._call_id, delta=delta)
            )

    def close(self, status: ItemStatus) -> None:
        """Ends the arguments and the item."""
        self._outbox.send(
            ev.ResponseFunctionCallArgumentsDone(
                **self._of_item(), call_id=self._call_id, name=self._name, arguments="".join(self._arguments)
            )
        )
        self._conclude(self._call(status))

    def _call(self, status: ItemStatus) -> FunctionCallItem:
        return FunctionCallItem(
            id=self._place.item_id,
            object="realtime.item",
            status=status,
            name=self._name,
            call_id=self._call_id,
            arguments="".join(self._arguments),
        )
