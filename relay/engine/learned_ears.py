"""Learned streaming recognisers behind the engine contract: what is common to their runners.

Audio waits until it fills a chunk; chunks of several slots are encoded as one batch; frames are decoded on the host, by
the same code whatever encoded them. A slot has state only while an utterance is under way, so quiet ones cost nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from relay.audio import EARS_RATE_HZ, Int16Array, samples_in
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.errors import UsageError, WeightsError
from relay_models import loading
from relay_models.beam import BeamDecoder, BeamState
from relay_models.ears_folder import EarsFolder, load_lm, open_folder
from relay_models.framing import (
    ENDLESS,
    FRAME_MS,
    HOP_SAMPLES,
    LEAD_IN_SAMPLES,
    chunk_samples,
    frame_counts,
    lookahead_ms,
)
from relay_models.host_transducer import HostTransducer
from relay_models.words import Word as SpelledWord
from relay_models.words import Words

CATCH_UP_SAMPLES = samples_in(2_000, EARS_RATE_HZ)  # most that one step takes of a slot unless it is final
WAITING_SAMPLES = samples_in(60_000, EARS_RATE_HZ)  # what may wait; more is dropped
_FUTURES_A_STREAM = 128  # what the decoder keeps; a GPU server's share of it is 28 MB

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
S = TypeVar("S")
T = TypeVar("T")


class Encoded(NamedTuple):
    """Frames of a chunk of several streams.

    Attributes:
        frames: [rows, chunk_frames, size].
        valid: [rows, chunk_frames], which lie inside their stream.
        ends: [rows, chunk_frames], probability that the utterance has ended; None when the model does not tell.
    """

    frames: Floats
    valid: npt.NDArray[np.bool_]
    ends: Floats | None


@dataclass(frozen=True, slots=True)
class Decoding:
    """What turns a model's frames into words.

    Attributes:
        decoder: Frames to tokens.
        pieces: Text of each token.
        right: Look-ahead in encoder frames; a chunk is of `right` + 1.
        delay_frames: Frames by which the encoder's output lags behind its input.
    """

    decoder: BeamDecoder
    pieces: Sequence[str]
    right: int
    delay_frames: int = 0


@dataclass(slots=True)
class _Utterance(Generic[S]):
    """An utterance under way.

    Attributes:
        state: Of the encoder.
        beam: Of the decoder.
        spelled: Tokens to words.
        waiting: Audio that the encoder has not taken, the zeros before the first sample included.
        received: Samples of the utterance so far.
        position: Encoder frames taken.
        ended: No more audio will come.
        words: Final words.
        text: The same, as text.
        unstable: What may change.
        end_probability: See `EarsOutput`.
        error: Why it cannot go on.
    """

    state: S
    beam: BeamState
    spelled: Words
    waiting: Int16Array = field(default_factory=lambda: np.zeros(LEAD_IN_SAMPLES, dtype=np.int16))
    received: int = 0
    position: int = 0
    ended: bool = False
    words: tuple[Word, ...] = ()
    text: str = ""
    unstable: str = ""
    end_probability: float | None = None
    error: Exception | None = None

    def push(self, pcm: Int16Array) -> None:
        """Queues audio."""
        pcm = pcm[: max(WAITING_SAMPLES - len(self.waiting), 0)]
        self.waiting = np.concatenate((self.waiting, pcm))
        self.received += len(pcm)

    @property
    def mel_frames(self) -> int:
        """Of the whole utterance, as far as known."""
        return self.received // HOP_SAMPLES if self.ended else ENDLESS

    def is_ready(self, decoding: Decoding) -> bool:
        """Whether there is a chunk to encode: a full one, or what is left at the end."""
        if self.error is not None:
            return False
        if self.ended:
            return self.position - decoding.delay_frames < frame_counts(self.mel_frames)
        return len(self.waiting) >= chunk_samples(decoding.right)

    def say(self, new: Sequence[SpelledWord], following: Sequence[SpelledWord]) -> None:
        """Takes words that became final, and the guess at what follows them."""
        if new:
            last = self.received if self.ended else ENDLESS
            self.words += tuple(_timed(word, last) for word in new)
            self.text = " ".join([*([self.text] if self.text else []), *(word.text for word in new)])
        self.unstable = " ".join(word.text for word in following)


class _Batch(NamedTuple, Generic[S]):
    """Chunks under encoding: whose, and what gives their frames; None when they could not be encoded."""

    utterances: Sequence[_Utterance[S]]
    encoding: Callable[[], Encoded] | None


def _fail(utterances: Sequence[_Utterance[S]], error: Exception) -> None:
    for u in utterances:
        u.error = error


class LearnedEars(ABC, Generic[S]):
    """Runner[EarsInput, EarsOutput] without its encoder.

    Args:
        folder: Model folder; None takes the shipped one.
        max_slots: How many slots can be open at once.
        max_batch: How many are stepped at once.
        rows: How many are encoded at once; None: as many as are stepped.
        ahead: How many batches are encoded beside the one that is decoded, where that is done elsewhere.
    """

    def __init__(
        self, folder: Path | None, *, max_slots: int, max_batch: int, rows: int | None = None, ahead: int = 0
    ) -> None:
        self._folder = folder
        self.max_slots = max_slots
        self.max_batch = max_batch
        self._batch_rows = rows or max_batch
        self._ahead = ahead
        self._slots: dict[int, _Utterance[S] | None] = {}
        self._decoding: Decoding

    @abstractmethod
    def load(self) -> None:
        """Sets `_decoding` and prepares the encoder. Raises EngineUnavailable, WeightsError or UsageError."""

    @abstractmethod
    def _rights(self, folder: EarsFolder) -> tuple[int, ...]:
        """Look-aheads to offer, in encoder frames, the default first. Raises `loading.WeightsError`."""

    def lookaheads_ms(self) -> tuple[int, ...]:
        """Look-aheads to choose from, the default first; asked before `load`. Raises WeightsError."""
        folder = self._open_folder()
        return tuple(lookahead_ms(right) for right in sound(lambda: self._rights(folder)))

    def _open_folder(self) -> EarsFolder:
        """The model's folder. Raises WeightsError."""
        return sound(lambda: open_folder(self._folder or loading.locate("ears")))

    @abstractmethod
    def _fresh(self) -> S:
        """State of a stream that has not begun."""

    @abstractmethod
    def _encode(self, states: Sequence[S], pcm: Floats, counts: Counts, lengths: Counts) -> Callable[[], Encoded]:
        """Begins to encode a chunk of each stream, whose state it advances; see `relay_models.ears_chunk.ChunkStep`.

        Returns:
            What gives the frames, and waits for them where they are made beside us. Called once, in order.
        """

    def _release(self, state: S) -> None:
        """A stream is over."""

    @abstractmethod
    def unload(self) -> None:
        """Frees everything."""

    def open(self, slot: int) -> None:
        """Gives a slot fresh state, which costs nothing until audio comes."""
        self._slots[slot] = None

    def close(self, slot: int) -> None:
        """Drops a slot's state."""
        self._forget(slot)
        del self._slots[slot]

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> Sequence[EarsOutput | BaseException]:
        """Hears each slot's audio. A slot that fails begins a new utterance."""
        under_way = [self._begin(slot, x) for slot, x in zip(slots, xs, strict=True)]
        chunk = chunk_samples(self._decoding.right)
        rounds = 0
        under_encoding: deque[_Batch[S]] = deque()
        # One chunk of each at a time, so that streams that stand at different places share batches.
        while ready := [
            u
            for u in under_way
            if u is not None and u.is_ready(self._decoding) and (u.ended or rounds * chunk < CATCH_UP_SAMPLES)
        ]:
            for first in range(0, len(ready), self._batch_rows):
                under_encoding.append(self._start(ready[first : first + self._batch_rows]))
                if len(under_encoding) > self._ahead:
                    self._decode(under_encoding.popleft())
            rounds += 1
        for batch in under_encoding:
            self._decode(batch)
        return [self._finish(slot, u, x) for slot, u, x in zip(slots, under_way, xs, strict=True)]

    def _begin(self, slot: int, x: EarsInput) -> _Utterance[S] | None:
        """The slot's utterance with this input's audio; None while there has been none."""
        u = self._slots[slot]
        if u is None and len(x.pcm):
            spelled = Words(self._decoding.pieces, frame_ms=FRAME_MS)
            u = self._slots[slot] = _Utterance(self._fresh(), self._decoding.decoder.open(), spelled)
        if u is not None:
            u.push(x.pcm)
            u.ended = x.final
        return u

    def _start(self, batch: Sequence[_Utterance[S]]) -> _Batch[S]:
        """Begins to encode the next chunk of each."""
        decoding = self._decoding
        samples = chunk_samples(decoding.right)
        pcm = np.zeros((len(batch), samples), dtype=np.float32)
        counts = np.array([min(len(u.waiting), samples) for u in batch])
        for row, count, u in zip(pcm, counts, batch, strict=True):
            row[:count] = u.waiting[:count]
        pcm *= np.float32(1 / 32768)
        lengths = np.array([u.mel_frames for u in batch])
        for u in batch:
            u.waiting = u.waiting[samples:]
            u.position += decoding.right + 1
        try:
            return _Batch(batch, self._encode([u.state for u in batch], pcm, counts, lengths))
        except Exception as error:
            _fail(batch, error)
            return _Batch((), None)

    def _decode(self, batch: _Batch[S]) -> None:
        """Waits for what was encoded, and decodes it."""
        decoding = self._decoding
        if batch.encoding is None:
            return
        try:
            encoded = batch.encoding()
        except Exception as error:
            _fail(batch.utterances, error)
            return
        rows = [row for row, u in enumerate(batch.utterances) if u.error is None]  # errors: of the chunk before
        utterances = [batch.utterances[row] for row in rows]
        frames = [encoded.frames[row, encoded.valid[row]] for row in rows]
        try:
            outputs = decoding.decoder.step_all([u.beam for u in utterances], frames)
        except Exception as error:
            _fail(utterances, error)
            return
        for row, u, said in zip(rows, utterances, outputs, strict=True):
            if isinstance(said, ArithmeticError):
                u.error = said
                continue
            valid = encoded.valid[row]
            if encoded.ends is not None and valid.any():
                u.end_probability = float(encoded.ends[row, valid][-1])
            u.say(u.spelled.push(said.stable), u.spelled.preview(said.unstable))

    def _finish(self, slot: int, u: _Utterance[S] | None, x: EarsInput) -> EarsOutput | BaseException:
        """What the step gives for one slot."""
        decoding = self._decoding
        delay_ms = (decoding.right + 1 + decoding.delay_frames) * FRAME_MS
        if u is None:
            return EarsOutput("", "", final=x.final, word_delay_ms=delay_ms)
        if u.error is not None:
            self._forget(slot)
            return u.error
        if x.final:
            said = decoding.decoder.finish(u.beam)
            u.say((*u.spelled.push(said.stable), *u.spelled.finish()), ())
            self._forget(slot)
        return EarsOutput(u.text, u.unstable, u.words, x.final, u.end_probability, delay_ms)

    def _forget(self, slot: int) -> None:
        u = self._slots[slot]
        if u is not None:
            self._release(u.state)
        self._slots[slot] = None


def choose_right(rights: Sequence[int], asked_ms: int | None) -> int:
    """The look-ahead asked for, or the first, in encoder frames. Raises UsageError when the model has no such."""
    if asked_ms is None:
        return rights[0]
    for right in rights:
        if lookahead_ms(right) == asked_ms:
            return right
    offered = ", ".join(str(lookahead_ms(right)) for right in sorted(rights))
    raise UsageError(f"this recogniser has no look-ahead of {asked_ms} ms; choose --lookahead-ms from {offered}")


def sound(read: Callable[[], T]) -> T:
    """What `read` reads of a model's files; what is wrong with them is raised as the engine's WeightsError."""
    try:
        return read()
    except loading.WeightsError as error:
        raise WeightsError(str(error)) from error


def make_decoder(transducer: HostTransducer, folder: EarsFolder, max_batch: int) -> BeamDecoder:
    """A decoder with the folder's language model, if any, and the settings of config.json's `decoding`.

    Many streams have more histories in common: the more are stepped at once, the more is kept.

    Raises WeightsError for settings that it has not, and for a damaged language model.
    """
    lm = sound(lambda: load_lm(folder))
    try:
        settings = folder.config.get("decoding", {})
        return BeamDecoder(transducer, lm=lm, kept_futures=_FUTURES_A_STREAM * max_batch, **settings)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"what config.json says under `decoding` are no settings of the decoder: {error}") from error


def _timed(word: SpelledWord, last_sample: int) -> Word:
    """A word with its times in samples, none of them behind the last."""
    start, end = (ms * EARS_RATE_HZ // 1000 for ms in (word.start_ms, word.end_ms))
    end = min(end, last_sample)
    return Word(word.text, min(start, max(end - 1, 0)), end, word.confidence)
