"""What a client must say again when its connection was lost: settings and conversation. Sans-IO.

A Realtime session dies with its websocket. Its settings are what the client has sent; its conversation is what the
server has announced. Both are kept here and said again on a new connection: in the same order, with the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from relay.wire import client_events as ask
from relay.wire import response_events as reply_events
from relay.wire import server_events as got
from relay.wire.types import FunctionCallItem, FunctionCallOutputItem, Item, MessageItem, SessionFields

MAX_ITEMS = 500
"""Items that are remembered; the oldest are forgotten first."""

OF_THE_MOMENT = (
    ask.InputAudioBufferAppend,
    ask.InputAudioBufferCommit,
    ask.InputAudioBufferClear,
    ask.OutputAudioBufferClear,
    ask.ConversationItemTruncate,
    ask.ResponseCancel,
    ask.RelayPlayback,
)
"""What concerns audio or a response of a lost connection, and means nothing on the next."""


@dataclass(slots=True)
class _Known:
    """An item as the server announced it, and the text that came for it since."""

    item: Item
    text: str = ""
    audio_ms: float = 0.0


@dataclass(slots=True)
class Memory:
    """One session as seen from its client: pass it every event that is sent and received.

    Attributes:
        open_responses: Responses that have begun and not ended.
    """

    open_responses: set[str] = field(default_factory=set)
    _settings: dict[str, Any] = field(default_factory=dict)
    _items: dict[str, _Known] = field(default_factory=dict)
    _asked: list[ask.AnyClientEvent] = field(default_factory=list)
    _item_of: dict[str, str] = field(default_factory=dict)  # response id -> the item that it speaks

    def sent(self, event: ask.AnyClientEvent) -> None:
        """Takes an event of the client."""
        match event:
            case ask.SessionUpdate(session=session):
                _merge(self._settings, msgspec.to_builtins(session))
            case ask.ConversationItemCreate(item=item, previous_item_id=previous):
                self._place(item, previous)
            case ask.ResponseCreate():
                self._asked.append(event)
            case _:
                pass

    def restores(self, event: ask.AnyClientEvent) -> bool:
        """Whether `restore` says this event again, if it was sent and never heard of."""
        has_id = isinstance(event, ask.ConversationItemCreate) and isinstance(event.item.id, str)
        return has_id or isinstance(event, ask.SessionUpdate | ask.ResponseCreate)

    def heard(self, response_id: str, audio_ms: float) -> None:
        """Takes the length of further audio of a response."""
        if known := self._items.get(self._item_of.get(response_id, "")):
            known.audio_ms += audio_ms

    def received(self, event: got.AnyServerEvent) -> None:
        """Takes an event of the server."""
        match event:
            case got.ConversationItemAdded(item=item, previous_item_id=previous):
                self._place(item, previous)
            case got.ConversationItemDone(item=item, previous_item_id=previous):
                self._place(item, previous)
            case got.ConversationItemDeleted(item_id=item_id):
                self._items.pop(item_id, None)
            case got.ConversationItemTruncated(item_id=item_id, audio_end_ms=end_ms) if item_id in self._items:
                self._cut(self._items[item_id], end_ms)
            case got.TranscriptionCompleted(item_id=item_id, transcript=text) if item_id in self._items:
                self._items[item_id].text = text
            case reply_events.ResponseCreated(response=response):
                self.open_responses.add(response.id)
                del self._asked[:1]
            case got.Error():  # perhaps a response was refused: better asked for once too rarely than again and again
                self._asked.clear()
            case reply_events.ResponseDone(response=response):
                self.open_responses.discard(response.id)
                self._item_of.pop(response.id, None)
            case reply_events.ResponseOutputItemAdded(response_id=response_id, item=item) if isinstance(item.id, str):
                self._item_of[response_id] = item.id
            case (
                reply_events.ResponseOutputAudioTranscriptDelta(item_id=item_id, delta=delta)
                | reply_events.ResponseOutputTextDelta(item_id=item_id, delta=delta)
            ) if item_id in self._items:
                self._items[item_id].text += delta
            case _:
                pass

    def restore(self) -> tuple[list[ask.AnyClientEvent], int]:
        """What to send on a new connection, and how many items are beyond recall: speech that was never transcribed."""
        events: list[ask.AnyClientEvent] = []
        if self._settings:
            events.append(ask.SessionUpdate(session=msgspec.convert(self._settings, SessionFields)))
        items = [_again(item_id, known) for item_id, known in self._items.items()]
        events += [ask.ConversationItemCreate(item=item) for item in items if item is not None]
        events += self._asked
        self.open_responses.clear()
        self._item_of.clear()
        return events, sum(item is None for item in items)

    def _place(self, item: Item, previous_item_id: str | None) -> None:
        if not isinstance(item.id, str):
            return
        if item.id in self._items:
            self._items[item.id].item = item
            return
        known = list(self._items.items())
        at = [item_id for item_id, _ in known].index(previous_item_id) + 1 if previous_item_id in self._items else None
        known.insert(len(known) if at is None else at, (item.id, _Known(item)))
        self._items = dict(known[-MAX_ITEMS:])

    @staticmethod
    def _cut(known: _Known, end_ms: int) -> None:
        """Nobody says which words were heard: as large a part of them as of the audio."""
        words = (known.text or _text(known.item)).split()
        share = min(1.0, end_ms / known.audio_ms) if known.audio_ms else 0.0
        known.text = " ".join(words[: round(len(words) * share)])
        if isinstance(known.item, MessageItem):
            known.item = msgspec.structs.replace(known.item, content=[])


def _again(item_id: str, known: _Known) -> Item | None:
    """The item as a client creates it; None if nothing of it is known."""
    match known.item:
        case MessageItem(role=role):
            text = known.text or _text(known.item)
            kind = "output_text" if role == "assistant" else "input_text"
            content = [{"type": kind, "text": text}]
            message = {"type": "message", "id": item_id, "role": role, "content": content}
            return msgspec.convert(message, MessageItem) if text else None
        case FunctionCallItem(name=name, arguments=arguments, call_id=call_id):
            return FunctionCallItem(id=item_id, name=name, arguments=arguments, call_id=call_id)
        case FunctionCallOutputItem(call_id=call_id, output=output):
            return FunctionCallOutputItem(id=item_id, call_id=call_id, output=output)


def _text(item: Item) -> str:
    """All that is written in a message."""
    if not isinstance(item, MessageItem):
        return ""
    parts = (getattr(part, "text", None) or getattr(part, "transcript", None) for part in item.content)
    return " ".join(part for part in parts if isinstance(part, str) and part)


def _merge(into: dict[str, Any], update: dict[str, Any]) -> None:
    """Lays an update over settings, object by object; an object with a type of its own replaces another type's."""
    for name, value in update.items():
        old = into.get(name)
        if isinstance(value, dict) and isinstance(old, dict) and value.get("type") == old.get("type"):
            _merge(old, value)
        else:
            into[name] = value
