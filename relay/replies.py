"""The replies of a session that may still be heard: the latest, and those before it that can be cut to what was."""

from __future__ import annotations

from collections import deque

from relay.errors import BadEvent
from relay.reply import Reply
from relay.wire.commands import TruncateRequested
from relay.wire.realtime import RealtimeProtocol

_OLD_REPLIES = 8  # ended replies that can still be truncated to what was heard of them


class Replies:
    """Keeps them, and what the conversation holds of them true.

    Args:
        protocol: Has the conversation.

    Attributes:
        latest: The reply that has the floor, or had it last.
    """

    def __init__(self, protocol: RealtimeProtocol) -> None:
        self._protocol = protocol
        self.latest: Reply | None = None
        self._old: deque[Reply] = deque(maxlen=_OLD_REPLIES)

    def begin(self, reply: Reply) -> None:
        """A new one gets the floor."""
        if self.latest is not None:
            self._old.append(self.latest)
        self.latest = reply

    def duck(self) -> None:
        """All that sounds falls silent for now."""
        for reply in self._sounding():
            reply.duck()

    def resume(self) -> None:
        """And goes on."""
        for reply in self._sounding():
            reply.resume()

    def cut(self) -> None:
        """The user's voice has stopped what sounds: no more of it will be heard."""
        # Words before a call may still be playing when the reply after it begins.
        for reply in self._sounding():
            reply.was_interrupted = True
            self._protocol.set_heard(reply.response.item_id, reply.heard())

    def played(self, response_id: str, played_samples: int) -> None:
        """Takes a client's report."""
        for reply in self._all():
            if reply.response.id == response_id:
                reply.played(played_samples)
                if reply.was_interrupted:  # the last report comes after the flush: now it is known exactly
                    self._protocol.set_heard(reply.response.item_id, reply.heard())

    def truncate(self, asked: TruncateRequested) -> None:
        """Cuts a reply to what the client says was heard of it."""
        reply = next((reply for reply in self._all() if reply.response.item_id == asked.item_id), None)
        if reply is None:
            message = f"item {asked.item_id} is not a spoken reply that can still be truncated"
            self._protocol.error(BadEvent(message, param="item_id"), asked.event_id)
        else:
            heard = reply.heard_until_ms(asked.audio_end_ms)
            self._protocol.item_truncated(asked.item_id, asked.audio_end_ms, heard)

    def _sounding(self) -> list[Reply]:
        return [each for each in self._all() if each is self.latest or each.is_playing]

    def _all(self) -> list[Reply]:
        return [*([self.latest] if self.latest else []), *self._old]
