"""Runs Relay's own voice in torch: on a GPU, or on the CPU where there is no onnxruntime.

It takes what the ONNX runner takes, and folders that were never exported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from relay.config import Device
from relay.engine import device as devices
from relay.engine.learned_voice import VOICE_SLOTS, LearnedVoice
from relay.engine.torch_steps import own_stream, static_steps
from relay.errors import EngineUnavailable
from relay_models.voice_plan import Floats, Frames, Window, padded

if TYPE_CHECKING:
    from relay_models.slot_pipeline import Array, Pipeline, Step
    from relay_models.voice_slots import VoiceSlots

CPU_SLOTS = 16
"""Replies under way where a row of state takes memory whether it is used or not, and steps take long."""
_MAX_BATCH = 64  # not all of them: a first word would wait for the words of everybody else
_GPU_ROWS, _CPU_ROWS = 64, 1
"""Replies stepped in one call."""
_GPU_WINDOWS, _CPU_WINDOWS = 32, 1
"""Windows read in one call."""
_LEAST_SYMBOLS, _MOST_SYMBOLS = 32, 128
"""Widths for which there is a step from the start; wider windows are rare."""
_DEPTH = 2
"""Calls under way: the next is prepared while one is computed."""
T = TypeVar("T")


class TorchVoiceRunner(LearnedVoice[int]):
    """A voice on a torch device; see `LearnedVoice`.

    A reply's state is a row of static buffers. A step takes the rows that speak in batches of one size, and reads their
    windows in batches of one size and a few widths; on a GPU each is a CUDA graph. As the shapes are always the same,
    no reply is rounded otherwise because of what is said beside it.

    Args:
        folder: Voice, exported or as training left it (its first speaker); None takes the shipped one.
        frontend: Folder of the text front end; None takes the shipped one.
        device: Where it runs.
        max_slots: How many replies can be under way; one takes 85 kB. None takes 2,048 on a GPU and 16 elsewhere.
        rows: How many replies one call of the model steps; None takes 64 on a GPU and 1 elsewhere.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        frontend: Path | None = None,
        device: Device = "auto",
        max_slots: int | None = None,
        rows: int | None = None,
    ) -> None:
        self._device = devices.resolve(device)
        on_gpu = self._device == "cuda"
        slots = max_slots or (VOICE_SLOTS if on_gpu else CPU_SLOTS)
        super().__init__(folder, frontend, max_slots=slots, max_batch=min(slots, _MAX_BATCH))
        self._rows = rows or (_GPU_ROWS if on_gpu else _CPU_ROWS)
        self._windows = _GPU_WINDOWS if on_gpu else _CPU_WINDOWS
        self._voice: VoiceSlots | None = None
        self._reading: dict[int, Pipeline] = {}
        self._speaking: Pipeline | None = None
        self._begun: set[int] = set()

    def _load(self, folder: Path) -> None:
        try:
            import torch  # noqa: F401  # asked for here, so that what is missing is named

            from relay_models.voice import load_voice
            from relay_models.voice_slots import VoiceSlots
        except ImportError as error:
            raise EngineUnavailable("this voice needs torch: pip install 'relay-dialogue[gpu]'") from error
        voice = load_voice(folder)
        try:
            own_stream(self._device)
            self._voice = VoiceSlots(voice.to(self._device), self.max_slots)
            self._speaking = static_steps(
                self._voice.speak, self._voice.speak_inputs, [self._rows], name="voice", depth=_DEPTH
            )
            width = _LEAST_SYMBOLS
            while width <= _MOST_SYMBOLS:
                self._reading[width] = self._reader(width)
                width *= 2
        except RuntimeError as error:
            raise EngineUnavailable(f"torch cannot use {self._device!r}: {' '.join(str(error).split())}") from error

    def _reader(self, width: int) -> Pipeline:
        """Steps that read windows of so many symbols."""
        voice = self._voice
        assert voice is not None
        return static_steps(
            voice.read,
            lambda rows: voice.read_inputs(rows, width),
            [self._windows],
            name=f"voice's reading of {width} symbols",
            depth=_DEPTH,
        )

    def _fresh(self, slot: int) -> int:
        self._begun.discard(slot)
        return slot

    def _encode(self, windows: Sequence[Window]) -> Sequence[tuple[Floats, Floats]]:
        by_width: dict[int, list[int]] = {}
        for number, window in enumerate(windows):
            by_width.setdefault(_width(len(window.ids)), []).append(number)
        batches = [(width, batch) for width, numbers in by_width.items() for batch in _groups(numbers, self._windows)]

        def start(width: int, numbers: Sequence[int]) -> Step:
            ids, places = (
                np.pad(array, ((0, 0), (0, width - array.shape[1])))  # with zeros: that is padding
                for array in padded([windows[number] for number in numbers])
            )
            reader = self._reading.get(width) or self._wide_reader(width)
            return reader.start(ids=ids, places=places)

        read: dict[int, tuple[Floats, Floats]] = {}
        results = _in_turn(partial(start, *batch) for batch in batches)
        for (_, numbers), (vectors, lengths) in zip(batches, results, strict=True):
            read |= zip(numbers, zip(vectors, lengths, strict=True), strict=True)
        return [read[number] for number in range(len(windows))]

    def _wide_reader(self, width: int) -> Pipeline:
        """For a width that is rare: not captured, which disturbs what others compute, and not kept."""
        from relay_models.slot_graph import Buckets
        from relay_models.slot_pipeline import Pipeline

        voice = self._voice
        assert voice is not None
        steps = Buckets(voice.read, lambda rows: voice.read_inputs(rows, width), [self._windows], graph=False)
        return Pipeline(steps, depth=1)

    def _speak(self, states: Sequence[int], frames: Sequence[Frames]) -> Floats:
        def start(slots: Sequence[int], taken: Sequence[Frames]) -> Step:
            assert self._speaking is not None
            fresh = np.array([slot not in self._begun for slot in slots])
            self._begun.update(slots)
            return self._speaking.start(
                slots=np.array(slots),
                vectors=np.stack([one.vectors for one in taken]),
                positions=np.stack([one.positions for one in taken]),
                valid=np.stack([one.valid for one in taken]),
                fresh=fresh,
            )

        batches = zip(_groups(states, self._rows), _groups(frames, self._rows), strict=True)
        results = _in_turn(partial(start, *batch) for batch in batches)
        spoken: Floats = np.concatenate([samples for (samples,) in results])
        return spoken

    def unload(self) -> None:
        """Frees the weights and all state."""
        self._slots.clear()
        self._begun.clear()
        self._reading.clear()
        self._speaking = self._voice = None


def _in_turn(starts: Iterable[Callable[[], Step]]) -> list[tuple[Array, ...]]:
    """Results of steps, of which the next is begun before the one before is waited for."""
    results: list[tuple[Array, ...]] = []
    under_way: deque[Step] = deque()
    try:
        for start in starts:
            if len(under_way) == _DEPTH:
                results.append(under_way.popleft().results())
            under_way.append(start())
    finally:  # also when one cannot be begun: the others' buffers are to be used again
        results += [step.results() for step in under_way]
    return results


def _width(symbols: int) -> int:
    """Symbols of the batch that a window goes into: the next power of two."""
    return max(_LEAST_SYMBOLS, 1 << (symbols - 1).bit_length())


def _groups(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[first : first + size] for first in range(0, len(items), size))
