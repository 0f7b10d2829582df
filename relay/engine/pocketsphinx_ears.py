"""PocketSphinx as a recogniser engine: the wheel's US English model, streaming, with word times.

A decoder costs tens of megabytes, so slots share a pool: an utterance borrows a decoder with its first sample and gives
it back with its last. While none is free the audio waits; an utterance that ends before its turn is decoded at once by
one decoder kept for that purpose, so a final step always answers.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from relay.audio import EARS_RATE_HZ, Int16Array, samples_in
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.engine.sphinx import DECODER_FRAME_SAMPLES, TYPICAL_CMN, Decoder, Sphinx
from relay.errors import RelayError

FRAME_SAMPLES = samples_in(20, EARS_RATE_HZ)  # audio always enters in these, so chunking cannot change the result
TICK_SAMPLES = samples_in(100, EARS_RATE_HZ)  # how often a hypothesis is read
SETTLED_TICKS = 8  # a word that stood this long is given out as stable
WAITING_SAMPLES = samples_in(30_000, EARS_RATE_HZ)  # what may wait for a decoder; more is dropped
PART_SAMPLES = samples_in(30_000, EARS_RATE_HZ)  # a decoder's tables grow with the utterance: longer ones go in parts
CATCH_UP_SAMPLES = samples_in(500, EARS_RATE_HZ)  # most that one step decodes unless it is final

_ADAPT_SAMPLES = samples_in(1000, EARS_RATE_HZ)  # how much of a caller's first utterance tells their own mean
_PAUSE_SAMPLES = samples_in(300, EARS_RATE_HZ)  # silence after a word that counts like a next word

log = logging.getLogger(__name__)


class Settling:
    """Which words of a changing hypothesis may be given out for good. Pure.

    A word settles when it has stood in `ticks` hypotheses in a row, with at least one word or pause after it. What is
    settled stays, even if the recogniser thinks better of it: later hypotheses then count from the settled words' end.
    """

    def __init__(self, ticks: int = SETTLED_TICKS) -> None:
        self._ticks = ticks
        self._streaks: list[tuple[str, int]] = []
        self.settled: list[Word] = []

    def rest(self, hypothesis: Sequence[Word]) -> list[Word]:
        """The words of a hypothesis that follow the settled ones in time."""
        end = self.settled[-1].end_sample if self.settled else 0
        return _in_order([word for word in hypothesis if word.start_sample + word.end_sample > 2 * end], end)

    def step(self, hypothesis: Sequence[Word], now_sample: int) -> list[Word]:
        """Takes the hypothesis at `now_sample`; returns its unsettled words."""
        rest = self.rest(hypothesis)
        same = list(
            itertools.takewhile(lambda pair: pair[0].text == pair[1][0], zip(rest, self._streaks, strict=False))
        )
        counts = [count + 1 for _, (_, count) in same] + [1] * (len(rest) - len(same))
        ready = 0
        for word, count in zip(rest, counts, strict=True):
            follows = word is not rest[-1] or now_sample - word.end_sample >= _PAUSE_SAMPLES
            if count < self._ticks or not follows:
                break
            ready += 1
        self.settled.extend(rest[:ready])
        self._streaks = [(word.text, count) for word, count in zip(rest[ready:], counts[ready:], strict=True)]
        return rest[ready:]

    def finish(self, hypothesis: Sequence[Word]) -> list[Word]:
        """All words once the last hypothesis is known: the settled ones, timed by it where it agrees, and the rest."""
        agreed = [
            new
            for new, old in itertools.takewhile(
                lambda pair: pair[0].text == pair[1].text, zip(hypothesis, self.settled, strict=False)
            )
        ]
        if len(agreed) == len(self.settled):
            return list(hypothesis)
        return _in_order([*agreed, *self.settled[len(agreed) :], *self.rest(hypothesis)], 0)


@dataclass(slots=True)
class _Utterance:
    """One slot: the utterance under way, and what is known of the caller's microphone.

    Attributes:
        cmn: Cepstral mean of the caller's earlier speech; None before the first utterance has ended.
        decoder: The borrowed decoder, if the utterance has one.
        waiting: Audio that no decoder has taken yet.
        parts: Words of the parts of a long utterance that are decoded already.
        part_start: First sample of the part under way.
        decoded: Samples of the part under way that the decoder has taken.
        settling: Which words of the part under way are stable.
        unsettled: Its other words.
    """

    cmn: bytes | None = None
    decoder: Decoder | None = None
    waiting: Int16Array = field(default_factory=lambda: np.empty(0, dtype=np.int16))
    parts: list[Word] = field(default_factory=list)
    part_start: int = 0
    decoded: int = 0
    settling: Settling = field(default_factory=Settling)
    unsettled: list[Word] = field(default_factory=list)

    def stable(self) -> tuple[Word, ...]:
        """All words given out for good, with their times in the whole utterance."""
        return (*self.parts, *_moved(self.settling.settled, self.part_start))

    def decode(self, decoder: Decoder, *, most_samples: int | None) -> None:
        """Decodes waiting audio: whole frames, at most so many samples, or all there is. Raises RelayError."""
        take = len(self.waiting)
        if most_samples is not None:
            take = min(take, most_samples) // FRAME_SAMPLES * FRAME_SAMPLES
        pcm, self.waiting = self.waiting[:take], self.waiting[take:]
        for at in range(0, take, FRAME_SAMPLES):
            self._feed(decoder, pcm[at : at + FRAME_SAMPLES])

    def _feed(self, decoder: Decoder, pcm: Int16Array) -> None:
        if not self.decoded:
            decoder.begin(self.cmn or TYPICAL_CMN)
        decoder.feed(pcm)
        self.decoded += len(pcm)
        if self.cmn is None and self.decoded == _ADAPT_SAMPLES:
            decoder.adapt(TYPICAL_CMN, self.decoded // DECODER_FRAME_SAMPLES)
        if self.decoded % TICK_SAMPLES == 0:
            self.unsettled = self.settling.step(decoder.words(posteriors=False), self.decoded)
        if self.decoded >= PART_SAMPLES:
            self.end_part(decoder)

    def end_part(self, decoder: Decoder) -> None:
        """Ends what the decoder has begun; all words are stable then. Raises RelayError."""
        if not self.decoded:
            return
        decoder.end()
        self.parts += _moved(self.settling.finish(decoder.words(posteriors=True)), self.part_start)
        self.cmn = decoder.cmn()
        self.part_start += self.decoded
        self.decoded = 0
        self.settling, self.unsettled = Settling(), []


class PocketsphinxRunner:
    """Runner[EarsInput, EarsOutput] over PocketSphinx.

    Args:
        max_slots: How many slots can be open at once; one without speech costs a few kilobytes.
        max_decoders: How many utterances are decoded at a time; each takes about 60 MB from its first use on. None is
            twice the number of cores. One more is made if an utterance ends while it waits.
    """

    max_batch = 1  # decoders run one after the other: a batch would only hold the first back

    def __init__(self, *, max_slots: int = 1024, max_decoders: int | None = None) -> None:
        self.max_slots = max_slots
        self._max_decoders = max_decoders or 2 * (os.cpu_count() or 1)
        self._slots: dict[int, _Utterance] = {}
        self._all: list[Decoder] = []
        self._free: list[Decoder] = []
        self._spare: Decoder | None = None
        self._building: Future[Decoder] | None = None

    def load(self) -> None:
        """Loads the model and one decoder. Raises EngineUnavailable."""
        self._sphinx = Sphinx()
        self._all = [self._sphinx.decoder()]
        self._free = list(self._all)
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="pocketsphinx-load")

    def open(self, slot: int) -> None:
        """Gives a slot fresh state; no decoder yet."""
        self._slots[slot] = _Utterance()

    def close(self, slot: int) -> None:
        """Drops a slot's state; a decoder it holds goes back."""
        self._abandon(slot)
        del self._slots[slot]

    def unload(self) -> None:
        """Frees all decoders and the model."""
        self._builder.shutdown()
        self._collect_built()
        for decoder in (*self._all, *([self._spare] if self._spare else [])):
            decoder.free()
        self._sphinx.free()
        self._slots.clear()

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> Sequence[EarsOutput | BaseException]:
        """Decodes each slot's audio. A slot that fails begins a new utterance."""
        results: list[EarsOutput | BaseException] = []
        for slot, x in zip(slots, xs, strict=True):
            try:
                results.append(self._step(slot, x))
            except Exception as error:
                self._abandon(slot)
                results.append(error)
        return results

    def _step(self, slot: int, x: EarsInput) -> EarsOutput:
        u = self._slots[slot]
        u.waiting = np.concatenate([u.waiting, x.pcm[: WAITING_SAMPLES - len(u.waiting)]])
        if u.decoder is None and len(u.waiting):
            u.decoder = self._borrow(at_once=x.final)
        if u.decoder is not None:
            u.decode(u.decoder, most_samples=None if x.final else CATCH_UP_SAMPLES)
            if x.final:
                u.end_part(u.decoder)
        words = u.stable()
        output = EarsOutput(stable=_text(words), unstable=_text(u.unsettled), words=words, final=x.final)
        if x.final:
            self._give_back(u.decoder)
            self._slots[slot] = _Utterance(cmn=u.cmn)
        return output

    def _abandon(self, slot: int) -> None:
        """Forgets a slot's utterance, but not its microphone."""
        u = self._slots[slot]
        self._slots[slot] = _Utterance(cmn=u.cmn)
        if u.decoder is not None and u.decoded:
            try:
                u.decoder.end()
            except RelayError:
                log.warning("a pocketsphinx decoder did not end its utterance; it is replaced")
                self._discard(u.decoder)
                return
        self._give_back(u.decoder)

    def _borrow(self, *, at_once: bool) -> Decoder | None:
        self._collect_built()
        if self._free:
            return self._free.pop()
        if at_once:
            self._spare = self._spare or self._sphinx.decoder()
            return self._spare
        if self._building is None and len(self._all) < self._max_decoders:
            # Half a second of loading on this thread would hold up everyone who is being decoded.
            self._building = self._builder.submit(self._sphinx.decoder)
        return None

    def _give_back(self, decoder: Decoder | None) -> None:
        if decoder is not None and decoder is not self._spare:
            self._free.append(decoder)

    def _discard(self, decoder: Decoder) -> None:
        if decoder is self._spare:
            self._spare = None
        else:
            self._all.remove(decoder)
        decoder.free()

    def _collect_built(self) -> None:
        if self._building is None or not self._building.done():
            return
        error = self._building.exception()
        if error is None:
            self._all.append(self._building.result())
            self._free.append(self._all[-1])
        else:
            self._max_decoders = max(len(self._all), 1)
            log.warning("no further pocketsphinx decoder: %s", error)
        self._building = None


def _in_order(words: Sequence[Word], from_sample: int) -> list[Word]:
    """Words of two hypotheses, which may overlap a little, one after the other."""
    ordered = []
    for word in words:
        start = max(word.start_sample, from_sample)
        from_sample = max(word.end_sample, start)
        ordered.append(Word(word.text, start, from_sample, word.confidence))
    return ordered


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _moved(words: Sequence[Word], by_samples: int) -> list[Word]:
    """Words whose times count from `by_samples` earlier."""
    return [Word(w.text, w.start_sample + by_samples, w.end_sample + by_samples, w.confidence) for w in words]
