"""Runs the learned recogniser as an ONNX graph on the CPU: int8, one core by default, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.engine.learned_ears import Counts, Decoding, Encoded, Floats, LearnedEars, choose_right, make_decoder, sound
from relay.errors import EngineUnavailable, WeightsError
from relay_models.ears_folder import EarsFolder, graph_name, load_pieces, load_transducer

BATCH_ROWS = 8
_TYPES: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
_OWN_INPUTS = 3  # samples, counts, lengths; the rest is state

State = list[npt.NDArray[Any]]


class OnnxEarsRunner(LearnedEars[State]):
    """The exported recogniser; a stream's state is arrays [1, ...] in the order of the graph's inputs.

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
        self._session: Any = None

    def load(self) -> None:
        """Opens the graph. Raises EngineUnavailable without onnxruntime, WeightsError, UsageError."""
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineUnavailable("this recogniser needs onnxruntime: pip install 'relay-dialogue[cpu]'") from error
        folder = self._open_folder()
        if not folder.rights:
            raise WeightsError(f"{folder.path.name} holds no exported graph; make one with `relay_models.ears_export`")
        right = choose_right(folder.rights, self._lookahead_ms)
        transducer = sound(lambda: load_transducer(folder))
        self._decoding = Decoding(
            decoder=make_decoder(transducer, folder),
            pieces=sound(lambda: load_pieces(folder.path)),
            right=right,
            delay_frames=folder.delay_frames,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = folder.path / graph_name(right)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own, one for each status
            raise WeightsError(
                f"{path.name} of {folder.path.name} cannot be opened: {' '.join(str(error).split())}"
            ) from error
        self._inputs = self._session.get_inputs()
        self._has_ends = any(output.name == "ends" for output in self._session.get_outputs())

    def _rights(self, folder: EarsFolder) -> tuple[int, ...]:
        return folder.rights

    def _fresh(self) -> State:
        return [np.zeros((1, *i.shape[1:]), dtype=_TYPES[i.type]) for i in self._inputs[_OWN_INPUTS:]]

    def _encode(self, states: Sequence[State], pcm: Floats, counts: Counts, lengths: Counts) -> Encoded:
        batch = states[0] if len(states) == 1 else [np.concatenate(parts) for parts in zip(*states, strict=True)]
        feed = dict(zip((i.name for i in self._inputs), (pcm, counts, lengths, *batch), strict=True))
        frames, valid, *rest = self._session.run(None, feed)
        ends = rest.pop(0) if self._has_ends else None
        for row, state in enumerate(states):
            # Copied out of a batch, so that one stream's state does not keep its neighbours' alive.
            state[:] = rest if len(states) == 1 else [array[row : row + 1].copy() for array in rest]
        return Encoded(frames, valid, ends)

    def unload(self) -> None:
        """Frees the session and all state."""
        self._session = None
        self._slots.clear()
