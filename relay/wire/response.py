"""One response on the wire: its events in the documented order, and nothing after its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET

from relay.audio import Format
from relay.errors import BadEvent, RelayError, UsageError, shown
from relay.wire import response_events as ev
from relay.wire.binary import AudioFrame, encode_audio
from relay.wire.commands import ResponseParams, Usage
from relay.wire.config import RelayOptions, SessionConfig, format_to_wire, max_output_tokens_to_wire
from relay.wire.conversation import Conversation
from relay.wire.outbox import Outbox
from relay.wire.server_events import ConversationItemAdded, ConversationItemDone, ErrorDetail
from relay.wire.types import Item, ItemStatus, MessageItem, Modality, OutputAudio, OutputText

Status = Literal["completed", "cancelled", "failed", "incomplete"]
Reason = Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"]

_NO_RELAY = RelayOptions(playback=False, partials=False, words=False, metrics=False, draft=False)


class Response:
    """The answer being given. Made by `RealtimeProtocol.begin_response`.

    Events, in this order: response.created; at the first delta response.output_item.added, conversation.item.added,
    response.content_part.added; the deltas; then, from `finish`, response.output_audio.done,
    response.output_audio_transcript.done (or response.output_text.done), response.content_part.done,
    conversation.item.done, response.output_item.done, response.done. Out of band there are no conversation.item
    events.

    Attributes:
        id: Id of the response.
        item_id: Id of its one item, which exists from the first delta on.
        params: What was asked for, with the session's configuration filled in.
        output_modalities: `("audio",)` or `("text",)`.
        output_format: Format of the bytes that `audio` takes.
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
        self.params = ResponseParams(
            instructions=config.instructions if params.instructions is None else params.instructions,
            output_modalities=params.output_modalities or config.output_modalities,
            conversation=params.conversation,
            input=params.input,
            metadata=params.metadata,
            max_output_tokens=params.max_output_tokens or config.max_output_tokens,
            voice=params.voice or config.voice,
            output_format=params.output_format or config.output_format,
        )
        self.output_modalities: tuple[Modality, ...] = params.output_modalities or config.output_modalities
        self.output_format: Format = params.output_format or config.output_format
        self.index = index
        self.done = False
        self._outbox = outbox
        self._conversation = conversation
        self._conversation_id = conversation_id
        self._relay = config.relay or _NO_RELAY
        self._binary = binary
        self._announce_index = binary or config.relay is not None
        self._speaks = "audio" in self.output_modalities
        self._in_conversation = params.conversation == "auto"
        self._said: list[str] = []
        self._opened = False
        self._cancelled = False
        self._item: Item | None = None
        outbox.send(ev.ResponseCreated(event_id=outbox.event_id(), response=self._object("in_progress")))

    @property
    def muted(self) -> bool:
        """Whether output is dropped: after the end, a cancellation, or a truncation of what was said."""
        return self.done or self._cancelled

    def mute(self) -> None:
        """Drops all further output; `finish` is still due."""
        self._cancelled = True

    def transcript(self, delta: str) -> None:
        """Sends more of what is said (or, without audio, written)."""
        if self.muted or not delta:
            return
        self._open()
        self._said.append(delta)
        kind = ev.ResponseOutputAudioTranscriptDelta if self._speaks else ev.ResponseOutputTextDelta
        self._outbox.send(kind(**self._part(), delta=delta))

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
        if self.muted or not data:
            return
        self._open()
        entry = self._conversation.find(self.item_id)
        if entry is not None:
            entry.audio_bytes += len(data)
        if self._binary:
            self._outbox.send_binary(encode_audio(AudioFrame(self.index, first_sample, self.output_format, data)))
        else:
            self._outbox.send(ev.ResponseOutputAudioDelta(**self._part(), delta=data))

    def words(self, words: Sequence[tuple[str, int, int]]) -> None:
        """Sends `relay.words`: (word, start sample, end sample) in this response's output, to clients that asked."""
        if self.muted or not words or not self._relay.words:
            return
        self._open()
        spoken = [ev.SpokenWord(*word) for word in words]
        self._outbox.send(
            ev.RelayWords(event_id=self._outbox.event_id(), response_id=self.id, item_id=self.item_id, words=spoken)
        )

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
        if self._opened:
            self._close("completed" if status == "completed" else "incomplete")
        details = None
        if status != "completed":
            details = ev.StatusDetails(
                type=status,
                reason=UNSET if reason is None or status == "failed" else reason,
                error=UNSET if error is None else response_error(error),
            )
        response = self._object(status, details, _usage_object(usage or Usage()))
        self._outbox.send(ev.ResponseDone(event_id=self._outbox.event_id(), response=response))

    def _open(self) -> None:
        """Announces the item and its part, once."""
        if self._opened:
            return
        self._opened = True
        item = self._message("in_progress")
        self._outbox.send(
            ev.ResponseOutputItemAdded(event_id=self._outbox.event_id(), response_id=self.id, output_index=0, item=item)
        )
        if self._in_conversation:
            previous = self._conversation.add(self.item_id, item)
            self._outbox.send(
                ConversationItemAdded(event_id=self._outbox.event_id(), previous_item_id=previous, item=item)
            )
            self._conversation.put(self.item_id, self._message("in_progress", ""))
            self._conversation.get(self.item_id).audio_format = self.output_format
        self._outbox.send(ev.ResponseContentPartAdded(**self._part(), part=self._shown_part("")))

    def _close(self, status: ItemStatus) -> None:
        """Ends the part and the item. The item keeps what was heard, the part's events what was sent."""
        said = "".join(self._said)
        if self._speaks:
            self._outbox.send(ev.ResponseOutputAudioDone(**self._part()))
            self._outbox.send(ev.ResponseOutputAudioTranscriptDone(**self._part(), transcript=said))
        else:
            self._outbox.send(ev.ResponseOutputTextDone(**self._part(), text=said))
        self._outbox.send(ev.ResponseContentPartDone(**self._part(), part=self._shown_part(said)))
        entry = self._conversation.find(self.item_id)
        heard = said if entry is None or entry.heard is None else entry.heard
        item = self._item = self._message(status, heard)
        if entry is not None:
            self._conversation.put(self.item_id, item)
            previous = self._conversation.previous(self.item_id)
            self._outbox.send(
                ConversationItemDone(event_id=self._outbox.event_id(), previous_item_id=previous, item=item)
            )
        self._outbox.send(
            ev.ResponseOutputItemDone(event_id=self._outbox.event_id(), response_id=self.id, output_index=0, item=item)
        )

    def _message(self, status: ItemStatus, text: str | None = None) -> MessageItem:
        """The item; without content while there is no text yet."""
        content = [] if text is None else [OutputAudio(transcript=text) if self._speaks else OutputText(text=text)]
        return MessageItem(
            id=self.item_id, object="realtime.item", status=status, role="assistant", content=list(content)
        )

    def _shown_part(self, text: str) -> ev.ShownPart:
        return ev.ShownPart(type="audio", transcript=text) if self._speaks else ev.ShownPart(type="text", text=text)

    def _part(self) -> dict[str, Any]:
        """The fields that all events of the part have."""
        return {
            "event_id": self._outbox.event_id(),
            "response_id": self.id,
            "item_id": self.item_id,
            "output_index": 0,
            "content_index": 0,
        }

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
            output=[] if self._item is None else [self._item],
            conversation_id=self._conversation_id if self._in_conversation else None,
            output_modalities=list(self.output_modalities),
            max_output_tokens=max_output_tokens_to_wire(params.max_output_tokens),
            audio=ev.ResponseAudioShown(output=output),
            usage=usage,
            metadata=None if params.metadata is None else dict(params.metadata),
            relay=ev.ResponseRelay(index=self.index) if self._announce_index else UNSET,
        )


def error_detail(error: BaseException, event_id: str | None = None) -> ErrorDetail:
    """An error as the wire shows it. What is not an error of this project does not show its message."""
    row = shown(error)
    if isinstance(error, BadEvent):
        return ErrorDetail(
            type=row.type,
            code=error.code,
            message=str(error),
            param=error.param,
            event_id=error.event_id if event_id is None else event_id,
        )
    message = str(error) if isinstance(error, RelayError) else "The server made a mistake: its log says more"
    return ErrorDetail(type=row.type, code=row.code, message=message, event_id=event_id)


def response_error(error: BaseException) -> ev.ResponseError:
    """An error as `response.done` shows it."""
    detail = error_detail(error)
    return ev.ResponseError(type=detail.type, code=detail.code or "", message=detail.message)


def _usage_object(usage: Usage) -> ev.UsageObject:
    input_tokens = usage.input_text_tokens + usage.input_audio_tokens
    output_tokens = usage.output_text_tokens + usage.output_audio_tokens
    return ev.UsageObject(
        total_tokens=input_tokens + output_tokens,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        input_token_details=ev.InputTokenDetails(
            text_tokens=usage.input_text_tokens,
            audio_tokens=usage.input_audio_tokens,
            cached_tokens=usage.cached_tokens,
            cached_tokens_details=ev.CachedTokenDetails(text_tokens=usage.cached_tokens),
        ),
        output_token_details=ev.OutputTokenDetails(
            text_tokens=usage.output_text_tokens, audio_tokens=usage.output_audio_tokens
        ),
    )
