"""The OpenAI Realtime protocol of one connection, sans-IO: frames in, commands out; verbs in, frames out.

No clock, no sockets, no tasks. The server hands every frame to `receive`, acts on the commands that it returns, calls
verbs as the dialogue goes on, and writes what `outgoing` gives. Whatever the protocol can answer alone it answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from relay.audio import BYTES_PER_SAMPLE
from relay.errors import BadEvent, UsageError
from relay.wire import client_events as cl
from relay.wire import server_events as ev
from relay.wire.commands import (
    AudioAppended,
    CancelRequested,
    Command,
    CommitRequested,
    InputCleared,
    OutputCleared,
    PlaybackReported,
    ResponseParams,
    ResponseRequested,
    SessionChanged,
    TruncateRequested,
)
from relay.wire.config import (
    SessionConfig,
    changed,
    parse_format,
    parse_max_output_tokens,
    parse_modalities,
    parse_voice,
    to_wire,
    updated,
)
from relay.wire.conversation import Conversation, accepted, messages_of
from relay.wire.outbox import NewId, Outbox, id_source
from relay.wire.response import Response, error_detail
from relay.wire.types import InputAudio, Item, ItemReference, MessageItem

__all__ = ["MAX_EVENT_BYTES", "MAX_ITEMS", "RELAY_V1", "RealtimeProtocol", "Response"]

RELAY_V1 = "relay.v1"
"""The subprotocol with binary audio."""

MAX_EVENT_BYTES = 1 << 20
MAX_ITEMS = 10_000


class RealtimeProtocol:
    """State and rules of one connection.

    Args:
        subprotocol: The websocket subprotocol agreed on: `realtime`, `relay.v1`, or empty.
        model: Name of the model, as the client asked for it.
        config: The server's defaults.
        new_id: Makes an id from a prefix; must never repeat itself.
        max_event_bytes: Larger events are refused.
        max_items: Items in the conversation before a client's additions are refused.

    Attributes:
        session_id: Id of the session.
        conversation: The items.
    """

    def __init__(
        self,
        subprotocol: Literal["realtime", "relay.v1", ""] = "realtime",
        *,
        model: str | None = None,
        config: SessionConfig | None = None,
        new_id: NewId | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_items: int = MAX_ITEMS,
    ) -> None:
        self._outbox = Outbox(new_id or id_source())
        self._defaults = config or SessionConfig()
        if model is not None:
            self._defaults = replace(self._defaults, model=model)
        self._config = self._defaults
        self._binary = subprotocol == RELAY_V1
        self._max_event_bytes = max_event_bytes
        self._response: Response | None = None
        self._response_count = 0
        self._conversation_id = self._outbox.new_id("conv")
        self.session_id = self._outbox.new_id("sess")
        self.conversation = Conversation(max_items)

    @property
    def config(self) -> SessionConfig:
        """The configuration now."""
        return self._config

    @property
    def response(self) -> Response | None:
        """The response in progress."""
        return None if self._response is None or self._response.done else self._response

    def open(self) -> None:
        """Queues the greeting: session.created, conversation.created."""
        session = to_wire(self._config, self.session_id)
        self._outbox.send(ev.SessionCreated(event_id=self._event_id(), session=session))
        conversation = ev.ConversationObject(id=self._conversation_id)
        self._outbox.send(ev.ConversationCreated(event_id=self._event_id(), conversation=conversation))

    @property
    def has_outgoing(self) -> bool:
        """Whether frames wait to be written."""
        return len(self._outbox) > 0

    def outgoing(self) -> list[str | bytes]:
        """The frames to write, in order: str as text frames, bytes as binary ones. They are handed out once."""
        return self._outbox.drain()

    # From the client

    def receive(self, data: str | bytes) -> list[Command]:
        """Takes one frame: a text frame as str, a binary one as bytes.

        Whatever a client sends, this does not raise: what cannot be followed is answered by an error event whose code
        is in `relay.wire.client_events.ERROR_CODES`.

        Returns:
            What the session has to do about it, in order; often nothing.
        """
        event_id: str | None = None
        try:
            if len(data) > self._max_event_bytes:
                raise BadEvent(
                    f"Send events of at most {self._max_event_bytes} bytes: cut audio into smaller pieces",
                    code="frame_too_large",
                )
            if isinstance(data, bytes):
                if not self._binary:
                    raise BadEvent(
                        "Send audio as input_audio_buffer.append, or connect with the subprotocol relay.v1",
                        code="unexpected_binary",
                    )
                return self._append(data)
            event = cl.decode(data)
            event_id = event.event_id
            return self._handle(event)
        except BadEvent as exc:
            self.error(exc, event_id)
            return []

    def _handle(self, event: cl.AnyClientEvent) -> list[Command]:
        """Does what the protocol can do alone, and says what is left to the session."""
        match event:
            case cl.InputAudioBufferAppend():
                return self._append(event.audio)
            case cl.RelayPlayback():
                return [PlaybackReported(event.response_id, event.played_samples)]
            case cl.InputAudioBufferCommit():
                self.conversation.check_room()
                return [CommitRequested(event.event_id)]
            case cl.InputAudioBufferClear():
                return [InputCleared()]
            case cl.OutputAudioBufferClear():
                return [OutputCleared()]
            case cl.ResponseCreate():
                return self._response_create(event)
            case cl.ResponseCancel():
                return self._response_cancel(event)
            case cl.SessionUpdate():
                return self._session_update(event)
            case cl.ConversationItemCreate():
                self._item_create(event)
            case cl.ConversationItemRetrieve():
                item = self.conversation.get(event.item_id).item
                self._outbox.send(ev.ConversationItemRetrieved(event_id=self._event_id(), item=item))
            case cl.ConversationItemDelete():
                self.conversation.remove(event.item_id)
                self._outbox.send(ev.ConversationItemDeleted(event_id=self._event_id(), item_id=event.item_id))
            case cl.ConversationItemTruncate():
                self.conversation.check_truncation(event.item_id, event.content_index, event.audio_end_ms)
                return [TruncateRequested(event.item_id, event.audio_end_ms, event.event_id)]
        return []

    def _append(self, data: bytes) -> list[Command]:
        if len(data) % BYTES_PER_SAMPLE[self._config.input_format]:
            raise BadEvent(
                f"Send a whole number of samples: pcm16 has two bytes each, these are {len(data)}",
                code="invalid_audio",
                param="audio",
            )
        return [AudioAppended(data)] if data else []

    def _session_update(self, event: cl.SessionUpdate) -> list[Command]:
        before = self._config
        self._config = updated(before, self._defaults, event.session)
        session = to_wire(self._config, self.session_id)
        self._outbox.send(ev.SessionUpdated(event_id=self._event_id(), session=session))
        return [SessionChanged(self._config, changed(before, self._config))]

    def _item_create(self, event: cl.ConversationItemCreate) -> None:
        self.conversation.check_room()
        item_id = event.item.id if isinstance(event.item.id, str) else self.new_item_id()
        self._add(item_id, accepted(event.item, item_id, "item"), event.previous_item_id)

    def _add(self, item_id: str, item: Item, previous_item_id: str | None = None) -> None:
        """Adds a finished item and tells the client."""
        previous = self.conversation.add(item_id, item, previous_item_id)
        self._outbox.send(ev.ConversationItemAdded(event_id=self._event_id(), previous_item_id=previous, item=item))
        self._outbox.send(ev.ConversationItemDone(event_id=self._event_id(), previous_item_id=previous, item=item))

    def _response_create(self, event: cl.ResponseCreate) -> list[Command]:
        self._check_no_response()
        params = self._response_params(event.response or cl.ResponseSettings())
        if params.conversation == "auto":
            self.conversation.check_room()
        return [ResponseRequested(params, event.event_id)]

    def _check_no_response(self) -> None:
        if self.response is not None:
            raise BadEvent(
                f"Response {self.response.id} is in progress: wait for its response.done, or cancel it",
                code="conversation_already_has_active_response",
            )

    def _response_params(self, wire: cl.ResponseSettings) -> ResponseParams:
        output = (wire.audio.output if wire.audio else None) or cl.ResponseOutputSettings()
        messages = None
        if wire.input is not None:
            items: list[Item] = []
            for at, item in enumerate(wire.input):
                if isinstance(item, ItemReference):
                    items.append(self.conversation.get(item.id, f"response.input[{at}].id").item)
                else:
                    items.append(accepted(item, "", f"response.input[{at}]"))
            messages = tuple(messages_of(items))
        return ResponseParams(
            instructions=wire.instructions,
            output_modalities=parse_modalities(wire.output_modalities, "response.output_modalities"),
            conversation=wire.conversation or "auto",
            input=messages,
            metadata=wire.metadata,
            max_output_tokens=parse_max_output_tokens(wire.max_output_tokens),
            voice=parse_voice(output.voice),
            output_format=parse_format(output.format, "response.audio.output.format"),
        )

    def _response_cancel(self, event: cl.ResponseCancel) -> list[Command]:
        response = self.response
        if response is None or response.muted or event.response_id not in (None, response.id):
            raise BadEvent(
                "There is no such response in progress, so there is nothing to cancel",
                code="response_cancel_not_active",
                param=None if event.response_id is None else "response_id",
            )
        response.mute()
        return [CancelRequested(response.id, event.event_id)]

    # Towards the client

    def new_item_id(self) -> str:
        """An id for a user item that no event has announced yet."""
        return self._outbox.new_id("item")

    def speech_started(self, audio_start_ms: int) -> str:
        """The caller began to speak. Returns the id of the item that the speech will become."""
        item_id = self.new_item_id()
        self._outbox.send(
            ev.InputAudioBufferSpeechStarted(event_id=self._event_id(), audio_start_ms=audio_start_ms, item_id=item_id)
        )
        return item_id

    def speech_stopped(self, audio_end_ms: int, item_id: str) -> None:
        """The caller stopped speaking."""
        self._outbox.send(
            ev.InputAudioBufferSpeechStopped(event_id=self._event_id(), audio_end_ms=audio_end_ms, item_id=item_id)
        )

    def input_committed(self, item_id: str | None = None, event_id: str | None = None) -> str:
        """The input buffer becomes a user item at the end of the conversation.

        Args:
            item_id: The id that `speech_started` or `new_item_id` gave; None for a new one.
            event_id: The client's id of the commit, if there was one; success has no field to show it in.

        Returns:
            The id of the item; not the one asked for if the client has taken that in the meantime.
        """
        if item_id is None or item_id in self.conversation:
            item_id = self.new_item_id()
        item = MessageItem(
            id=item_id,
            object="realtime.item",
            status="completed",
            role="user",
            content=[InputAudio(transcript=None)],
        )
        self._outbox.send(
            ev.InputAudioBufferCommitted(
                event_id=self._event_id(), previous_item_id=self.conversation.last_id, item_id=item_id
            )
        )
        self._add(item_id, item)
        return item_id

    def input_cleared(self) -> None:
        """The input buffer is empty."""
        self._outbox.send(ev.InputAudioBufferCleared(event_id=self._event_id()))

    def output_cleared(self, response_id: str) -> None:
        """The rest of a response's audio was dropped."""
        self._outbox.send(ev.OutputAudioBufferCleared(event_id=self._event_id(), response_id=response_id))

    def timeout_triggered(self, audio_start_ms: int, audio_end_ms: int, item_id: str) -> None:
        """The caller said nothing for `idle_timeout_ms`."""
        self._outbox.send(
            ev.InputAudioBufferTimeoutTriggered(
                event_id=self._event_id(), audio_start_ms=audio_start_ms, audio_end_ms=audio_end_ms, item_id=item_id
            )
        )

    def transcription_delta(self, item_id: str, text: str) -> None:
        """More of what the caller says, if transcription is on. Deltas concatenate: only send what will not change."""
        if text and self._config.transcription is not None:
            self._outbox.send(
                ev.TranscriptionDelta(event_id=self._event_id(), item_id=item_id, content_index=0, delta=text)
            )

    def transcription_completed(self, item_id: str, text: str, seconds: float) -> None:
        """What the caller said: kept in the item, and sent if transcription is on.

        Args:
            item_id: The user's item.
            text: The whole transcript.
            seconds: Duration of the speech.
        """
        self.conversation.set_transcript(item_id, text)
        if self._config.transcription is not None:
            self._outbox.send(
                ev.TranscriptionCompleted(
                    event_id=self._event_id(),
                    item_id=item_id,
                    content_index=0,
                    transcript=text,
                    usage=ev.DurationUsage(seconds=seconds),
                )
            )

    def transcription_failed(self, item_id: str, error: BaseException) -> None:
        """What the caller said could not be transcribed; sent if transcription is on."""
        if self._config.transcription is not None:
            detail = error_detail(error)
            shown = ev.TranscriptionError(
                type=detail.type, code=detail.code, message=detail.message, param=detail.param
            )
            self._outbox.send(
                ev.TranscriptionFailed(event_id=self._event_id(), item_id=item_id, content_index=0, error=shown)
            )

    def relay_partial(self, item_id: str, stable: str, unstable: str) -> None:
        """What the recogniser hears now, to clients that asked."""
        if self._config.relay is not None and self._config.relay.partials:
            self._outbox.send(
                ev.RelayPartial(event_id=self._event_id(), item_id=item_id, stable=stable, unstable=unstable)
            )

    def begin_response(self, params: ResponseParams | None = None) -> Response:
        """Begins a response, with the configuration of now.

        Args:
            params: What it does differently from the session; None for nothing.

        Raises:
            UsageError: Another response is in progress: finish it first.
        """
        if self.response is not None:
            raise UsageError(f"Finish response {self.response.id} before the next one begins")
        self._response_count += 1
        self._response = Response(
            self._outbox,
            self.conversation,
            self._conversation_id,
            self._config,
            params or ResponseParams(),
            index=self._response_count,
            binary=self._binary,
        )
        return self._response

    def item_truncated(self, item_id: str, audio_end_ms: int, heard_text: str) -> None:
        """Cuts an assistant's item to what was heard and tells the client. Nothing if it deleted the item meanwhile."""
        if self.set_heard(item_id, heard_text):
            self._outbox.send(
                ev.ConversationItemTruncated(
                    event_id=self._event_id(), item_id=item_id, content_index=0, audio_end_ms=audio_end_ms
                )
            )

    def set_heard(self, item_id: str, heard_text: str) -> bool:
        """Cuts an assistant's item to what was heard, without an event; what is still to be spoken of it is dropped.

        Returns:
            Whether there is such an item.
        """
        response = self.response
        if response is not None and response.item_id == item_id:
            response.mute()
        return self.conversation.set_heard(item_id, heard_text)

    def error(self, exc: BaseException, event_id: str | None = None) -> None:
        """Queues an error event.

        Args:
            exc: What went wrong; `relay.errors` says how it is shown.
            event_id: The client's id of the event that caused it; None for the one that the error knows.
        """
        self._outbox.send(ev.Error(event_id=self._event_id(), error=error_detail(exc, event_id)))

    def _event_id(self) -> str:
        return self._outbox.event_id()
