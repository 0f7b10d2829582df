"""The items of a conversation, in order: what was said, by whom, and how much of it was heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from relay.audio import BYTES_PER_SAMPLE, RATE_HZ, Format
from relay.errors import BadEvent
from relay.events import Message
from relay.wire.context import message_of, words_of
from relay.wire.types import (
    MAX_ID_CHARS,
    ContentPart,
    FunctionCallItem,
    InputAudio,
    InputImage,
    InputText,
    Item,
    MessageItem,
    OutputAudio,
    OutputText,
)

ROOT: Final = "root"
"""As `previous_item_id`: before every other item."""

MAX_CHARS = 2_000_000
"""Text that a conversation holds before a client's additions are refused."""

_PARTS_OF_ROLE: dict[str, tuple[type[ContentPart], ...]] = {
    "system": (InputText,),
    "user": (InputText, InputAudio),
    "assistant": (OutputText, OutputAudio),
}


@dataclass(slots=True)
class Entry:
    """An item and what the server knows beside it.

    Attributes:
        item: The item as clients see it.
        heard: The words that were heard, if playback ended early.
        audio_bytes: Audio sent for it so far, in `audio_format`.
        audio_format: Format of that audio.
        message: The item as a language model is given it, if it is. Kept, as every reply of a long call is given all.
    """

    item: Item
    heard: str | None = None
    audio_bytes: int = 0
    audio_format: Format = "pcm16"
    message: Message | None = field(init=False)

    def __post_init__(self) -> None:
        """Makes its message."""
        self.message = message_of(self.item)

    def put(self, item: Item) -> None:
        """Another item in its place."""
        self.item, self.message = item, message_of(item)

    @property
    def audio_ms(self) -> int:
        """Duration of the audio sent, rounded up."""
        samples = self.audio_bytes // BYTES_PER_SAMPLE[self.audio_format]
        return -(-samples * 1000 // RATE_HZ[self.audio_format])


class Conversation:
    """Items by id, in order.

    Args:
        max_items: Items held before a client's additions are refused. Turns spoken into voice activity detection are
            always added: speaking time bounds them.
    """

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._chars = 0

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._entries

    @property
    def items(self) -> list[Item]:
        """All items, in order."""
        return [self._entries[item_id].item for item_id in self._order]

    def find(self, item_id: str) -> Entry | None:
        """The entry of an item, if it is here."""
        return self._entries.get(item_id)

    def get(self, item_id: str, param: str = "item_id", *, code: str = "item_not_found") -> Entry:
        """The entry of an item. Raises BadEvent with this code if it is not here."""
        entry = self._entries.get(item_id)
        if entry is None:
            raise BadEvent(f"The conversation has no item '{item_id}'", code=code, param=param)
        return entry

    def check_room(self) -> None:
        """Raises BadEvent if a client may add no more."""
        if len(self._order) >= self.max_items or self._chars >= MAX_CHARS:
            raise BadEvent("The conversation is full: delete items, or open a new session", code="conversation_full")

    def previous(self, item_id: str) -> str | None:
        """The id of the item before this one."""
        at = self._order.index(item_id)
        return self._order[at - 1] if at else None

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return self._order[-1] if self._order else None

    def add(self, item_id: str, item: Item, previous_item_id: str | None = None) -> str | None:
        """Adds an item after another one, first (`root`), or at the end (None).

        Returns:
            The id of the item that now stands before it.

        Raises:
            BadEvent: The id is taken, or the other item is not here.
        """
        if item_id in self._entries:
            raise BadEvent(
                f"The conversation already has an item '{item_id}'", code="duplicate_item_id", param="item.id"
            )
        if previous_item_id is None:
            at = len(self._order)
        elif previous_item_id == ROOT:
            at = 0
        else:
            self.get(previous_item_id, "previous_item_id")
            at = self._order.index(previous_item_id) + 1
        self._order.insert(at, item_id)
        self._entries[item_id] = Entry(item)
        self._chars += _chars(item)
        return self._order[at - 1] if at else None

    def put(self, item_id: str, item: Item) -> None:
        """Replaces an item in its place."""
        entry = self._entries[item_id]
        self._chars += _chars(item) - _chars(entry.item)
        entry.put(item)

    def remove(self, item_id: str) -> None:
        """Removes an item. Raises BadEvent if it is not here, or is still being spoken."""
        item = self.get(item_id, code="item_delete_invalid_item_id").item
        if item.status == "in_progress":
            raise BadEvent(
                "The item is still being spoken: cancel the response first", code="item_in_progress", param="item_id"
            )
        self._chars -= _chars(item)
        del self._entries[item_id]
        self._order.remove(item_id)

    def check_truncation(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Raises BadEvent unless the item is speech of the assistant that lasts at least `audio_end_ms`."""
        entry = self.get(item_id, code="item_truncate_invalid_item_id")
        item = entry.item
        if not isinstance(item, MessageItem) or item.role != "assistant":
            raise BadEvent("Only messages of the assistant can be truncated", param="item_id")
        if content_index >= len(item.content) or not isinstance(item.content[content_index], OutputAudio):
            raise BadEvent(f"Content part {content_index} of the item is not audio", param="content_index")
        if audio_end_ms > entry.audio_ms:
            raise BadEvent(
                f"The item's audio of {entry.audio_ms} ms is already shorter than {audio_end_ms} ms",
                param="audio_end_ms",
            )

    def set_heard(self, item_id: str, text: str) -> bool:
        """Cuts an assistant's item to the words that were heard. False if there is no such item (any more)."""
        entry = self._entries.get(item_id)
        if entry is None or not isinstance(entry.item, MessageItem) or entry.item.role != "assistant":
            return False
        entry.heard = text
        if entry.item.status != "in_progress":
            written = [part for part in entry.item.content if not isinstance(part, OutputAudio)]
            self.put(item_id, replace(entry.item, content=[*written, OutputAudio(transcript=text)]))
        return True

    def set_transcript(self, item_id: str, text: str) -> None:
        """Stores what the caller said in a user's item, if that is still here."""
        entry = self._entries.get(item_id)
        if entry is not None and isinstance(entry.item, MessageItem) and entry.item.role == "user":
            self.put(item_id, replace(entry.item, content=[InputAudio(transcript=text)]))

    def has_call(self, call_id: str) -> bool:
        """Whether a call of this id is here."""
        items = (entry.item for entry in self._entries.values())
        return any(isinstance(item, FunctionCallItem) and item.call_id == call_id for item in items)

    def messages(self) -> list[Message]:
        """What a language model is given of it."""
        entries = (self._entries[item_id] for item_id in self._order)
        return [entry.message for entry in entries if entry.message is not None]


def accepted(item: Item, item_id: str, param: str) -> Item:
    """A client's item as the server keeps it: named, finished, without audio.

    Args:
        item: What the client sent.
        item_id: The id that it has from now on; a call without an id is named after it.
        param: Path of the item in the client's event.

    Raises:
        BadEvent: Its content does not fit its role, or is nothing that this server can follow.
    """
    status = item.status if item.status == "incomplete" else "completed"
    if isinstance(item, MessageItem):
        content = [_accepted_part(part, item.role, f"{param}.content[{at}]") for at, part in enumerate(item.content)]
        return replace(item, id=item_id, object="realtime.item", status=status, content=content)
    if isinstance(item, FunctionCallItem):  # a call is cut off only while it is made here
        call_id = item.call_id if isinstance(item.call_id, str) else f"call_{item_id}"[:MAX_ID_CHARS]
        return replace(item, id=item_id, object="realtime.item", status="completed", call_id=call_id)
    return replace(item, id=item_id, object="realtime.item", status=status)


def _accepted_part(part: ContentPart, role: str, param: str) -> ContentPart:
    if isinstance(part, InputImage):
        raise BadEvent(
            "This server cannot see images: send text or speech", code="unsupported_content", param=f"{param}.type"
        )
    if not isinstance(part, _PARTS_OF_ROLE[role]):
        raise BadEvent(f"A message of the {role} cannot have content of this type", param=f"{param}.type")
    if isinstance(part, InputAudio | OutputAudio):
        if not isinstance(part.transcript, str):
            raise BadEvent(
                "This server does not listen to the audio of an item: send speech with input_audio_buffer.append, "
                "or give its transcript",
                code="unsupported_content",
                param=f"{param}.transcript",
            )
        return replace(part, audio=UNSET)
    return part


def _chars(item: Item) -> int:
    if isinstance(item, MessageItem):
        return sum(len(words_of(part)) for part in item.content)
    if isinstance(item, FunctionCallItem):
        return len(item.name) + len(item.arguments)
    return len(item.output)
