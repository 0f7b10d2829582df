"""One reply: think and speak side by side, audio paced to the client, the ledger of what was heard, calls of tools."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

from relay.audio import RATE_HZ, VOICE_RATE_HZ, Format, Int16Array, Resampler, encode_bytes, samples_in
from relay.channel import Channel
from relay.engine.voice import VoiceOutput
from relay.errors import RelayError, StageFailed
from relay.events import CallDelta, Piece, ReplyEnd
from relay.handoff import Handoff, Reason, report
from relay.heard import Ledger
from relay.metrics import StageClock
from relay.stages.hold import Hold
from relay.stages.speak import Voice, speak
from relay.stages.think import Verbatim, WordSplitter, think
from relay.wire.commands import Usage
from relay.wire.realtime import Response

log = logging.getLogger(__name__)

_WORDS_AHEAD = 64  # the brain may be this many words ahead of the voice
_CHUNK_SAMPLES = VOICE_RATE_HZ // 10  # a message of audio holds at most 100 ms, so that little is lost when it is stale
_SLACK_S = 0.001  # a lead that much too long is none
_BEGINNING_SAMPLES = samples_in(500, VOICE_RATE_HZ)  # who speaks sooner was not done, and goes on with the turn
_ENDING_SAMPLES = samples_in(400, VOICE_RATE_HZ)  # who speaks later answers

FALLBACKS = {
    "ears": "Sorry, I could not make that out. Please say it again.",
    "brain": "Sorry, I cannot answer right now. Please try again in a moment.",
}


class Reply:
    """A response on its way to the client. `run` it as a task; every end of it finishes the response exactly once.

    Args:
        turn_id: The turn that it answers; 0 out of band.
        response: The protocol's side of it.
        clock: Times of its stages, started at the end of the user's turn.
        heard_s: Duration of the speech that it answers.
        reports_playback: Whether the client says what it has played.
        lead_s: How far the audio sent may run ahead of what can have been played.
        flush: Lets the session's writer send what is queued.
        on_audio: Told of every piece of audio sent, with its format.
        on_words: Told of the words whose audio begins in what was just sent.
    """

    def __init__(
        self,
        turn_id: int,
        response: Response,
        clock: StageClock,
        *,
        heard_s: float = 0.0,
        reports_playback: bool,
        lead_s: float,
        flush: Callable[[], None],
        on_audio: Callable[[bytes, Format], None],
        on_words: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self.turn_id = turn_id
        self.response = response
        self.clock = clock
        self.ledger = Ledger()
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.was_interrupted = False
        self._stopped = False
        self._heard_s = heard_s
        self._end = ReplyEnd()
        self._form: Format = response.params.output_format or "pcm16"
        self._rate_hz = RATE_HZ[self._form]
        self._reports_playback = reports_playback
        self._lead_s = lead_s
        self._flush = flush
        self._on_audio = on_audio
        self._on_words = on_words
        self._handoff: Handoff | None = None
        self._told_draft = False
        self._sent_wire_samples = 0
        self._first_sent_s: float | None = None
        self._ducked_at_s: float | None = None
        self._ducked_s = 0.0  # how long it was ducked before
        self._not_ducked = asyncio.Event()
        self._not_ducked.set()

    # ----------------------------------------------------------------------------------------------------------- making

    async def run(
        self,
        pieces: AsyncIterator[Piece],
        voice: Voice | None,
        *,
        failure: StageFailed | None = None,
        apologise: bool = True,
        handoff: Handoff | None = None,
    ) -> None:
        """Makes the reply and finishes the response; raises nothing but cancellation.

        Args:
            pieces: The brain's stream.
            voice: None makes a reply of text only.
            failure: A stage before this one has failed: `pieces` is the apology for it.
            apologise: A brain that fails before its first word is apologised for.
            handoff: Makes the pieces, where there is a fast path.
        """
        self._handoff = handoff
        if handoff is not None:
            handoff.attach(self._tell_draft, self.clock)
        try:
            try:
                self._end = await self._say(pieces, voice)
            except StageFailed as error:
                failure = failure or error
                if error.stage == "brain" and apologise and not self.response.has_message:
                    log.warning("turn %d: %s", self.turn_id, error)
                    # Silence is not an answer: the person hears that something is wrong, the client reads what.
                    await self._say(once(FALLBACKS["brain"]), voice)
            self._finish(failure)
        except RelayError as error:
            self._finish(failure or error)
        except Exception as error:
            log.exception("turn %d: the reply failed", self.turn_id)
            self._finish(error)
        finally:
            if handoff is not None:
                handoff.detach()

    def fail(self, error: RelayError) -> None:
        """Ends a reply that could not be begun."""
        self._finish(error)

    async def _say(self, pieces: AsyncIterator[Piece], voice: Voice | None) -> ReplyEnd:
        words: Channel[str] = Channel(_WORDS_AHEAD)
        self._resampler = Resampler(VOICE_RATE_HZ, self._rate_hz)
        said = asyncio.Event()
        ends: list[ReplyEnd | StageFailed] = []

        async def thinking() -> None:
            # What was said before the brain failed is still spoken to its end; the failure is reported after it.
            splitter = Verbatim() if voice is None else WordSplitter()
            try:
                ends.append(await think(pieces, words, self._on_word, calling, splitter))
            except StageFailed as error:
                ends.append(error)

        async def calling(delta: CallDelta) -> None:
            # A client may ask for the next response as soon as it has run a tool: nothing but response.done may be due
            # after a call. So it waits for the words before it, which are sent ahead of their playback.
            await said.wait()
            self.clock.lap("llm_first")
            self.response.call(delta)
            self._flush()

        async def speaking() -> None:
            if voice is None:
                await _discard(words)
            else:
                await speak(
                    words, voice, self._send, speed=self.response.speed, hold=self._hold(), ahead_s=self._ahead_s
                )
            said.set()

        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(thinking())
                stages.create_task(speaking())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        (end,) = ends
        if isinstance(end, StageFailed):
            raise end
        return end

    def _hold(self) -> Hold | None:
        handoff = self._handoff
        if handoff is None:
            return None
        return Hold(lambda: handoff.is_waiting, self._ahead_s, handoff.give_up)

    def _on_word(self, word: str) -> None:
        self.clock.lap("llm_first")
        self.response.transcript(word)
        self._flush()

    async def _send(self, output: VoiceOutput) -> None:
        words = deque(output.words)
        for at in range(0, max(len(output.pcm), 1), _CHUNK_SAMPLES):
            pcm = output.pcm[at : at + _CHUNK_SAMPLES]
            self._send_wire(self._resampler.step(pcm))
            until = self.ledger.sent_samples + len(pcm)
            is_last = at + _CHUNK_SAMPLES >= len(output.pcm)
            begun = []  # a word goes with the audio in which it begins
            while words and (is_last or words[0].start_sample < until):
                begun.append(words.popleft())
            self.ledger.sent(len(pcm), begun)
            if begun:
                self.response.words([(w.text, self._wire(w.start_sample), self._wire(w.end_sample)) for w in begun])
                self._on_words([word.text for word in begun])
            self._flush()
            await self._keep_lead()
        if output.final:
            self._send_wire(self._resampler.step(output.pcm[:0], last=True))
            self._flush()

    def _send_wire(self, pcm: Int16Array) -> None:
        if not len(pcm):
            return
        data = encode_bytes(pcm, self._form)
        self.response.audio(data, self._sent_wire_samples)
        self._sent_wire_samples += len(pcm)
        self._on_audio(data, self._form)
        if self._first_sent_s is None:
            self._first_sent_s = asyncio.get_running_loop().time()
            self.clock.lap("voice_first")
            self.response.metrics(self.clock.report(path=self._path))

    @property
    def _path(self) -> str:
        return "cascade" if self._handoff is None else self._handoff.path

    def _tell_draft(self, values: dict[str, Any]) -> None:
        self._told_draft = True
        self.response.draft(values)

    def _tell_rest(self, reason: Reason) -> None:
        """What is told of every response, as far as nothing has told it; `reason`: why a draft came to nothing."""
        if self.response.path != "cascade" and not self._told_draft:
            is_trying = self._handoff is not None and self._handoff.is_trying
            self._tell_draft(report(reason=reason if is_trying else "unasked"))
        if self._first_sent_s is None:
            self.response.metrics(self.clock.report(path=self._path, heard=False))

    def _ahead_s(self) -> float | None:
        """How much of what was sent cannot have been played yet; None before the first."""
        return None if self._first_sent_s is None else self.ledger.sent_samples / VOICE_RATE_HZ - self._elapsed_s()

    async def _keep_lead(self) -> None:
        while (lead_s := self.ledger.sent_samples / VOICE_RATE_HZ - self._elapsed_s() - self._lead_s) > _SLACK_S:
            await asyncio.sleep(lead_s)
            await self._not_ducked.wait()

    def _finish(self, error: BaseException | None) -> None:
        self.error = error
        if not self.response.done:
            self._tell_rest("failed")
        if error is not None:
            self.response.finish("failed", error=error, usage=self.usage)
        elif self._end.reason == "length":
            self.response.finish("incomplete", reason="max_output_tokens", usage=self.usage)
        elif self._end.reason == "content_filter":
            self.response.finish("incomplete", reason="content_filter", usage=self.usage)
        else:
            self.response.finish("completed", usage=self.usage)
        self._flush()

    @property
    def usage(self) -> Usage:
        """Tokens taken so far; see `Usage` for what counts as one."""
        return Usage(
            input_text_tokens=self._end.input_tokens,
            input_audio_tokens=math.ceil(self._heard_s * 10),
            cached_tokens=self._end.cached_tokens,
            output_text_tokens=self._end.output_tokens,
            output_audio_tokens=math.ceil(self.ledger.sent_samples * 20 / VOICE_RATE_HZ),
        )

    # ---------------------------------------------------------------------------------------------------------- hearing

    def stop(self, *, barge_in: bool) -> None:
        """Ends the reply now; nothing of it is sent any more. Harmless when it has ended."""
        reason: Literal["turn_detected", "client_cancelled"] = "turn_detected" if barge_in else "client_cancelled"
        if not self.response.done:
            self._tell_rest("interrupted")
        self.response.finish("cancelled", reason, usage=self.usage)
        self._stopped = True
        if self.task is not None:
            self.task.cancel()

    def duck(self) -> None:
        """The client holds what it has of the reply until `resume`; nothing for clients that do not."""
        if self.response.ducks and self._ducked_at_s is None:
            self._ducked_at_s = asyncio.get_running_loop().time()
            self._not_ducked.clear()
            self.response.ducked(True)

    def resume(self) -> None:
        """The client plays on. Harmless when it does."""
        if self._ducked_at_s is not None:
            self._ducked_s += asyncio.get_running_loop().time() - self._ducked_at_s
            self._ducked_at_s = None
            self._not_ducked.set()
            self.response.ducked(False)

    def played(self, wire_samples: int) -> None:
        """Takes the client's report, in samples of the output format."""
        self._reports_playback = True
        self.ledger.played(wire_samples * VOICE_RATE_HZ // self._rate_hz)

    @property
    def played_samples(self) -> int:
        """Samples that the person can have heard: as reported, else bounded by the time since the first was sent."""
        if self._reports_playback:
            return self.ledger.reported_samples or 0
        return min(int(self._elapsed_s() * VOICE_RATE_HZ), self.ledger.sent_samples)

    @property
    def is_playing(self) -> bool:
        """Whether it was sent whole, and nobody has stopped it, and some of it is still to be heard."""
        return self.response.done and not self._stopped and not self.is_heard_whole

    @property
    def is_heard_whole(self) -> bool:
        """Whether all that was made has been played."""
        return self.response.done and self.played_samples >= self.ledger.sent_samples

    @property
    def is_in_full_swing(self) -> bool:
        """Whether it has been heard for a while, and more than its last word is to come."""
        played = self.played_samples
        goes_on = not self.response.done or self.ledger.sent_samples - played >= _ENDING_SAMPLES
        return not self._stopped and played >= _BEGINNING_SAMPLES and goes_on

    def heard(self) -> str:
        """The words heard so far."""
        return self.ledger.heard(self.played_samples)

    def heard_until_ms(self, audio_end_ms: int) -> str:
        """The words heard when the first `audio_end_ms` of the reply were."""
        return self.ledger.heard(audio_end_ms * VOICE_RATE_HZ // 1000)

    def _elapsed_s(self) -> float:
        """How long the client can have been playing."""
        if self._first_sent_s is None:
            return 0.0
        now_s = asyncio.get_running_loop().time() if self._ducked_at_s is None else self._ducked_at_s
        return now_s - self._first_sent_s - self._ducked_s

    def _wire(self, voice_samples: int) -> int:
        return voice_samples * self._rate_hz // VOICE_RATE_HZ


async def once(text: str) -> AsyncIterator[Piece]:
    """A stream of one piece."""
    yield text


async def _discard(words: Channel[str]) -> None:
    async for _ in words:
        pass
