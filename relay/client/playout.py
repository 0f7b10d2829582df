"""A sound card's output side, sans-IO: replies go in as they arrive, samples come out at the rate they are played.

Nothing here reads a clock. Time is `position`, the number of samples pulled so far: a real sound card pulls from its
callback, a paced client pulls one block each time that much time has passed. Both then know exactly which sample of
which response was played when; `relay.playback`, truncation, recordings and the latency benchmark need that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in


@dataclass(frozen=True, slots=True)
class Span:
    """Samples of one response played without a gap.

    Attributes:
        response_id: The response.
        first_sample: Place of the span's first sample in the response's output.
        position: Clock position at which it was played.
        samples: Length.
    """

    response_id: str
    first_sample: int
    position: int
    samples: int


@dataclass(frozen=True, slots=True)
class Playback:
    """How far a response has been played, in samples of its output."""

    response_id: str
    played_samples: int


@dataclass(slots=True)
class _Chunk:
    response_id: str
    first_sample: int
    pcm: Int16Array
    arrived: int


class PlayoutClock:
    """Bounded jitter buffer and playback ledger of one output stream. Safe to pull from a sound card's own thread.

    Playing begins once `prebuffer_ms` are buffered, or that long after the first sample came, whichever is earlier.
    When the buffer runs empty in the middle of a response, silence is played and buffering begins again; when the
    response goes on, an underrun is counted.

    Args:
        rate_hz: Sample rate of everything pushed and pulled.
        prebuffer_ms: Audio to gather before playing begins; 0 plays at once.
        capacity_ms: Most audio held. What does not fit is dropped and counted in `overflow_samples`. It is large
            because a server may send a whole reply faster than real time.
        report_every_ms: Clock time between reports of the same response.
        latency_ms: Delay between a pull and the sound leaving the device; subtracted from everything said to be played.

    Attributes:
        position: Samples pulled so far.
        now: Gives the position of the present instant when pulls may come late: what arrives after the instant for
            which a block is pulled is then not in it. None: pulls are on time.
        underruns: Gaps inside responses, and their length in samples (`underrun_samples`).
        overflow_samples: Samples dropped because the buffer was full.
    """

    def __init__(
        self,
        rate_hz: int = VOICE_RATE_HZ,
        *,
        prebuffer_ms: int = 20,
        capacity_ms: int = 120_000,
        report_every_ms: int = 100,
        latency_ms: int = 0,
    ) -> None:
        self.rate_hz = rate_hz
        self.position = 0
        self.now: Callable[[], int] | None = None
        self.underruns = 0
        self.underrun_samples = 0
        self.overflow_samples = 0
        self._prebuffer = samples_in(prebuffer_ms, rate_hz)
        self._capacity = samples_in(capacity_ms, rate_hz)
        self._report_every = samples_in(report_every_ms, rate_hz)
        self.latency_samples = samples_in(latency_ms, rate_hz)
        self._queue: deque[_Chunk] = deque()
        self._buffered = 0
        self._playing = False
        self._held = False
        self._was_held = False  # since the last sample that was pulled
        self._waiting_since = 0
        self._last_id: str | None = None  # response pulled last
        self._flushed: set[str] = set()
        self._spans: dict[str, list[Span]] = {}
        self._reported: dict[str, int] = {}  # responses not yet reported to their end
        self._report_position = -self._report_every
        self._lock = threading.RLock()

    @property
    def buffered_samples(self) -> int:
        """Samples that wait to be played."""
        return self._buffered

    def push(self, response_id: str, first_sample: int, pcm: Int16Array) -> int:
        """Adds output of a response; it is played after all that was pushed before.

        Args:
            response_id: The response it belongs to. Audio of a flushed response is dropped.
            first_sample: Place of `pcm[0]` in the response's output.
            pcm: [samples] int16.

        Returns:
            How many of the samples were kept.
        """
        with self._lock:
            if response_id in self._flushed or not len(pcm):
                return 0
            kept = min(len(pcm), self._capacity - self._buffered)
            self.overflow_samples += len(pcm) - kept
            if not kept:
                return 0
            arrived = self.position if self.now is None else self.now()
            if not self._queue:
                self._waiting_since = arrived
            self._queue.append(_Chunk(response_id, first_sample, pcm[:kept], arrived))
            self._buffered += kept
            return kept

    def pull(self, samples: int) -> Int16Array:
        """The next [samples] int16 to play, silence where there is nothing; moves the clock on by as much."""
        with self._lock:
            out = np.zeros(samples, dtype=np.int16)
            waited = self.position - self._waiting_since
            here = self._queue and self._queue[0].arrived <= self.position
            if here and (self._buffered >= self._prebuffer or waited >= self._prebuffer):
                self._playing = True
            at = 0
            while self._playing and not self._held and at < samples:
                chunk = self._queue[0]
                if chunk.arrived > self.position:
                    break
                take = min(samples - at, len(chunk.pcm))
                out[at : at + take] = chunk.pcm[:take]
                self._note(Span(chunk.response_id, chunk.first_sample, self.position + at, take))
                at += take
                self._buffered -= take
                chunk.pcm = chunk.pcm[take:]
                chunk.first_sample += take
                if not len(chunk.pcm):
                    self._queue.popleft()
                self._playing = bool(self._queue)
            self.position += samples
            return out

    def hold(self) -> None:
        """Plays silence from now on, and keeps what waits: somebody speaks, and may or may not interrupt."""
        with self._lock:
            self._held = self._was_held = True

    def resume(self) -> None:
        """Plays on where it was held; harmless when it was not."""
        with self._lock:
            self._held = False

    def flush(self) -> int:
        """Drops all that waits, for good: a barge-in. Later audio of the same responses is dropped as well.

        Returns:
            How many samples were dropped.
        """
        with self._lock:
            dropped = self._buffered
            self._flushed.update(chunk.response_id for chunk in self._queue)
            if self._last_id is not None:  # the response that was playing may still send what it had under way
                self._flushed.add(self._last_id)
            self._queue.clear()
            self._buffered = 0
            self._playing = self._held = False
            return dropped

    def waiting(self, response_id: str) -> bool:
        """Whether samples of a response wait to be played."""
        with self._lock:
            return any(chunk.response_id == response_id for chunk in self._queue)

    def spans(self, response_id: str) -> tuple[Span, ...]:
        """What was pulled of a response, in order; more than one span when playing was interrupted by an underrun."""
        with self._lock:
            return tuple(self._spans.get(response_id, ()))

    def played_samples(self, response_id: str, at_position: int | None = None) -> int:
        """How far into a response's output playing had come.

        Args:
            response_id: The response.
            at_position: Clock position of interest; now if not given.
        """
        with self._lock:
            now = self.position if at_position is None else at_position
            heard = now - self.latency_samples
            ends = (
                span.first_sample + min(span.samples, heard - span.position)
                for span in self._spans.get(response_id, ())
                if span.position < heard
            )
            return max(ends, default=0)

    def reports(self) -> list[Playback]:
        """Progress that is due: each response that moved, at most every `report_every_ms`, and at once when it ends."""
        with self._lock:
            idle = not self._queue and self.position - self.latency_samples >= self._last_end()
            if not idle and self.position - self._report_position < self._report_every:
                return []
            reports = []
            for response_id, reported in list(self._reported.items()):
                played = self.played_samples(response_id)
                if played > reported:
                    reports.append(Playback(response_id, played))
                    self._reported[response_id] = played
                last = self._spans[response_id][-1]
                over = idle or (self._queue and self._queue[0].response_id != response_id)
                if over and played >= last.first_sample + last.samples:
                    del self._reported[response_id]
            if reports:
                self._report_position = self.position
            return reports

    def _last_end(self) -> int:
        """Clock position after the last sample that a response not yet fully reported has had pulled."""
        ends = (self._spans[key][-1].position + self._spans[key][-1].samples for key in self._reported)
        return max(ends, default=0)

    def _note(self, span: Span) -> None:
        self._last_id = span.response_id
        spans = self._spans.setdefault(span.response_id, [])
        self._reported.setdefault(span.response_id, 0)
        if spans:
            last = spans[-1]
            joins = (
                last.position + last.samples == span.position and last.first_sample + last.samples == span.first_sample
            )
            if joins:
                spans[-1] = Span(last.response_id, last.first_sample, last.position, last.samples + span.samples)
                return
            if not self._was_held:
                self.underruns += 1
                self.underrun_samples += span.position - last.position - last.samples
        self._was_held = False
        spans.append(span)
