"""Runs the learned recogniser as an ONNX graph on the CPU: int8, one core by default, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.engine.learned_ears import Counts, Decoding, Encoded, Floats, LearnedEars, choose_right, make_decoder, sound
from relay.engine.onnx_graph import TYPES, open_graph
from relay.errors import WeightsError
from relay_models.ears_folder import EarsFolder, graph_name, load_pieces, load_transducer

BATCH_ROWS = 8
_OWN_INPUTS = 3  # samples, counts, lengths; the rest is state

State = list[npt.NDArray[Any]]


class OnnxEncoder:
    """Front end and encoder of a recogniser, from samples to frames; a stream's state is arrays [1, ...].

    Args:
        graph: An exported graph of one look-ahead.
        threads: Threads of one step.

    Raises:
        EngineUnavailable: There is no onnxruntime.
        WeightsError: The graph or its weights are missing or damaged.
    """

    def __init__(self, graph: Path, threads: int) -> None:
        self._session = open_graph(graph, threads, of="this recogniser")
        self._inputs = self._session.get_inputs()
        self._has_ends = any(output.name == "ends" for output in self._session.get_outputs())

    @property
    def size(self) -> int:
        """Width of its frames."""
        return int(self._session.get_outputs()[0].shape[-1])

    def fresh(self) -> State:
        """State of a stream that has not begun, in the order of the graph's inputs."""
        return [np.zeros((1, *i.shape[1:]), dtype=TYPES[i.type]) for i in self._inputs[_OWN_INPUTS:]]

    def step(self, states: Sequence[State], pcm: Floats, counts: Counts, lengths: Counts) -> Encoded:
        """A chunk of each stream, whose state is advanced; see `relay_models.ears_chunk.ChunkStep`."""
        batch = states[0] if len(states) == 1 else [np.concatenate(parts) for parts in zip(*states, strict=True)]
        feed = dict(zip((i.name for i in self._inputs), (pcm, counts, lengths, *batch), strict=True))
        frames, valid, *rest = self._session.run(None, feed)
        ends = rest.pop(0) if self._has_ends else None
        for row, state in enumerate(states):
            # Copied out of a batch, so that one stream's state does not keep its neighbours' alive.
            state[:] = rest if len(states) == 1 else [array[row : row + 1].copy() for array in rest]
        return Encoded(frames, valid, ends)


class OnnxEarsRunner(LearnedEars[State]):
    """The exported recogniser.

    Args:
        folder: Model folder with graphs; None takes the shipped one.
        lookahead_ms: One of the model's look-aheads; None takes its default.
        max_slots: How many slots can be open; one without an utterance under way costs nothing, the others 2 MB.
        max_batch: How many are encoded at once.
        threads: Threads of one step.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        lookahead_ms: int | None = None,
        max_slots: int = 1024,
        max_batch: int = BATCH_ROWS,
        threads: int = 1,
    ) -> None:
        super().__init__(folder, max_slots=max_slots, max_batch=max_batch)
        self._lookahead_ms = lookahead_ms
        self._threads = threads
        self._encoder: OnnxEncoder | None = None

    def load(self) -> None:
        """Opens the graph. Raises EngineUnavailable without onnxruntime, WeightsError, UsageError."""
        folder = self._open_folder()
        if not folder.rights:
            raise WeightsError(f"{folder.path.name} holds no exported graph; make one with `relay_models.ears_export`")
        right = choose_right(folder.rights, self._lookahead_ms)
        transducer = sound(lambda: load_transducer(folder))
        self._decoding = Decoding(
            decoder=make_decoder(transducer, folder, self.max_batch),
            pieces=sound(lambda: load_pieces(folder.path)),
            right=right,
            delay_frames=folder.delay_frames,
        )
        self._encoder = OnnxEncoder(folder.path / graph_name(right), self._threads)

    def _rights(self, folder: EarsFolder) -> tuple[int, ...]:
        return folder.rights

    def _fresh(self) -> State:
        assert self._encoder is not None
        return self._encoder.fresh()

    def _encode(self, states: Sequence[State], pcm: Floats, counts: Counts, lengths: Counts) -> Callable[[], Encoded]:
        assert self._encoder is not None
        encoded = self._encoder.step(states, pcm, counts, lengths)
        return lambda: encoded

    def unload(self) -> None:
        """Frees the session and all state."""
        self._encoder = None
        self._slots.clear()
