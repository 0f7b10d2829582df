"""What a client is told of its caller's speech: the verbs of the protocol about the input side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from relay.wire import server_events as ev
from relay.wire.config import SessionConfig
from relay.wire.conversation import Conversation
from relay.wire.outbox import Outbox
from relay.wire.shown import error_detail
from relay.wire.types import InputAudio, Item, MessageItem

_LEAST_PROBABILITY = 1e-9  # of a word that was recognised all the same


class InputNotices:
    """The input side of `RealtimeProtocol`.

    Attributes:
        conversation: The items.
    """

    conversation: Conversation
    _outbox: Outbox
    _config: SessionConfig

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

    def transcription_delta(self, item_id: str, text: str, words: Sequence[tuple[str, float]] = ()) -> None:
        """More of what the caller says, if transcription is on. Deltas concatenate: only send what will not change.

        Args:
            item_id: The user's item.
            text: What is new.
            words: Its words, and the probability of each.
        """
        if text and self._config.transcription is not None:
            self._outbox.send(
                ev.TranscriptionDelta(
                    event_id=self._event_id(),
                    item_id=item_id,
                    content_index=0,
                    delta=text,
                    logprobs=self._logprobs(text, words),
                )
            )

    def transcription_completed(
        self, item_id: str, text: str, seconds: float, words: Sequence[tuple[str, float]] = ()
    ) -> None:
        """What the caller said: kept in the item, and sent if transcription is on.

        Args:
            item_id: The user's item.
            text: The whole transcript.
            seconds: Duration of the speech.
            words: Its words, and the probability of each.
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
                    logprobs=self._logprobs(text, words),
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

    def _logprobs(self, text: str, words: Sequence[tuple[str, float]]) -> list[ev.LogProb] | UnsetType:
        """Log probabilities, for a client that asked for them; a word's token begins with the space before it."""
        if "item.input_audio_transcription.logprobs" not in (self._config.include or ()):
            return UNSET
        continues = text[:1].isspace()
        return [
            ev.LogProb(token, list(token.encode()), math.log(min(1.0, max(probability, _LEAST_PROBABILITY))))
            for at, (word, probability) in enumerate(words)
            for token in [f" {word}" if at or continues else word]
        ]

    def _add(self, item_id: str, item: Item, previous_item_id: str | None = None) -> None:
        """Adds a finished item and tells the client."""
        previous = self.conversation.add(item_id, item, previous_item_id)
        self._outbox.send(ev.ConversationItemAdded(event_id=self._event_id(), previous_item_id=previous, item=item))
        self._outbox.send(ev.ConversationItemDone(event_id=self._event_id(), previous_item_id=previous, item=item))

    def _event_id(self) -> str:
        return self._outbox.event_id()
