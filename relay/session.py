"""One caller: the path from audio in to audio out. A TaskGroup wires the stages; the turn machine decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from typing import Any, Literal, TypeAlias

from relay.audio import BYTES_PER_SAMPLE, RATE_HZ, Format
from relay.brains import Dialogue
from relay.channel import Channel, ChannelFull
from relay.errors import AudioTooFast, BadEvent, StageFailed, shown
from relay.events import Message, Piece
from relay.fast_path import FastPath
from relay.handoff import Handoff
from relay.metrics import StageClock
from relay.out_of_band import OutOfBand
from relay.replies import Replies
from relay.reply import FALLBACKS, Reply, once
from relay.services import Recorder, Services, Transport
from relay.speculation import Speculation
from relay.stages.speak import Voice
from relay.tasks import first_error, forget_cancellation
from relay.turn import (
    AnnounceTurn,
    CancelAsked,
    DropPrepared,
    DuckReply,
    Event,
    Policy,
    PrepareReply,
    ReplyEnded,
    ResponseAsked,
    ResumeReply,
    StartReply,
    StopReply,
    TimedOut,
    TurnState,
    step,
)
from relay.user import UserSide
from relay.user_turn import confidence_of
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
from relay.wire.realtime import RealtimeProtocol
from relay.writer import Writer

_BYTES_PER_S = 48_000  # of the widest input format
_LONGEST_DUCK_S = 4.0  # more than it takes to tell what is said; audio that has stopped coming tells nothing
_NUDGE = "(The user has said nothing for a while.)"


Ordered: TypeAlias = AudioAppended | CommitRequested | InputCleared | SessionChanged | ResponseRequested


class Session:
    """One caller's dialogue over one transport.

    Args:
        transport: The connection.
        protocol: A fresh protocol core.
        services: What all sessions share.
        recorder: Keeps what is heard and said, if anything does.
    """

    def __init__(
        self, transport: Transport, protocol: RealtimeProtocol, services: Services, recorder: Recorder | None = None
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._services = services
        self._recorder = recorder
        self._writer = Writer(transport, protocol, recorder, services.limits.send_timeout_s)
        self._flush = self._writer.flush
        # Audio and what must keep its place in it; one that is heard more slowly than it comes runs into the bound.
        self._ordered: Channel[Ordered] = Channel(
            int(services.limits.max_audio_ahead_s * _BYTES_PER_S), policy="error", weight=_weight
        )
        self._fast = FastPath(services.fast, services.metrics)
        self._user = UserSide(
            protocol,
            services,
            recorder,
            self._turn,
            self._is_quiet,
            self._flush,
            self._fast.heard,
            lambda text: self._dialogue.end_probability(protocol.basis_after(text).messages),
            lambda: self._fast.signals,
        )
        self._beside = OutOfBand(
            protocol,
            services,
            spawn=self._spawn,
            settled=self._settled,
            flush=self._flush,
            on_audio=self._count_audio,
        )
        self._audio_ahead_s = self._audio_at_s = 0.0
        self._state = TurnState()
        self._stepped = asyncio.Event()
        self._duck_over: asyncio.TimerHandle | None = None
        self._asked: ResponseParams | None = None
        self._replies = Replies(protocol)
        self._speculation: Speculation | None = None
        self._prepared: Handoff | None = None
        self._in_dialogue: set[asyncio.Task[None]] = set()  # its caches are one reply's at a time
        self._dialogue: Dialogue
        self._tasks: asyncio.TaskGroup

    # --------------------------------------------------------------------------------------------------------- lifetime

    async def run(self) -> None:
        """Serves the caller until it leaves. Raises RelayError for what ends the connection from our side."""
        async with self._services.brain.dialogue() as self._dialogue:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    background = [
                        self._tasks.create_task(self._writer.run()),
                        self._tasks.create_task(self._obey()),
                        self._tasks.create_task(self._user.hear()),
                        self._tasks.create_task(self._user.judge()),
                        self._tasks.create_task(self._fast.run()),
                    ]
                    self._protocol.open()
                    self._flush()
                    await self._receive()
                    if self._reply is not None:
                        self._reply.stop(barge_in=False)
                    if self._speculation is not None:
                        self._speculation.drop()
                    self._beside.stop()
                    for task in background:
                        task.cancel()
                    if self._duck_over is not None:
                        self._duck_over.cancel()
            except BaseExceptionGroup as group:
                raise first_error(group) from group

    async def _receive(self) -> None:
        while (message := await self._transport.receive()) is not None:
            if self._recorder is not None and isinstance(message, str):
                self._recorder.event(message, "client")
            for command in self._protocol.receive(message):
                self._handle(command)
            self._flush()
            # A client that does not read its answers is not read either: nothing piles up here.
            await self._writer.drained()

    # ------------------------------------------------------------------------------------------------- what clients ask

    def _handle(self, command: Command) -> None:
        match command:
            case CancelRequested(response_id=response_id):
                if not self._beside.cancel(response_id):
                    self._turn(CancelAsked())
            case OutputCleared():
                reply = self._reply
                self._turn(CancelAsked())
                if reply is not None:
                    self._protocol.output_cleared(reply.response.id)
            case TruncateRequested():
                self._replies.truncate(command)
            case PlaybackReported(response_id=response_id, played_samples=played_samples):
                self._replies.played(response_id, played_samples)
            case _:
                if isinstance(command, AudioAppended):
                    self._check_rate(command)
                try:
                    self._ordered.put_nowait(command)
                except ChannelFull:
                    raise self._too_fast() from None

    def _check_rate(self, audio: AudioAppended) -> None:
        """A leaky bucket: it drains in real time, and what fills it past the limit comes too fast, heard or not."""
        now_s = asyncio.get_running_loop().time()
        drained_s = max(0.0, self._audio_ahead_s - (now_s - self._audio_at_s))
        self._audio_ahead_s, self._audio_at_s = drained_s + self._user.seconds_of(audio.data), now_s
        if self._audio_ahead_s > self._services.limits.max_audio_ahead_s:
            raise self._too_fast()

    def _too_fast(self) -> AudioTooFast:
        ahead_s = self._services.limits.max_audio_ahead_s
        return AudioTooFast(f"more than {ahead_s:.0f} s of audio came ahead of real time; send it as it is spoken")

    async def _obey(self) -> None:
        """Follows what has a place in the stream of audio, in order."""
        async for command in self._ordered:
            match command:
                case AudioAppended(data=data):
                    await self._user.append(data)
                case CommitRequested(event_id=event_id):
                    await self._user.commit(event_id)
                case InputCleared():
                    await self._user.clear()
                case SessionChanged(config=config, changed=changed):
                    if changed & {"input_format", "turn_detection"}:
                        await self._user.reconfigure(config)
                case ResponseRequested(params=params, event_id=event_id):
                    if params.conversation == "none":
                        self._beside.start(params, event_id)
                    elif self._asked is None:
                        self._asked = params
                        self._turn(ResponseAsked())
                    else:
                        message = "a response was asked for already; wait for its response.done, or cancel it"
                        error = BadEvent(message, code="conversation_already_has_active_response")
                        self._protocol.error(error, event_id)
            self._flush()

    # --------------------------------------------------------------------------------------------------------- replying

    def _turn(self, event: Event) -> TurnState:
        self._state, actions = step(self._state, event, self._policy())
        self._stepped.set()
        if self._state.weighed is None and self._duck_over is not None:
            self._duck_over.cancel()
            self._duck_over = None
        for action in actions:
            match action:
                case AnnounceTurn(turn_id=turn_id):
                    self._user.announce(turn_id)
                case DuckReply():
                    self._duck()
                case ResumeReply():
                    self._services.metrics.backchannels.inc()
                    self._replies.resume()
                case StopReply(barge_in=barge_in):
                    self._stop_reply(barge_in=barge_in)
                case StartReply():
                    self._start_reply(action, nudge=isinstance(event, TimedOut))
                case PrepareReply(turn_id=turn_id, text=text):
                    basis = self._protocol.basis_after(text)
                    confidence = self._user.confidence_of(turn_id)
                    handoff = self._fast.handoff(self._dialogue, confidence, basis.path)
                    self._prepared = handoff if basis.speaks else None
                    self._speculation = Speculation(
                        basis,
                        self._prepared or self._dialogue,
                        self._services.voice,
                        after=tuple(self._in_dialogue),
                        spawn=self._spawn_in_dialogue,
                    )
                case DropPrepared(went_on=went_on):
                    self._end_speculation("continued" if went_on else "stale")
        return self._state

    def _policy(self) -> Policy:
        """What the client wants done by itself, and whether speech that begins now may be a backchannel."""
        config, reply = self._protocol.config, self._reply
        detection = config.turn_detection
        if detection is None:
            return Policy(False, False)
        # A reply may have been asked for before the session became one of transcription: speech still stops it.
        answers = detection.create_response and config.type == "realtime"
        weighs = reply is not None and reply.is_in_full_swing and (reply.response.ducks or self._user.hears_soon)
        return Policy(answers, detection.interrupt_response, weighs and config.type == "realtime")

    def _duck(self) -> None:
        self._replies.duck()
        # Time within a session is its audio: a client that sends no more of it would never hear the rest of the reply.
        loop = asyncio.get_running_loop()
        self._duck_over = loop.call_later(_LONGEST_DUCK_S, self._user.settle, False)

    @property
    def _reply(self) -> Reply | None:
        return self._replies.latest

    def _is_quiet(self) -> bool:
        """Nobody speaks, and the last reply has been heard to its end."""
        return self._state.is_quiet and self._reply is not None and self._reply.is_heard_whole

    async def _settled(self) -> None:
        """Waits until all that was said is recognised."""
        while self._state.hearing:
            self._stepped.clear()
            await self._stepped.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        task.add_done_callback(forget_cancellation)
        return task

    def _spawn_in_dialogue(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._spawn(work)
        self._in_dialogue.add(task)
        task.add_done_callback(self._in_dialogue.discard)
        return task

    def _end_speculation(self, outcome: Literal["committed", "stale", "continued"]) -> None:
        """The speculation is no longer one; unless it becomes a reply, nothing stays of it."""
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            self._services.metrics.speculations.labels(outcome).inc()
            if outcome != "committed":
                speculation.drop()

    def _start_reply(self, start: StartReply, *, nudge: bool) -> None:
        params, self._asked = (self._asked, None) if start.asked else (None, self._asked)
        user_turn = self._user.take_turn(start.turn_id)
        relay = self._protocol.config.relay
        reply = Reply(
            start.turn_id,
            self._protocol.begin_response(params),
            (user_turn and user_turn.clock) or StageClock(),
            heard_s=user_turn.audio_s if user_turn else 0.0,
            reports_playback=relay is not None and relay.playback,
            lead_s=self._services.limits.playout_lead_s,
            flush=self._flush,
            on_audio=self._on_audio,
            on_words=self._fast.said,
        )
        self._replies.begin(reply)
        failure = user_turn.failure if user_turn else None
        speculation = self._speculation if start.prepared and failure is None else None
        if speculation is not None and speculation.can_answer(reply.response.basis()):
            self._end_speculation("committed")
            following = self._follow(reply, speculation.pieces(), speculation.voice, handoff=self._prepared)
            reply.task = self._spawn_in_dialogue(following)
            speculation.become(reply.task)
        else:
            self._end_speculation("stale")
            after = tuple(self._in_dialogue)
            answers_speech = user_turn is not None and (params is None or (params.instructions or params.input) is None)
            heard = user_turn.partial if user_turn is not None and answers_speech else None
            handoff = None
            if heard is not None:
                handoff = self._fast.handoff(self._dialogue, confidence_of(heard), reply.response.path)
            reply.task = self._spawn_in_dialogue(self._run_reply(reply, after, failure, handoff, nudge=nudge))

    async def _run_reply(
        self,
        reply: Reply,
        after: Collection[asyncio.Task[None]],
        failure: StageFailed | None,
        handoff: Handoff | None,
        *,
        nudge: bool,
    ) -> None:
        if after:
            await asyncio.wait(after)
        basis = reply.response.basis()
        if failure is not None or not basis.speaks:
            handoff = None
        if failure is not None:
            pieces = once(FALLBACKS["ears"])
        else:
            messages = [*basis.messages, *([Message("user", _NUDGE)] if nudge else [])]
            pieces = (handoff or self._dialogue).reply(messages, max_tokens=basis.max_tokens, tools=basis.tools)
        await self._follow(reply, pieces, self._services.voice if basis.speaks else None, failure, handoff)

    async def _follow(
        self,
        reply: Reply,
        pieces: AsyncIterator[Piece],
        voice: Voice | None,
        failure: StageFailed | None = None,
        handoff: Handoff | None = None,
    ) -> None:
        """Makes a reply of a brain's stream, and counts it."""
        await reply.run(pieces, voice, failure=failure, handoff=handoff)
        self._fast.ended("whole")
        metrics = self._services.metrics
        metrics.replies.labels("completed" if reply.error is None else "failed").inc()
        if reply.error is not None:
            metrics.errors.labels(shown(reply.error).code).inc()
        if {"endpointing", "voice_first"} <= reply.clock.stages_ms.keys():
            metrics.observe(reply.clock)
        self._turn(ReplyEnded(reply.turn_id))
        self._flush()

    def _stop_reply(self, *, barge_in: bool) -> None:
        reply = self._reply
        if reply is None or reply.is_heard_whole:
            return
        is_under_way = not reply.response.done
        reply.stop(barge_in=barge_in)
        self._fast.ended("broken")
        if barge_in:
            self._replies.cut()
            self._services.metrics.barge_ins.inc()
        elif reply.ledger.sent_samples:  # the client stopped it: words that were not sent were not said
            self._protocol.set_heard(reply.response.item_id, reply.ledger.text)
        if is_under_way:
            self._services.metrics.replies.labels("cancelled").inc()
        self._flush()

    def _count_audio(self, data: bytes, form: Format) -> None:
        self._services.metrics.audio_out.inc(len(data) / (BYTES_PER_SAMPLE[form] * RATE_HZ[form]))

    def _on_audio(self, data: bytes, form: Format) -> None:
        self._count_audio(data, form)
        if self._recorder is not None:
            self._recorder.said(self._user.received_samples, data, form)


def _weight(item: Ordered) -> int:
    return len(item.data) if isinstance(item, AudioAppended) else 1_000
