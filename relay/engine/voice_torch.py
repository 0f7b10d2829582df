"""Runs Relay's own voice in torch: on a GPU, or on the CPU where there is no onnxruntime.

It takes what the ONNX runner takes, and folders that were never exported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from relay.config import Device
from relay.engine import device as devices
from relay.engine.learned_voice import LearnedVoice
from relay.engine.torch_steps import own_stream
from relay.errors import EngineUnavailable
from relay_models.voice_plan import HOP_SAMPLES, POSITIONS, STEP_FRAMES, Floats, Frames, Window, padded

if TYPE_CHECKING:
    import torch

    from relay_models.state import StreamState
    from relay_models.voice import Voice

GPU_SLOTS, CPU_SLOTS = 256, 16
"""Replies under way."""
_GPU_ROWS, _CPU_ROWS = 64, 1
"""Replies stepped in one call."""
_GPU_WINDOWS, _CPU_WINDOWS = 32, 1
"""Windows read in one call."""
_LEAST_SYMBOLS = 32
T = TypeVar("T")


class TorchVoiceRunner(LearnedVoice[int]):
    """A voice on a torch device; see `LearnedVoice`.

    A reply's state is a row of static buffers, which stand in blocks of one size: a step computes every row of the
    blocks in which somebody speaks. Windows are read in batches of one size and a few widths. Shapes are therefore
    static, and no reply is rounded otherwise because of what is said beside it.

    Args:
        folder: Voice, exported or as training left it (its first speaker); None takes the shipped one.
        frontend: Folder of the text front end; None takes the shipped one.
        device: Where it runs.
        max_slots: How many replies can be under way; None takes 256 on a GPU and 16 elsewhere.
        block_rows: Rows of a block; None takes 64 on a GPU and 1 elsewhere.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        frontend: Path | None = None,
        device: Device = "auto",
        max_slots: int | None = None,
        block_rows: int | None = None,
    ) -> None:
        self._device = devices.resolve(device)
        on_gpu = self._device == "cuda"
        slots = max_slots or (GPU_SLOTS if on_gpu else CPU_SLOTS)
        super().__init__(folder, frontend, max_slots=slots, max_batch=slots)
        self._rows = block_rows or (_GPU_ROWS if on_gpu else _CPU_ROWS)
        self._windows = _GPU_WINDOWS if on_gpu else _CPU_WINDOWS
        self._voice: Voice | None = None
        self._blocks: list[StreamState] = []

    def _load(self, folder: Path) -> None:
        try:
            import torch  # noqa: F401  # asked for here, so that what is missing is named

            from relay_models.state import StreamState
            from relay_models.voice import load_voice
        except ImportError as error:
            raise EngineUnavailable("this voice needs torch: pip install 'relay-dialogue[gpu]'") from error
        voice = load_voice(folder)
        try:
            own_stream(self._device)
            self._voice = voice.to(self._device)
            blocks = -(-self.max_slots // self._rows)
            self._blocks = [StreamState(self._voice.fresh_tensors(self._rows)) for _ in range(blocks)]
            self._warm_up()
        except RuntimeError as error:
            raise EngineUnavailable(f"torch cannot use {self._device!r}: {' '.join(str(error).split())}") from error

    def _warm_up(self) -> None:
        """Computes once what replies need, for nobody: a GPU then loads its kernels, which takes seconds."""
        nothing = np.zeros(1, np.int64)
        for width in (_LEAST_SYMBOLS, 2 * _LEAST_SYMBOLS, 4 * _LEAST_SYMBOLS):
            self._read_batch([Window(nothing, nothing, 0, 1)], width)
        self._step_block(0, []).cpu()

    def _fresh(self, slot: int) -> int:
        block, row = divmod(slot, self._rows)
        for tensor in self._blocks[block].tensors.values():
            tensor[row] = 0
        return slot

    def _encode(self, windows: Sequence[Window]) -> Sequence[tuple[Floats, Floats]]:
        read: dict[int, tuple[Floats, Floats]] = {}
        by_width: dict[int, list[int]] = {}
        for number, window in enumerate(windows):
            by_width.setdefault(_width(len(window.ids)), []).append(number)
        for width, numbers in by_width.items():
            for batch in _groups(numbers, self._windows):
                read |= zip(batch, self._read_batch([windows[number] for number in batch], width), strict=True)
        return [read[number] for number in range(len(windows))]

    def _read_batch(self, windows: Sequence[Window], width: int) -> list[tuple[Floats, Floats]]:
        """Reads at most so many windows as a batch has rows, of at most `width` symbols."""
        import torch

        assert self._voice is not None
        given = torch.zeros(2, self._windows, width, dtype=torch.int64)  # padding has the number 0
        ids, places = padded(windows)
        given[0, : len(windows), : ids.shape[1]] = torch.from_numpy(ids)
        given[1, : len(windows), : ids.shape[1]] = torch.from_numpy(places)
        given = given.to(self._device)
        speaker = torch.zeros(self._windows, dtype=torch.int64, device=self._device)
        with torch.no_grad():
            vectors, lengths = self._voice.encode(given[0], given[1], speaker)
        return list(zip(vectors.cpu().numpy(), lengths.cpu().numpy(), strict=True))[: len(windows)]

    def _speak(self, states: Sequence[int], frames: Sequence[Frames]) -> Floats:
        spoken = np.zeros((len(states), STEP_FRAMES * HOP_SAMPLES), np.float32)
        by_block: dict[int, list[int]] = {}
        for number, slot in enumerate(states):
            by_block.setdefault(slot // self._rows, []).append(number)
        made = {
            block: self._step_block(block, [(states[number] % self._rows, frames[number]) for number in numbers])
            for block, numbers in by_block.items()
        }
        for block, numbers in by_block.items():  # only now is waited for the device
            samples = made[block].float().cpu().numpy()
            for number in numbers:
                spoken[number] = samples[states[number] % self._rows]
        return spoken

    def _step_block(self, block: int, taken: Sequence[tuple[int, Frames]]) -> torch.Tensor:
        """Steps some rows of a block: [rows, STEP_FRAMES * HOP_SAMPLES] on the device."""
        import torch

        assert self._voice is not None
        vectors = np.zeros((self._rows, STEP_FRAMES, self._size), np.float32)
        positions = np.zeros((self._rows, STEP_FRAMES, POSITIONS), np.float32)
        valid = np.zeros((self._rows, STEP_FRAMES), np.bool_)
        active = np.zeros(self._rows, np.bool_)
        for row, frames in taken:
            vectors[row], positions[row], valid[row] = frames.vectors, frames.positions, frames.valid
            active[row] = True

        def here(array: npt.NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(array).to(self._device)

        samples, _ = self._voice.step(here(vectors), here(positions), here(valid), self._blocks[block], here(active))
        return samples

    def unload(self) -> None:
        """Frees the weights and all state."""
        self._slots.clear()
        self._voice = None
        self._blocks.clear()


def _width(symbols: int) -> int:
    """Symbols of the batch that a window goes into: the next power of two."""
    return max(_LEAST_SYMBOLS, 1 << (symbols - 1).bit_length())


def _groups(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[first : first + size] for first in range(0, len(items), size))
