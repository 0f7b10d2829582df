"""Relay's own streaming voice behind the engine contract, as ONNX graphs on the CPU.

Text goes through the front end to words of phonemes, these through `VoicePlan` to frames, 80 ms a step. A step of the
engine gives a step of sound to every slot that has the frames for one; those slots share one call of the graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.audio import Int16Array
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading
from relay_models.frontend import Frontend, TextStream, load_lexicon
from relay_models.phonemes import to_ids
from relay_models.voice_plan import ENCODE, SPEAK, Frames, VoicePlan, fresh_memory, padded

BATCH_ROWS = 8
_SILENT: Int16Array = np.empty(0, dtype=np.int16)


@dataclass(frozen=True, slots=True)
class _Written:
    """A word as it was given, and its characters' place in all that was given."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Characters of the text and the samples in which they are spoken."""

    start: int
    end: int
    first_sample: int
    last_sample: int

    def sample_at(self, character: int) -> int:
        """Where a character is heard, were all equally long."""
        share = (min(max(character, self.start), self.end) - self.start) / max(1, self.end - self.start)
        return round(self.first_sample + share * (self.last_sample - self.first_sample))


@dataclass(slots=True)
class _Reply:
    """State of a slot.

    Attributes:
        text: Front end.
        plan: Frames; None before the first text tells the speed.
        memory, counters: Of the graph.
        written: Words given whose sound has not begun.
        spoken: First and last character of each word in the plan, and whether it is more than a pause.
        read: Characters up to which the front end has said everything.
        given: Characters given.
        placed: Words of the plan whose times are in `places`.
        places: When the characters spoken so far are heard, in order.
        sent: Samples sent.
        ended: No more text comes.
    """

    text: TextStream
    memory: npt.NDArray[np.float32]
    counters: npt.NDArray[np.int64]
    plan: VoicePlan | None = None
    written: deque[_Written] = field(default_factory=deque)
    spoken: list[tuple[int, int, bool]] = field(default_factory=list)
    read: int = 0
    given: int = 0
    placed: int = 0
    places: list[_Place] = field(default_factory=list)
    sent: int = 0
    ended: bool = False


class OnnxVoiceRunner:
    """Runner[VoiceInput, VoiceOutput] over an exported voice.

    Words without sound (emoji, lone punctuation) are reported with zero length at their place.

    Args:
        folder: Exported voice; None takes the shipped one.
        frontend: Folder of the text front end; None takes the shipped one.
        max_slots: How many replies can be under way.
        threads: Threads of one step.
    """

    max_batch = BATCH_ROWS

    def __init__(
        self, folder: Path | None = None, *, frontend: Path | None = None, max_slots: int = 256, threads: int = 1
    ) -> None:
        self.max_slots = max_slots
        self._folder = folder
        self._frontend_folder = frontend
        self._threads = threads
        self._slots: dict[int, _Reply] = {}
        self._encode: Any = None
        self._speak: Any = None

    def load(self) -> None:
        """Opens graphs and dictionary. Raises EngineUnavailable without onnxruntime, WeightsError."""
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineUnavailable("the voice needs onnxruntime: pip install 'relay-dialogue[cpu]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            folder = self._folder or loading.locate("voice")
            self._frontend = Frontend(load_lexicon(self._frontend_folder))
            self._memory, self._counters = fresh_memory(folder, 1)
            self._size = int(loading.read_config(folder)["size"])
            self._encode, self._speak = (
                onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
                for name in (ENCODE, SPEAK)
            )
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error
        except Exception as error:  # onnxruntime's own exceptions share no base but this
            raise WeightsError(f"the voice's graphs cannot be opened ({' '.join(str(error).split())})") from error

    def open(self, slot: int) -> None:
        """Gives a slot fresh state."""
        self._slots[slot] = _Reply(self._frontend.stream(), self._memory[0].copy(), self._counters[0].copy())

    def close(self, slot: int) -> None:
        """Drops a slot's state."""
        del self._slots[slot]

    def unload(self) -> None:
        """Frees the graphs."""
        self._slots.clear()
        self._encode = self._speak = None

    def step(self, slots: Sequence[int], xs: Sequence[VoiceInput]) -> Sequence[VoiceOutput | BaseException]:
        """Takes each slot's text, and speaks 80 ms of each that has enough of it."""
        failures: dict[int, Exception] = {}
        ready: dict[int, Frames] = {}
        for slot, x in zip(slots, xs, strict=True):
            try:
                frames = self._next_frames(self._slots[slot], x)
                if frames is not None:
                    ready[slot] = frames
            except Exception as error:
                failures[slot] = error
        sounds = self._sounds(ready) if ready else {}
        results: list[VoiceOutput | BaseException] = []
        for slot in slots:
            if (failure := failures.get(slot)) is not None:
                self.open(slot)
                results.append(failure)
            else:
                results.append(self._output(slot, sounds.get(slot, _SILENT)))
        return results

    def _next_frames(self, reply: _Reply, x: VoiceInput) -> Frames | None:
        if reply.plan is None:
            reply.plan = VoicePlan(self._size, speed=x.speed)
        self._read(reply, reply.plan, x)
        while (frames := reply.plan.take()) is None and (window := reply.plan.window()) is not None:
            ids, places = padded([window])
            vectors, lengths = self._encode.run(None, {"ids": ids, "places": places})
            own = slice(window.begin, window.end)
            reply.plan.encoded(vectors[0, own], lengths[0, own])
        return frames

    def _read(self, reply: _Reply, plan: VoicePlan, x: VoiceInput) -> None:
        at = 0
        for text in x.text.split():
            at = x.text.index(text, at)
            reply.written.append(_Written(text, reply.given + at, reply.given + at + len(text)))
            at += len(text)
        # The words are whole: the blank after the last one is known already.
        words = reply.text.push(x.text + " ") if x.text else []
        reply.given += len(x.text) + 1 if x.text else 0
        if x.final and not reply.ended:
            words += reply.text.finish()
        for word in words:
            plan.push(to_ids(word.symbols))
            reply.spoken.append((word.start, word.end, bool(word.phonemes)))
            reply.read = max(reply.read, word.start)
        if x.final and not reply.ended:
            plan.finish()
            reply.ended, reply.read = True, reply.given

    def _sounds(self, ready: dict[int, Frames]) -> dict[int, Int16Array]:
        """One call of the graph for all slots with frames."""
        replies = [self._slots[slot] for slot in ready]
        given = {
            "vectors": np.stack([frames.vectors for frames in ready.values()]).astype(np.float32),
            "positions": np.stack([frames.positions for frames in ready.values()]).astype(np.float32),
            "valid": np.stack([frames.valid for frames in ready.values()]),
            "memory": np.stack([reply.memory for reply in replies]),
            "counters": np.stack([reply.counters for reply in replies]),
        }
        samples, memory, counters = self._speak.run(None, given)
        sounds = {}
        for row, (slot, frames) in enumerate(ready.items()):
            self._slots[slot].memory, self._slots[slot].counters = memory[row], counters[row]
            part = samples[row, frames.skip : frames.skip + frames.keep]
            sounds[slot] = np.rint(np.clip(part, -1, 1) * 32767).astype(np.int16)
        return sounds

    def _output(self, slot: int, pcm: Int16Array) -> VoiceOutput:
        reply = self._slots[slot]
        assert reply.plan is not None
        reply.sent += len(pcm)
        final = reply.plan.done
        words = _begun(reply, reply.plan, everything=final)
        if final:
            self.open(slot)
        return VoiceOutput(pcm, words, final)


def _begun(reply: _Reply, plan: VoicePlan, *, everything: bool) -> tuple[SpokenWord, ...]:
    """The given words whose sound has begun among the samples sent, in order; all of them when that is `everything`."""
    for time, (start, end, has_sound) in zip(plan.times[reply.placed :], reply.spoken[reply.placed :], strict=False):
        reply.placed += 1
        if not has_sound:
            continue
        latest = reply.places[-1] if reply.places else None
        if latest is not None and (latest.start, latest.end) == (start, end):  # a written word that is said as several
            reply.places[-1] = _Place(start, end, latest.first_sample, time.end_sample)
        else:
            reply.places.append(_Place(start, end, time.start_sample, time.end_sample))
    begun = []
    heard_until = 0
    while reply.written:
        word = reply.written[0]
        mine = [place for place in reply.places if place.start < word.end and place.end > word.start]
        if mine:
            first, last = mine[0].sample_at(word.start), mine[-1].sample_at(word.end)
        else:
            earlier = [place.last_sample for place in reply.places if place.end <= word.start]
            first = last = max(heard_until, earlier[-1] if earlier else 0)
        has_sound = any(start < word.end and end > word.start and sounds for start, end, sounds in reply.spoken)
        is_known = everything or (bool(mine) if has_sound else reply.read >= word.end)
        if not is_known or (first >= reply.sent and not everything):
            break
        reply.written.popleft()
        begun.append(SpokenWord(word.text, first, max(first, last)))
        heard_until = max(first, last)
    if reply.written:  # what was heard before the next word is asked for no more
        keep = next((n for n, place in enumerate(reply.places) if place.end > reply.written[0].start), None)
        reply.places = reply.places[max(0, (keep if keep is not None else len(reply.places)) - 1) :]
    return tuple(begun)
