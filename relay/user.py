"""The user's side of a session: audio -> turns -> transcripts, announced to the client and to the turn machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.backchannel import is_backchannel, wants_floor
from relay.channel import Channel
from relay.config import Limits
from relay.endpoint import Ended, Endpointing, Started
from relay.engine.draft import Signals
from relay.engine.ears import EarsOutput
from relay.errors import BadEvent, StageFailed
from relay.evidence import end_evidence
from relay.idle import IdleTimer
from relay.metrics import StageClock
from relay.phrase import may_be_end, same_words, silence_ms
from relay.services import Recorder, Services
from relay.stages.hear import TurnAudio, hear
from relay.stages.judge import Judge
from relay.stages.listen import NO_AUDIO, Intake, Speech, input_ms
from relay.turn import (
    Event,
    SpeechWeighed,
    TimedOut,
    Transcribed,
    TurnClaimed,
    TurnState,
    UserPaused,
    UserResumed,
    UserStarted,
    UserStopped,
)
from relay.user_turn import UserTurn, confidence_of
from relay.wire.config import SessionConfig
from relay.wire.realtime import RealtimeProtocol

log = logging.getLogger(__name__)

_MANY_FRAMES = 25  # after half a second of audio from one message, the other sessions get their turn
_MANY_TURNS = 16  # turns that are remembered until they are answered
_DECIDE_MS = 200  # how long a client that goes on playing waits, at most, to learn of an interruption
_JUDGED_FROM_MS = 60  # silence after which words are worth a judgement: shorter ones are within words


class UserSide:
    """Hears one caller.

    Args:
        protocol: Announces turns and transcripts.
        services: The recogniser, limits and counters.
        recorder: Keeps the audio, if anything does.
        on_event: Steps the turn machine and says where it stands.
        is_quiet: Whether nobody speaks and all that was answered has been heard.
        flush: Lets the session's writer send what is queued.
        on_frame: Told of all audio, see `Intake`.
        end_probability: How likely the turn being spoken ends with these words; None if nobody can say.
        signals: What the draft model makes of the newest frame that it has heard, if there is one.
    """

    def __init__(
        self,
        protocol: RealtimeProtocol,
        services: Services,
        recorder: Recorder | None,
        on_event: Callable[[Event], TurnState],
        is_quiet: Callable[[], bool],
        flush: Callable[[], None],
        on_frame: Callable[[Int16Array], None],
        end_probability: Callable[[str], Awaitable[float | None]],
        signals: Callable[[], Signals | None] = lambda: None,
    ) -> None:
        self._protocol = protocol
        self._services = services
        self._recorder = recorder
        self._on_event = on_event
        self._is_quiet = is_quiet
        self._flush = flush
        self._idle = IdleTimer()
        config, limits = protocol.config, services.limits
        self._settings = (config.input_format, _endpointing(config, limits), _threshold(config))
        self._intake = Intake(config.input_format, self._settings[1], threshold=self._settings[2], on_frame=on_frame)
        self._to_ears: Channel[TurnAudio] = Channel(
            int(limits.max_audio_ahead_s * EARS_RATE_HZ), weight=lambda item: max(1, len(item.pcm))
        )
        self._came_s = 0.0
        self._signals = signals
        self._judge = Judge(end_probability, self._on_judged)
        self._turn_id: int | None = None
        self._turns: dict[int, UserTurn] = {}
        self._begun: UserTurn
        self._needed_ms: int | None = None  # silence that ends the turn, where what is said decides
        self._unwanted: list[int] = []  # turns that were none, whose end the recogniser has not been told
        self._word_delay_ms: int | None = None

    @property
    def hears_soon(self) -> bool:
        """Whether words can be told while a client that goes on playing waits for it."""
        return self._word_delay_ms is not None and self._word_delay_ms < _DECIDE_MS

    async def hear(self) -> None:
        """Runs the recogniser; one task for as long as the session lasts."""
        await hear(
            self._to_ears,
            self._services.ears,
            self._on_heard,
            self._on_deaf,
            denoiser=self._services.denoiser,
            denoises=lambda: self._protocol.config.noise_reduction is not None,
        )

    async def judge(self) -> None:
        """Runs the judge of pauses; one task for as long as the session lasts."""
        await self._judge.run()

    async def commit(self, event_id: str | None) -> None:
        """The client ends the turn by hand."""
        if self._turn_id is not None:
            self._on_event(TurnClaimed())
        ended = self._intake.end()
        if ended is None:
            message = "the input audio buffer holds no speech to commit; append audio first"
            self._protocol.error(BadEvent(message, code="input_audio_buffer_commit_empty"), event_id)
        else:
            await self._end_turn(ended, event_id)

    async def clear(self) -> None:
        """The client empties its input buffer."""
        self._intake.clear()
        await self._discard_turn()
        self._protocol.input_cleared()

    async def reconfigure(self, config: SessionConfig) -> None:
        """The client changed its settings. If the format or how turns are found did, a turn under way is forgotten."""
        endpointing = _endpointing(config, self._services.limits)
        settings = (config.input_format, endpointing, _threshold(config))
        if settings == self._settings:
            return
        self._settings = settings
        await self._discard_turn()
        self._intake.configure(config.input_format, endpointing, threshold=_threshold(config))

    def confidence_of(self, turn_id: int) -> float:
        """How sure the recogniser is of what it has heard of a turn: the mean of its words; 0 if it does not say."""
        user_turn = self._turns.get(turn_id)
        return 0.0 if user_turn is None or user_turn.partial is None else confidence_of(user_turn.partial)

    def take_turn(self, turn_id: int) -> UserTurn | None:
        """What is known of a turn that is about to be answered; it is forgotten here."""
        return self._turns.pop(turn_id, None)

    @property
    def received_samples(self) -> int:
        """How much audio has come, at 16 kHz: the session's clock."""
        return self._intake.received_samples

    def seconds_of(self, data: bytes) -> float:
        """How long audio in the session's input format lasts."""
        return self._intake.seconds_of(data)

    async def append(self, data: bytes) -> None:
        """Audio in the session's input format."""
        seconds = self._intake.seconds_of(data)
        self._services.metrics.audio_in.inc(seconds)
        # Audio that is sent ahead of real time has the time that it would have if it were not.
        self._came_s = max(self._came_s + seconds, asyncio.get_running_loop().time())
        if self._recorder is not None:
            self._recorder.heard(self._intake.received_samples, data)
        for count, found in enumerate(self._intake.push(data), 1):
            match found:
                case Speech(pcm=pcm):
                    await self._discard_unwanted()
                    if self._turn_id is not None:
                        await self._to_ears.put(TurnAudio(self._turn_id, pcm, self._came_s))
                        self._wait_for_more()
                        self._watch_pause()
                        self._weigh()
                case Started():
                    self._begin_turn(found)
                case Ended():
                    await self._end_turn(found, None)
            if count % _MANY_FRAMES == 0:
                await asyncio.sleep(0)
        self._check_idle()

    def _check_idle(self) -> None:
        """After too long a silence, it is committed as the user's turn, and answered."""
        config = self._protocol.config
        detection = config.turn_detection
        answers = detection is not None and detection.create_response and config.type == "realtime"
        timeout_ms = detection.idle_timeout_ms if detection is not None and answers else None
        now_ms = input_ms(self._intake.received_samples)
        began_ms = self._idle.step(now_ms, quiet=self._is_quiet(), timeout_ms=timeout_ms)
        if began_ms is None:
            return
        item_id = self._protocol.new_item_id()
        self._protocol.timeout_triggered(began_ms, now_ms, item_id)
        self._protocol.input_committed(item_id)
        self._protocol.transcription_completed(item_id, "", (now_ms - began_ms) / 1000)
        self._on_event(TimedOut())
        self._flush()

    def announce(self, turn_id: int) -> None:
        """Tells the client that a turn began, and what else has become of it by now."""
        user_turn = self._turns.get(turn_id)
        if user_turn is None:  # it has just begun
            user_turn = self._turns[turn_id] = self._begun
        user_turn.item_id = self._protocol.speech_started(input_ms(user_turn.begin_sample))
        if user_turn.decided_sample is not None:
            self._tell_end(user_turn, None)
        self._tell_outcome(user_turn)

    def _begin_turn(self, started: Started) -> None:
        manual = self._intake.is_manual
        # In a manual turn the item is announced by the commit alone.
        item_id = self._protocol.new_item_id() if manual else None
        self._begun = UserTurn(item_id, started.audio_sample, started.speech_sample, self._intake.received_samples)
        self._turn_id = self._on_event(UserStarted(manual=manual)).utterance
        if self._turn_id is not None:
            self._turns.setdefault(self._turn_id, self._begun)
        while len(self._turns) > _MANY_TURNS:
            del self._turns[next(iter(self._turns))]
        self._wait_for_more()
        self._flush()

    def _weigh(self) -> None:
        """Tells what is known of speech under a reply while it may be no turn; forgets it when it is none."""
        if self._turn_id is None or not self._intake.in_utterance:
            return
        user_turn = self._turns[self._turn_id]
        if user_turn.item_id is not None:
            return
        now, silent_ms = self._intake.received_samples, self._intake.silence_ms
        is_believed = self._word_delay_ms is not None
        overlap = user_turn.overlap(now, silent_ms, is_believed=is_believed, signals=self._signals())
        options = self._protocol.config.relay
        verdict = wants_floor(overlap, None if options is not None and options.duck else _DECIDE_MS)
        if verdict is not None:
            self.settle(verdict)

    def settle(self, wants_floor: bool) -> None:
        """What is being spoken under a reply, if anything is, is an interruption or is none."""
        turn_id = self._turn_id
        if turn_id is not None and self._on_event(SpeechWeighed(wants_floor)).utterance != turn_id:
            self._intake.clear()
            del self._turns[turn_id]
            self._unwanted.append(turn_id)
            self._turn_id = None
        self._flush()

    async def _end_turn(self, ended: Ended, event_id: str | None) -> None:
        turn_id, self._turn_id = self._turn_id, None
        if turn_id is None:
            return
        user_turn = self._turns[turn_id]
        user_turn.decided_sample = ended.decided_sample
        user_turn.audio_s = (ended.decided_sample - user_turn.begin_sample) / EARS_RATE_HZ
        user_turn.clock = StageClock.at_turn_end(input_ms(ended.speech_sample), input_ms(ended.decided_sample))
        if user_turn.item_id is not None:
            self._tell_end(user_turn, event_id)
        self._on_event(UserStopped())
        self._flush()
        await self._to_ears.put(TurnAudio(turn_id, NO_AUDIO, self._now_s(), last=True))

    def _tell_end(self, user_turn: UserTurn, event_id: str | None) -> None:
        if not self._intake.is_manual and user_turn.decided_sample is not None:
            self._protocol.speech_stopped(input_ms(user_turn.decided_sample), user_turn.item_id or "")
        user_turn.item_id = self._protocol.input_committed(user_turn.item_id, event_id)

    async def _discard_unwanted(self) -> None:
        while self._unwanted:
            await self._to_ears.put(
                TurnAudio(self._unwanted.pop(0), NO_AUDIO, self._now_s(), last=True, discarded=True)
            )

    async def _discard_turn(self) -> None:
        turn_id, self._turn_id = self._turn_id, None
        if turn_id is not None:
            del self._turns[turn_id]
            self._on_event(UserStopped(discarded=True))
            await self._to_ears.put(TurnAudio(turn_id, NO_AUDIO, self._now_s(), last=True, discarded=True))

    def _now_s(self) -> float:
        """When the newest audio was spoken; see `TurnAudio.came_s`."""
        return max(self._came_s, asyncio.get_running_loop().time())

    def _on_heard(self, turn_id: int, output: EarsOutput) -> None:
        self._word_delay_ms = output.word_delay_ms
        user_turn = self._turns.get(turn_id)
        if user_turn is None:
            return
        if not output.final:
            if output != user_turn.partial:
                user_turn.partial = output
                if turn_id == self._turn_id:
                    self._wait_for_more()
                    self._watch_pause()
                    self._weigh()
                if user_turn.item_id is not None:
                    if self._protocol.config.type == "transcription":
                        self._tell(user_turn, user_turn.item_id, output)
                    self._protocol.relay_partial(user_turn.item_id, output.stable, output.unstable)
        else:
            user_turn.partial = output
            self._tell_outcome(user_turn)
            if user_turn.clock is not None:
                user_turn.clock.lap("ears")
            text = output.stable
            self._on_event(Transcribed(turn_id, empty=not text.strip(), is_backchannel=is_backchannel(text)))
            if user_turn.item_id is None:  # it was no turn
                self._turns.pop(turn_id, None)
        self._flush()

    def _tell_outcome(self, user_turn: UserTurn) -> None:
        """Sends the transcript, or that there is none, once that is known."""
        item_id, output = user_turn.item_id, user_turn.partial
        if item_id is None:
            return
        if user_turn.failure is not None:
            self._protocol.transcription_failed(item_id, user_turn.failure)
        elif output is not None and output.final:
            self._tell(user_turn, item_id, output)
            words = [(word.text, word.confidence) for word in output.words]
            self._protocol.transcription_completed(item_id, output.stable, user_turn.audio_s, words)

    def _tell(self, user_turn: UserTurn, item_id: str, output: EarsOutput) -> None:
        """Sends what has become stable since the last time."""
        text, words = output.stable[user_turn.told_chars :], output.words[user_turn.told_words :]
        if text.strip():
            user_turn.told_chars, user_turn.told_words = len(output.stable), len(output.words)
            confident = [(word.text, word.confidence) for word in words]
            self._protocol.transcription_delta(item_id, text, confident)

    def _wait_for_more(self) -> None:
        """With semantic turn detection, a turn that sounds unfinished is given more time."""
        detection = self._protocol.config.turn_detection
        self._needed_ms = None
        if self._turn_id is None or detection is None or detection.type != "semantic_vad":
            return
        user_turn = self._turns[self._turn_id]
        text, judged = user_turn.text, user_turn.judged
        if text and self._intake.silence_ms >= _JUDGED_FROM_MS:
            self._judge.show(self._turn_id, text)
        probability = judged[1] if judged is not None and same_words(judged[0], text) else None
        evidence = end_evidence(self._signals(), self._intake.received_samples, self._intake.silence_ms)
        is_believed = self._word_delay_ms is not None
        needed_ms = silence_ms(text, probability, detection.eagerness, is_believed=is_believed, evidence=evidence)
        self._needed_ms = needed_ms
        self._intake.wait(needed_ms)

    def _on_judged(self, turn_id: int, text: str, probability: float) -> None:
        if turn_id == self._turn_id:
            self._turns[turn_id].judged = (text, probability)
            self._wait_for_more()

    def _watch_pause(self) -> None:
        """Tells when the turn being spoken has likely ended, and when it has not."""
        if self._turn_id is None or not self._intake.in_utterance or not self._services.speculate:
            return
        user_turn, silent_ms = self._turns[self._turn_id], self._intake.silence_ms
        if user_turn.item_id is None:  # it may be none, and nothing to answer
            return
        text, told = user_turn.text, user_turn.paused_after
        if not silent_ms:
            user_turn.paused_after = None
            if told is not None:
                self._on_event(UserResumed())
        elif may_be_end(text, silent_ms, self._needed_ms) and (told is None or not same_words(text, told)):
            user_turn.paused_after = text
            self._on_event(UserPaused(text))

    def _on_deaf(self, turn_id: int, error: StageFailed) -> None:
        log.warning("turn %d: %s", turn_id, error)
        user_turn = self._turns.get(turn_id)
        if user_turn is not None:
            user_turn.failure = error
            self._tell_outcome(user_turn)
        self._on_event(Transcribed(turn_id, empty=False))
        self._flush()


def _endpointing(config: SessionConfig, limits: Limits) -> Endpointing | None:
    detection = config.turn_detection
    if detection is None:
        return None
    if detection.type == "semantic_vad":
        patience_ms = silence_ms("", None, detection.eagerness)
        return Endpointing(silence_ms=patience_ms, max_utterance_ms=int(limits.max_utterance_s * 1000))
    return Endpointing(
        silence_ms=detection.silence_duration_ms,
        padding_ms=detection.prefix_padding_ms,
        max_utterance_ms=int(limits.max_utterance_s * 1000),
    )


def _threshold(config: SessionConfig) -> float:
    return config.turn_detection.threshold if config.turn_detection else 0.5
