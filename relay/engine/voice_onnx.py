"""Runs Relay's own voice as ONNX graphs on the CPU: no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.engine.learned_voice import VOICE_SLOTS, LearnedVoice
from relay.engine.onnx_graph import open_graph
from relay_models.voice_plan import ENCODE, SPEAK, Floats, Frames, Window, fresh_memory, padded

BATCH_ROWS = 8


@dataclass(slots=True)
class Memory:
    """State of a reply: [memory] float32 and [counters] int64 of the graph."""

    floats: npt.NDArray[np.float32]
    counters: npt.NDArray[np.int64]


class OnnxVoiceRunner(LearnedVoice[Memory]):
    """An exported voice on the CPU; see `LearnedVoice`.

    Args:
        folder: Exported voice; None takes the shipped one.
        frontend: Folder of the text front end; None takes the shipped one.
        max_slots: How many replies can be under way.
        threads: Threads of one step.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        frontend: Path | None = None,
        max_slots: int = VOICE_SLOTS,
        threads: int = 1,
    ) -> None:
        super().__init__(folder, frontend, max_slots=max_slots, max_batch=BATCH_ROWS)
        self._threads = threads
        self._fresh_memory: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
        self._encoder: Any = None
        self._speaker: Any = None

    def _load(self, folder: Path) -> None:
        self._fresh_memory = fresh_memory(folder, 1)
        self._encoder, self._speaker = (
            open_graph(folder / name, self._threads, of="the voice") for name in (ENCODE, SPEAK)
        )

    def _fresh(self, slot: int) -> Memory:
        floats, counters = self._fresh_memory
        return Memory(floats[0].copy(), counters[0].copy())

    def _encode(self, windows: Sequence[Window]) -> Sequence[tuple[Floats, Floats]]:
        # One by one: beside a longer window a word would be rounded otherwise, and might become a frame longer.
        read = []
        for window in windows:
            ids, places = padded([window])
            vectors, lengths = self._encoder.run(None, {"ids": ids, "places": places})
            read.append((vectors[0], lengths[0]))
        return read

    def _speak(self, states: Sequence[Memory], frames: Sequence[Frames]) -> Floats:
        given = {
            "vectors": np.stack([one.vectors for one in frames]).astype(np.float32),
            "positions": np.stack([one.positions for one in frames]).astype(np.float32),
            "valid": np.stack([one.valid for one in frames]),
            "memory": np.stack([state.floats for state in states]),
            "counters": np.stack([state.counters for state in states]),
        }
        samples: Floats
        samples, floats, counters = self._speaker.run(None, given)
        for row, state in enumerate(states):
            state.floats, state.counters = floats[row], counters[row]
        return samples

    def unload(self) -> None:
        """Frees the graphs."""
        self._slots.clear()
        self._encoder = self._speaker = None
