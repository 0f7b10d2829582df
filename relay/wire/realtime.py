"""The OpenAI Realtime protocol of one connection, sans-IO: frames in, commands out; verbs in, frames out.

No clock, no sockets, no tasks. The server hands every frame to `receive`, acts on the commands that it returns, calls
verbs as the dialogue goes on, and writes what `outgoing` gives. Whatever the protocol can answer alone it answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from relay.audio import BYTES_PER_SAMPLE
from relay.errors import BadEvent, UsageError
from relay.events import Message
from relay.wire import client_events as cl
from relay.wire import server_events as ev
from relay.wire.basis import Basis, basis_of, resolved
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
    check_depth,
    check_prompt,
    parse_format,
    parse_modalities,
    parse_voice,
    updated,
)
from relay.wire.context import truncated
from relay.wire.conversation import Conversation, accepted
from relay.wire.notices import InputNotices
from relay.wire.outbox import NewId, Outbox, id_source
from relay.wire.response import Response
from relay.wire.session_object import to_wire
from relay.wire.shown import error_detail
from relay.wire.tools import check_choice, check_tools
from relay.wire.types import Item, ItemReference

__all__ = ["MAX_BESIDE", "MAX_EVENT_BYTES", "MAX_ITEMS", "RELAY_V1", "RealtimeProtocol", "Response"]

RELAY_V1 = "relay.v1"
"""The subprotocol with binary audio."""

MAX_EVENT_BYTES = 1 << 20
MAX_ITEMS = 10_000
MAX_BESIDE = 4


class RealtimeProtocol(InputNotices):
    """State and rules of one connection.

    Args:
        subprotocol: The websocket subprotocol agreed on: `realtime`, `relay.v1`, or empty.
        model: Name of the model, as the client asked for it.
        config: The server's defaults.
        new_id: Makes an id from a prefix; must never repeat itself.
        max_event_bytes: Larger events are refused.
        max_items: Items in the conversation before a client's additions are refused.
        max_beside: Responses in progress out of band before another is refused.

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
        max_beside: int = MAX_BESIDE,
    ) -> None:
        self._outbox = Outbox(new_id or id_source())
        self._defaults = config or SessionConfig()
        if model is not None:
            self._defaults = replace(self._defaults, model=model)
        self._config = self._defaults
        self._binary = subprotocol == RELAY_V1
        self._max_event_bytes = max_event_bytes
        self._response: Response | None = None
        self._beside: dict[str, Response] = {}
        self._max_beside = max_beside
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
        """The response in progress in the conversation."""
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
                item = self.conversation.get(event.item_id, code="item_retrieve_invalid_item_id").item
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
        after = updated(before, self._defaults, event.session)
        if after.type != before.type:
            self._check_no_response()
        self._config = after
        session = to_wire(self._config, self.session_id)
        self._outbox.send(ev.SessionUpdated(event_id=self._event_id(), session=session))
        return [SessionChanged(self._config, changed(before, self._config))]

    def _item_create(self, event: cl.ConversationItemCreate) -> None:
        self.conversation.check_room()
        item_id = event.item.id if isinstance(event.item.id, str) else self.new_item_id()
        self._add(item_id, accepted(event.item, item_id, "item"), event.previous_item_id)

    def _response_create(self, event: cl.ResponseCreate) -> list[Command]:
        if self._config.type == "transcription":
            raise BadEvent(
                "A transcription session gives no responses: open a session of type realtime",
                code="transcription_session",
            )
        params = self._response_params(event.response or cl.ResponseSettings())
        if params.conversation == "none":
            self._check_beside()
        else:
            self._check_no_response()
            self.conversation.check_room()
        return [ResponseRequested(params, event.event_id)]

    def _check_no_response(self) -> None:
        if self.response is not None:
            raise BadEvent(
                f"Response {self.response.id} is in progress: wait for its response.done, or cancel it",
                code="conversation_already_has_active_response",
            )

    def _check_beside(self) -> None:
        self._beside = {name: response for name, response in self._beside.items() if not response.done}
        if len(self._beside) >= self._max_beside:
            raise BadEvent(
                f"{self._max_beside} responses are in progress out of band: wait for a response.done, or cancel one",
                code="too_many_responses",
            )

    def _response_params(self, wire: cl.ResponseSettings) -> ResponseParams:
        output = (wire.audio.output if wire.audio else None) or cl.ResponseOutputSettings()
        check_prompt(wire.prompt, "response.prompt")
        check_depth(wire.tools, "response.tools")
        check_tools(wire.tools or (), "response.tools")
        if wire.tool_choice is not None:
            tools = self._config.tools if wire.tools is None else wire.tools
            check_choice(wire.tool_choice, tools, "response.tool_choice")
        items: list[Item | ItemReference] = []
        for at, item in enumerate(wire.input or ()):
            if isinstance(item, ItemReference):
                self.conversation.get(item.id, f"response.input[{at}].id")
                items.append(item)
            else:
                items.append(accepted(item, f"input_{at}", f"response.input[{at}]"))
        return ResponseParams(
            instructions=wire.instructions,
            output_modalities=parse_modalities(wire.output_modalities, "response.output_modalities"),
            conversation=wire.conversation or "auto",
            input=None if wire.input is None else tuple(items),
            metadata=wire.metadata,
            max_output_tokens=wire.max_output_tokens,
            voice=parse_voice(output.voice),
            output_format=parse_format(output.format, "response.audio.output.format"),
            tools=None if wire.tools is None else tuple(wire.tools),
            tool_choice=wire.tool_choice,
            parallel_tool_calls=wire.parallel_tool_calls,
        )

    def _response_cancel(self, event: cl.ResponseCancel) -> list[Command]:
        response = self._beside.get(event.response_id or "", self.response)
        if response is None or response.muted or event.response_id not in (None, response.id):
            raise BadEvent(
                "There is no such response in progress, so there is nothing to cancel",
                code="response_cancel_not_active",
                param=None if event.response_id is None else "response_id",
            )
        response.mute()
        return [CancelRequested(response.id, event.event_id)]

    # Towards the client

    def begin_response(self, params: ResponseParams | None = None) -> Response:
        """Begins a response, with the configuration of now.

        Args:
            params: What it does differently from the session; None for nothing.

        Raises:
            UsageError: Another response of the conversation is in progress: finish it first.
            BadEvent: As many as may be are in progress out of band.
        """
        params = params or ResponseParams()
        if params.conversation == "none":
            self._check_beside()
        elif self.response is not None:
            raise UsageError(f"Finish response {self.response.id} before the next one begins")
        self._response_count += 1
        response = Response(
            self._outbox,
            self.conversation,
            self._conversation_id,
            self._config,
            params,
            index=self._response_count,
            binary=self._binary,
        )
        if response.is_out_of_band:
            self._beside[response.id] = response
        else:
            self._response = response
        return response

    def basis_after(self, text: str) -> Basis:
        """What a response would be made from if it began now and the user had said `text` before; begins none."""
        config = self._config
        context = truncated([*self.conversation.messages(), Message("user", text)], config.truncation)
        return basis_of(resolved(ResponseParams(), config), context, speed=config.speed, path=config.path)

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
        if response is not None and response.item_id == item_id and response.is_saying_more:
            response.mute()
        return self.conversation.set_heard(item_id, heard_text)

    def error(self, exc: BaseException, event_id: str | None = None) -> None:
        """Queues an error event.

        Args:
            exc: What went wrong; `relay.errors` says how it is shown.
            event_id: The client's id of the event that caused it; None for the one that the error knows.
        """
        self._outbox.send(ev.Error(event_id=self._event_id(), error=error_detail(exc, event_id)))
