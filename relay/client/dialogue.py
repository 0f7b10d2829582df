"""What is being said: follows a session's events, feeds the playout clock, and lets callers wait for a state.

On `speech_started` the reply that is playing falls silent at once (`PlayoutClock.flush`), as in every Realtime client.
On `relay.duck` it does so for as long as a server of ours needs to tell a listener's "mm-hm" from an interruption.
A server of ours learns what was heard from `relay.playback`; any other is told by `conversation.item.truncate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from relay.audio import VOICE_RATE_HZ, Int16Array, ms_of, samples_in
from relay.client.duplex import PacedCard, Script
from relay.client.playout import Playback, PlayoutClock
from relay.client.realtime import Client, Event, OutputAudio, Reconnected, Reconnecting
from relay.errors import ConnectionFailed, StageFailed
from relay.wire import response_events as reply_events
from relay.wire import server_events as got

OTHERS_TRANSCRIBER = "gpt-4o-mini-transcribe"
"""Model that servers of another make are asked to transcribe the user's speech with."""
EXTRAS: dict[str, Any] = {
    "relay": {"playback": True, "partials": True, "words": True, "metrics": True, "draft": True, "duck": True}
}
SETTLE_MS = 1500
SILENCE_TIMEOUT_MS = 30_000


@dataclass(slots=True)
class Reply:
    """A response, as far as it has come. Times are seconds of the event loop's clock.

    Attributes:
        response_id: The response.
        created_s: When `response.created` arrived.
        turn_ended_s: When the server's word arrived that the turn before it was over.
        item_id: Its item, once there is one.
        text: What it says, or its text.
        words: Words with their place in the output, when the server tells.
        first_audio_s: When its first audio arrived.
        audio_samples: How much audio has arrived.
        status: `in_progress`, then how it ended.
        failure: Why, when it failed.
        metrics: Fields of `relay.metrics`.
        draft: Fields of `relay.draft`, where the session has a fast path.
    """

    response_id: str
    created_s: float
    turn_ended_s: float | None = None
    item_id: str | None = None
    text: str = ""
    words: list[reply_events.SpokenWord] = field(default_factory=list)
    first_audio_s: float | None = None
    audio_samples: int = 0
    status: str = "in_progress"
    failure: str | None = None
    metrics: dict[str, Any] | None = None
    draft: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more of it will arrive."""
        return self.status != "in_progress"


class Dialogue:
    """One session's state, kept by `run`.

    Args:
        client: An open session.
        playout: Where replies are played.
        on_event: Called with every event after it has been taken into account.
        keep_replies: How many replies are remembered.

    Attributes:
        replies: By response id, oldest first.
        speaking: Whether the server hears the user speak.
        partial: What the recogniser hears now: stable and unstable text.
        transcripts: The user's finished turns.
        unanswered: Turns of the user that have ended and have not been answered or found empty.
        errors: Messages of `error` events.
        events: How many events have come.
        connected: Whether there is a connection; a lost one may be opened again.
        ended: Whether the session is over.
    """

    def __init__(
        self,
        client: Client,
        playout: PlayoutClock,
        *,
        on_event: Callable[[Event], None] | None = None,
        keep_replies: int = 100,
    ) -> None:
        self.replies: dict[str, Reply] = {}
        self.speaking = False
        self.partial = ("", "")
        self.transcripts: list[str] = []
        self.unanswered = 0
        self.errors: list[str] = []
        self.events = 0
        self.connected = True
        self.ended = False
        self._client = client
        self._playout = playout
        self._on_event = on_event
        self._keep_replies = keep_replies
        self._turn_ended_s: float | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Asks for transcripts, and a server of ours for its extra events. Call it before `run`."""
        model = "relay" if self._client.offers_extras else OTHERS_TRANSCRIBER
        transcripts = {"audio": {"input": {"transcription": {"model": model}}}}
        await self._client.update(transcripts | (EXTRAS if self._client.offers_extras else {}))

    async def report(self, playback: Playback) -> None:
        """Tells a server of ours what has been played; other servers do not ask. Pass it to a card."""
        if self._client.offers_extras:
            await self._client.report_playback(playback.response_id, playback.played_samples)

    async def run(self) -> None:
        """Follows the session until the server closes it. Raises ConnectionFailed when it is lost."""
        try:
            async for event in self._client:
                await self._take(event)
                if self._on_event is not None:
                    self._on_event(event)
                self.touch()
        finally:
            self.ended = True
            self.touch()

    def touch(self) -> None:
        """Lets `until` look again; for what changes without an event, such as the playout clock."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition on this state holds. Raises ConnectionFailed when the session ends before it does."""
        while not condition():
            if self.ended:
                raise ConnectionFailed("the server ended the session; see its log")
            self._changed.clear()
            await self._changed.wait()

    @property
    def quiet(self) -> bool:
        """Whether nobody speaks, nothing is under way and everything has been played."""
        busy = self.speaking or self.unanswered or self._playout.buffered_samples
        return not busy and all(reply.over for reply in self.replies.values())

    async def _take(self, event: Event) -> None:
        self.events += 1
        now_s = asyncio.get_running_loop().time()
        match event:
            case OutputAudio(response_id=response_id, first_sample=first_sample, pcm=pcm):
                self._playout.push(response_id, first_sample, pcm)
                reply = self._reply(response_id)
                reply.audio_samples += len(pcm)
                if reply.first_audio_s is None:
                    reply.first_audio_s = now_s
            case reply_events.ResponseCreated(response=response):
                self.unanswered = 0
                self.replies[response.id] = Reply(response.id, now_s, self._turn_ended_s)
                if len(self.replies) > self._keep_replies:
                    del self.replies[next(iter(self.replies))]
            case reply_events.ResponseOutputItemAdded(response_id=response_id, item=item):
                self._reply(response_id).item_id = item.id if isinstance(item.id, str) else None
            case (
                reply_events.ResponseOutputAudioTranscriptDelta(response_id=response_id, delta=delta)
                | reply_events.ResponseOutputTextDelta(response_id=response_id, delta=delta)
            ):
                self._reply(response_id).text += delta
            case reply_events.RelayWords(response_id=response_id, words=words):
                self._reply(response_id).words += words
            case reply_events.RelayMetrics(response_id=response_id, metrics=metrics):
                self._reply(response_id).metrics = metrics
            case reply_events.RelayDraft(response_id=response_id, draft=draft):
                self._reply(response_id).draft = draft
            case reply_events.RelayDuck(ducked=ducked):
                if ducked:
                    self._playout.hold()
                else:
                    self._playout.resume()
            case reply_events.ResponseDone(response=response):
                reply = self._reply(response.id)
                reply.status = response.status
                if response.status_details and isinstance(response.status_details.error, reply_events.ResponseError):
                    reply.failure = response.status_details.error.message
            case got.InputAudioBufferSpeechStarted():
                self.speaking = True
                await self.interrupt()
            case got.InputAudioBufferSpeechStopped():
                self.speaking = False
                self._turn_ended_s = now_s
            case got.InputAudioBufferCommitted():
                self.unanswered += 1
            case got.RelayPartial(stable=stable, unstable=unstable):
                self.partial = (stable, unstable)
            case got.TranscriptionCompleted(transcript=transcript):
                self.partial = ("", "")
                if transcript:
                    self.transcripts.append(transcript)
                else:  # nothing was said: nobody will answer
                    self.unanswered = max(0, self.unanswered - 1)
            case got.TranscriptionFailed(error=detail):
                self.unanswered = max(0, self.unanswered - 1)
                self.errors.append(detail.message)
            case got.Error(error=detail):
                self.errors.append(detail.message)
            case Reconnecting():
                self.connected = False
            case Reconnected(lost_responses=lost):
                self.connected, self.speaking, self.unanswered, self.partial = True, False, 0, ("", "")
                self._playout.resume()
                for response_id in lost:
                    reply = self._reply(response_id)
                    reply.status, reply.failure = "failed", "the connection was lost"
            case _:
                pass

    async def interrupt(self) -> None:
        """The user speaks: the reply falls silent."""
        cut = [r for r in self.replies.values() if not r.over or self._playout.waiting(r.response_id)]
        self._playout.flush()
        if self._client.offers_extras:
            return
        for reply in cut:
            if reply.item_id is not None:
                played = self._playout.played_samples(reply.response_id)
                await self._client.truncate(reply.item_id, ms_of(played, self._playout.rate_hz))

    def _reply(self, response_id: str) -> Reply:
        if response_id not in self.replies:  # `response.created` was before our time
            self.replies[response_id] = Reply(response_id, asyncio.get_running_loop().time())
        return self.replies[response_id]


async def hold(
    client: Client,
    dialogue: Dialogue,
    playout: PlayoutClock,
    script: Script,
    on_block: Callable[[Int16Array, Int16Array], None] | None = None,
) -> PacedCard:
    """Speaks a script in real time and listens until all of it has been said, answered and played.

    The end is 1.5 s in which nobody speaks and nothing is under way.

    Returns:
        The card, which knows its clock.

    Raises:
        ConnectionFailed: The session was lost.
        StageFailed: Something is under way and the server has said nothing for 30 s.
    """
    settle, patience = samples_in(SETTLE_MS, VOICE_RATE_HZ), samples_in(SILENCE_TIMEOUT_MS, VOICE_RATE_HZ)
    busy_until = alive_until = events = 0

    def block(heard: Int16Array, played: Int16Array) -> None:
        nonlocal busy_until, alive_until, events
        if not (script.silent and dialogue.quiet):
            busy_until = script.position
        if not script.silent or playout.buffered_samples or dialogue.events != events:
            alive_until, events = script.position, dialogue.events
        if on_block is not None:
            on_block(heard, played)
        dialogue.touch()

    def settled() -> bool:
        if script.position - alive_until > patience:
            raise StageFailed("brain", "the server owes an answer and has said nothing for 30 s; see its log")
        return script.silent and script.position - busy_until >= settle

    card = PacedCard(script, playout, client.append, report=dialogue.report, on_block=block)
    await until_first(dialogue.run(), card.run(), dialogue.until(settled))
    return card


async def until_first(*work: Coroutine[Any, Any, None]) -> None:
    """Runs all side by side until the first of them ends, then stops the others. Raises what the first raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
