"""One response on the wire: its events in the documented order, and nothing after its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET

from relay.audio import Format
from relay.errors import UsageError
from relay.events import CallDelta, Message
from relay.wire import response_events as ev
from relay.wire.basis import Basis, basis_of, resolved
from relay.wire.binary import AudioFrame, encode_audio
from relay.wire.commands import ResponseParams, Usage
from relay.wire.config import RelayOptions, SessionConfig
from relay.wire.context import message_of, truncated
from relay.wire.conversation import Conversation
from relay.wire.outbox import Outbox
from relay.wire.output import CallOutput, MessageOutput, Place
from relay.wire.server_events import RateLimitsUpdated
from relay.wire.session_object import format_to_wire
from relay.wire.shown import response_error, usage_object
from relay.wire.types import MAX_ID_CHARS, ItemReference, ItemStatus, Modality

Status = Literal["completed", "cancelled", "failed", "incomplete"]
Reason = Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"]

_NO_RELAY = RelayOptions(playback=False, partials=False, words=False, metrics=False, draft=False, duck=False)


class Response:
    """The answer being given. Made by `RealtimeProtocol.begin_response`.

    Events, in this order: response.created, rate_limits.updated; then the items, one after the other, at most one of
    which is a message, and the others calls of functions; last, from `finish`, response.done. Of an item:
    response.output_item.added, conversation.item.added; for a message response.content_part.added; the deltas; then
    response.output_audio.done and response.output_audio_transcript.done (or response.output_text.done) and
    response.content_part.done, or response.function_call_arguments.done; conversation.item.done,
    response.output_item.done. Out of band there are no conversation.item events.

    Attributes:
        id: Id of the response.
        item_id: Id of its message, which exists from the first delta on.
        params: What was asked for, with the session's configuration filled in.
        output_modalities: `("audio",)` or `("text",)`.
        output_format: Format of the bytes that `audio` takes.
        speed: Speaking rate.
        path: Which models are to make it.
        index: Number of the response in binary frames.
        done: Whether it has ended.
    """

    def __init__(
        self,
        outbox: Outbox,
        conversation: Conversation,
        conversation_id: str,
        config: SessionConfig,
        params: ResponseParams,
        *,
        index: int,
        binary: bool,
    ) -> None:
        self.id = outbox.new_id("resp")
        self.item_id = outbox.new_id("item")
        self.params = resolved(params, config)
        self.output_modalities: tuple[Modality, ...] = params.output_modalities or config.output_modalities
        self.output_format: Format = params.output_format or config.output_format
        self.speed = config.speed
        self.path = config.path
        self.index = index
        self.done = False
        self._outbox = outbox
        self._conversation = conversation
        self._conversation_id = conversation_id
        self._truncation = config.truncation
        self._relay = config.relay or _NO_RELAY
        self._binary = binary
        self._announce_index = binary or config.relay is not None
        self._speaks = "audio" in self.output_modalities
        self._cancelled = False
        self._items: list[MessageOutput | CallOutput] = []
        self._message: MessageOutput | None = None
        outbox.send(ev.ResponseCreated(event_id=outbox.event_id(), response=self._object("in_progress")))
        outbox.send(RateLimitsUpdated(event_id=outbox.event_id(), rate_limits=[]))

    @property
    def is_out_of_band(self) -> bool:
        """Whether it stays out of the conversation."""
        return self.params.conversation == "none"

    @property
    def muted(self) -> bool:
        """Whether output is dropped: after the end, a cancellation, or a truncation of what was said."""
        return self.done or self._cancelled

    @property
    def has_message(self) -> bool:
        """Whether it has begun to say, or write, anything."""
        return self._message is not None

    @property
    def is_saying_more(self) -> bool:
        """Whether its message may still grow."""
        return not self.muted and (self._message is None or self._message.item is None)

    def basis(self) -> Basis:
        """What it is made from, as things are now."""
        return basis_of(self.params, self.context(), speed=self.speed, path=self.path)

    def context(self) -> list[Message]:
        """What it answers: the conversation as it is now, or the input that the client gave in its place."""
        if self.params.input is None:
            return truncated(self._conversation.messages(), self._truncation)
        found: list[Message | None] = []
        for item in self.params.input:
            if isinstance(item, ItemReference):
                entry = self._conversation.find(item.id)  # it may have been deleted since it was referred to
                found.append(None if entry is None else entry.message)
            else:
                found.append(message_of(item))
        return truncated([message for message in found if message is not None], self._truncation)

    def mute(self) -> None:
        """Drops all further output; `finish` is still due."""
        self._cancelled = True

    def transcript(self, delta: str) -> None:
        """Sends more of what is said (or, without audio, written)."""
        message = self._open_message() if delta else None
        if message is not None:
            message.write(delta)

    def audio(self, data: bytes, first_sample: int) -> None:
        """Sends more audio.

        Args:
            data: Bytes in `output_format`, a whole number of samples.
            first_sample: Position of the first one in this response's output, at the format's rate.

        Raises:
            UsageError: The response is text only.
        """
        if not self._speaks:
            raise UsageError("A response of text has no audio: look at response.output_modalities first")
        message = self._open_message() if data else None
        if message is None:
            return
        message.speak(data, as_event=not self._binary)
        if self._binary:
            self._outbox.send_binary(encode_audio(AudioFrame(self.index, first_sample, self.output_format, data)))

    def words(self, words: Sequence[tuple[str, int, int]]) -> None:
        """Sends `relay.words`: (word, start sample, end sample) in this response's output, to clients that asked."""
        if not words or not self._relay.words or self._open_message() is None:
            return
        spoken = [ev.SpokenWord(*word) for word in words]
        self._outbox.send(
            ev.RelayWords(event_id=self._outbox.event_id(), response_id=self.id, item_id=self.item_id, words=spoken)
        )

    def call(self, delta: CallDelta) -> None:
        """Sends more of a call of a function; the item before it is thereby complete."""
        if self.muted:
            return
        last = self._items[-1] if self._items else None
        if not isinstance(last, CallOutput) or last.number != delta.index:
            self._close_last("completed")
            call_id = delta.call_id
            if call_id is None or len(call_id) > MAX_ID_CHARS or self._conversation.has_call(call_id):
                call_id = self._outbox.new_id("call")  # some servers count their calls anew in every reply
            place = self._place(self._outbox.new_id("item"))
            last = CallOutput(place, number=delta.index, name=delta.name, call_id=call_id)
            self._items.append(last)
        last.write(delta.arguments)

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Sends `relay.metrics` to clients that asked; also after the end."""
        if self._relay.metrics:
            self._outbox.send(
                ev.RelayMetrics(event_id=self._outbox.event_id(), response_id=self.id, metrics=dict(values))
            )

    def draft(self, values: Mapping[str, Any]) -> None:
        """Sends `relay.draft` to clients that asked; also after the end."""
        if self._relay.draft:
            self._outbox.send(ev.RelayDraft(event_id=self._outbox.event_id(), response_id=self.id, draft=dict(values)))

    @property
    def ducks(self) -> bool:
        """Whether the client falls silent when it is told to."""
        return self._relay.duck

    def ducked(self, ducked: bool) -> None:
        """Sends `relay.duck` to clients that do it; also after the end, while the response may be playing."""
        if self._relay.duck:
            self._outbox.send(ev.RelayDuck(event_id=self._outbox.event_id(), response_id=self.id, ducked=ducked))

    def finish(
        self,
        status: Status = "completed",
        reason: Reason | None = None,
        error: BaseException | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Ends the response: closes what is open, then `response.done`. The second call does nothing.

        Args:
            status: How it ended. An error makes it `failed`; what the client cancelled cannot be `completed`.
            reason: Why it was cancelled or is incomplete.
            error: Why it failed.
            usage: Tokens that it took; zeros if not given.
        """
        if self.done:
            return
        self.done = True
        if error is not None:
            status = "failed"
        elif self._cancelled and status == "completed":
            status, reason = "cancelled", "client_cancelled"
        self._close_last("completed" if status == "completed" else "incomplete")
        details = None
        if status != "completed":
            details = ev.StatusDetails(
                type=status,
                reason=UNSET if reason is None or status == "failed" else reason,
                error=UNSET if error is None else response_error(error),
            )
        response = self._object(status, details, usage_object(usage or Usage()))
        self._outbox.send(ev.ResponseDone(event_id=self._outbox.event_id(), response=response))

    def _open_message(self) -> MessageOutput | None:
        """The message, begun with its first delta; None when nothing of it may be sent (any more)."""
        if self.muted:
            return None
        if self._message is None:
            self._close_last("incomplete")
            self._message = MessageOutput(self._place(self.item_id), self.output_format if self._speaks else None)
            self._items.append(self._message)
        return self._message if self._message.item is None else None

    def _close_last(self, status: ItemStatus) -> None:
        if self._items and self._items[-1].item is None:
            self._items[-1].close(status)

    def _place(self, item_id: str) -> Place:
        conversation = None if self.is_out_of_band else self._conversation
        return Place(self._outbox, conversation, self.id, item_id, len(self._items))

    def _object(
        self,
        status: Status | Literal["in_progress"],
        details: ev.StatusDetails | None = None,
        usage: ev.UsageObject | None = None,
    ) -> ev.ResponseObject:
        params = self.params
        output = ev.ResponseOutputShown(format=format_to_wire(self.output_format), voice=params.voice or "")
        return ev.ResponseObject(
            id=self.id,
            status=status,
            status_details=details,
            output=[made.item for made in self._items if made.item is not None],
            conversation_id=None if self.is_out_of_band else self._conversation_id,
            output_modalities=list(self.output_modalities),
            max_output_tokens=params.max_output_tokens or "inf",
            audio=ev.ResponseAudioShown(output=output),
            usage=usage,
            metadata=None if params.metadata is None else dict(params.metadata),
            relay=ev.ResponseRelay(index=self.index) if self._announce_index else UNSET,
        )
