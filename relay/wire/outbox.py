"""Frames on their way to the client, and the ids that name things."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable

from relay.wire import server_events
from relay.wire.server_events import AnyServerEvent

NewId = Callable[[str], str]


def id_source() -> NewId:
    """Makes ids `<prefix>_<random><counter>`, unique within a process run and unlikely to meet those of another."""
    stem = secrets.token_hex(6)
    counter = itertools.count(1)

    def new_id(prefix: str) -> str:
        return f"{prefix}_{stem}{next(counter):06x}"

    return new_id


class Outbox:
    """The queue of frames. Events are encoded when they are queued, so that later changes do not show in them."""

    def __init__(self, new_id: NewId) -> None:
        self.new_id = new_id
        self._frames: list[str | bytes] = []

    def __len__(self) -> int:
        return len(self._frames)

    def event_id(self) -> str:
        """An id for the next event."""
        return self.new_id("event")

    def send(self, event: AnyServerEvent) -> None:
        """Queues an event as a text frame."""
        self._frames.append(server_events.encode(event))

    def send_binary(self, frame: bytes) -> None:
        """Queues a binary frame."""
        self._frames.append(frame)

    def drain(self) -> list[str | bytes]:
        """All queued frames, in order; the queue is empty afterwards."""
        frames, self._frames = self._frames, []
        return frames
