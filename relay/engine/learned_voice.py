"""Relay's own streaming voice behind the engine contract: what is common to its runners.

Text goes through the front end to words of phonemes, these through `VoicePlan` to frames, 80 ms a step. A step of the
engine gives a step of sound to every slot that has the frames for one; those slots share one call of the model.

So a draft's tokens come to the voice by way of the host: they are words first, and these are looked up in a dictionary.
What that costs was measured on one core of a shared AMD EPYC, for twelve prefixes of seven words: tokens to words 0.006
ms; words to sounds 0.18 ms, of which 0.11 is left when all have been looked up before, and up to 1.7 ms with names that
no dictionary has; from the draft's engine having the draft to the voice's beginning with it, through both threads and
the event loop, 0.31 ms (P95 0.5) where the verifier judged in the draft's step, 1.36 (1.9) where it is asked after it;
then the first sound takes the voice 6.8 ms. Hence nothing is looked up while the verifier decides: it would win 0.07 ms
of that millisecond, for words of which some are not spoken. What wins is to do all of it before the turn has ended:
`relay.speculation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from relay.audio import Int16Array
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.engine.voice_words import WordTrack
from relay.errors import WeightsError
from relay_models import loading
from relay_models.frontend import Frontend, TextStream, load_lexicon
from relay_models.phonemes import to_ids
from relay_models.voice_plan import Floats, Frames, VoicePlan, Window

VOICE_SLOTS = 2048
"""Replies under way: of as many sessions as ears have slots for, each with one that is prepared beside it."""
_SILENT: Int16Array = np.empty(0, dtype=np.int16)
S = TypeVar("S")


@dataclass(slots=True)
class _Reply(Generic[S]):
    """A reply under way.

    Attributes:
        state: Of the model.
        text: Front end.
        plan: Frames; None before the first text tells the speed.
        words: The words given.
        sent: Samples sent.
        ended: No more text comes.
    """

    state: S
    text: TextStream
    plan: VoicePlan | None = None
    words: WordTrack = field(default_factory=WordTrack)
    sent: int = 0
    ended: bool = False


@dataclass(slots=True)
class _Turn(Generic[S]):
    """What one step does for one slot."""

    reply: _Reply[S]
    plan: VoicePlan
    frames: Frames | None = None
    pcm: Int16Array = field(default_factory=lambda: _SILENT)
    error: Exception | None = None

    def window(self) -> Window | None:
        """What has to be encoded next; None when there are frames to speak, or too few words for some."""
        if self.frames is None:
            self.frames = self.plan.take()
        if self.frames is None:
            return self.plan.window()
        after = self.reply.sent + self.frames.keep
        return self.plan.window() if self.reply.words.wants_more(self.plan.times, after) else None


class LearnedVoice(ABC, Generic[S]):
    """Runner[VoiceInput, VoiceOutput] without its model.

    Words without sound (emoji, lone punctuation) are reported with zero length where the next word begins.

    Args:
        folder: Exported voice; None takes the shipped one.
        frontend: Folder of the text front end; None takes the shipped one.
        max_slots: How many replies can be under way.
        max_batch: How many are stepped at once.
    """

    def __init__(self, folder: Path | None, frontend: Path | None, *, max_slots: int, max_batch: int) -> None:
        self.max_slots = max_slots
        self.max_batch = max_batch
        self._folder = folder
        self._frontend_folder = frontend
        self._slots: dict[int, _Reply[S]] = {}
        self._frontend: Frontend
        self._size: int

    def load(self) -> None:
        """Loads model and dictionary. Raises EngineUnavailable, WeightsError."""
        try:
            folder = self._folder or loading.locate("voice")
            size = loading.read_config(folder).get("size")
            if not isinstance(size, int):
                raise WeightsError(f"config.json of {folder.name} is not that of a voice; give the folder of one")
            self._size = size
            self._frontend = Frontend(load_lexicon(self._frontend_folder))
            self._load(folder)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error

    @abstractmethod
    def _load(self, folder: Path) -> None:
        """Loads the model. Raises EngineUnavailable, WeightsError or the one of `relay_models`."""

    @abstractmethod
    def _fresh(self, slot: int) -> S:
        """State of a reply that has not begun."""

    @abstractmethod
    def _encode(self, windows: Sequence[Window]) -> Sequence[tuple[Floats, Floats]]:
        """Reads windows: vectors [symbols or more, size] and lengths [symbols or more] of each, in frames."""

    @abstractmethod
    def _speak(self, states: Sequence[S], frames: Sequence[Frames]) -> Floats:
        """Speaks a step of each reply and advances its state: [replies, STEP_FRAMES * HOP_SAMPLES], full scale 1."""

    @abstractmethod
    def unload(self) -> None:
        """Frees everything."""

    def open(self, slot: int) -> None:
        """Gives a slot fresh state."""
        self._slots[slot] = _Reply(self._fresh(slot), self._frontend.stream())

    def close(self, slot: int) -> None:
        """Drops a slot's state."""
        del self._slots[slot]

    def step(self, slots: Sequence[int], xs: Sequence[VoiceInput]) -> Sequence[VoiceOutput | BaseException]:
        """Takes each slot's text, and speaks 80 ms of each that has enough of it. A slot that fails begins anew."""
        turns = [self._begin(slot, x) for slot, x in zip(slots, xs, strict=True)]
        self._read(turns)
        ready = [turn for turn in turns if turn.frames is not None and turn.error is None]
        for first in range(0, len(ready), self.max_batch):
            self._sound(ready[first : first + self.max_batch])
        return [self._finish(slot, turn) for slot, turn in zip(slots, turns, strict=True)]

    def _begin(self, slot: int, x: VoiceInput) -> _Turn[S]:
        reply = self._slots[slot]
        if reply.plan is None:
            reply.plan = VoicePlan(self._size, speed=x.speed)
        turn = _Turn(reply, reply.plan)
        try:
            self._take(reply, reply.plan, x)
        except Exception as error:
            turn.error = error
        return turn

    @staticmethod
    def _take(reply: _Reply[S], plan: VoicePlan, x: VoiceInput) -> None:
        words = []
        if x.text:
            reply.words.give(x.text)
            # The words are whole: the blank after the last one is known already.
            words = reply.text.push(x.text + " ")
        last = x.final and not reply.ended
        if last:
            words += reply.text.finish()
        reply.words.read(words)
        for word in words:
            plan.push(to_ids(word.symbols))
        if last:
            plan.finish()
            reply.ended = True
        elif x.flush:
            plan.flush()

    def _read(self, turns: Sequence[_Turn[S]]) -> None:
        """Encodes words until every reply has frames, or has no word that can be encoded; one of each at a time."""
        waiting = [turn for turn in turns if turn.error is None]
        while waiting:
            asked = [(turn, window) for turn in waiting if (window := turn.window()) is not None]
            for first in range(0, len(asked), self.max_batch):
                batch = asked[first : first + self.max_batch]
                try:
                    for (turn, window), (vectors, lengths) in zip(
                        batch, self._encode([window for _, window in batch]), strict=True
                    ):
                        own = slice(window.begin, window.end)
                        turn.plan.encoded(vectors[own], lengths[own])
                except Exception as error:
                    for turn, _ in batch:
                        turn.error = error
            waiting = [turn for turn, _ in asked if turn.error is None]

    def _sound(self, turns: Sequence[_Turn[S]]) -> None:
        """One call of the model."""
        frames = [turn.frames for turn in turns if turn.frames is not None]
        try:
            samples = self._speak([turn.reply.state for turn in turns], frames)
        except Exception as error:
            for turn in turns:
                turn.error = error
            return
        pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        for turn, row, taken in zip(turns, pcm, frames, strict=True):
            turn.pcm = row[taken.skip : taken.skip + taken.keep]

    def _finish(self, slot: int, turn: _Turn[S]) -> VoiceOutput | BaseException:
        if turn.error is not None:
            self.open(slot)
            return turn.error
        reply = turn.reply
        reply.sent += len(turn.pcm)
        final = turn.plan.done
        words = reply.words.begun(turn.plan.times, reply.sent, everything=final)
        if final:
            self.open(slot)
        return VoiceOutput(turn.pcm, words, final)
