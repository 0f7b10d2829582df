"""Noise suppression before the ears: a causal DPDFNet in its published ONNX layout, streaming, a state for each slot.

The layout (DPDFNet, arXiv 2512.16420; the 16 kHz models of its authors, Apache-2.0): a graph that steps one frame of a
short-time Fourier transform of 20 ms windows every 10 ms,

    spec [1, 1, bins, 2] float32 (real, imaginary), state_in [state] float32  ->  spec_e, state_out

and metadata that say how frames are made and what the state is before the first one. Window and hop are read from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.engine.ears import EarsInput
from relay.errors import EngineUnavailable, WeightsError

Float = npt.NDArray[np.float32]

MODEL_DELAY_FRAMES = 4
"""How much later than its input the model's own output frame is: two frames of look-ahead in the features, two in the
deep filter. Not in the metadata; the authors' scripts cut it off as two whole windows."""

_FULL_SCALE = 32768.0
_EXPECTED = {"model_type": "dpdfnet", "sample_rate": str(EARS_RATE_HZ), "window_type": "vorbis"}


@dataclass(slots=True)
class _Stream:
    """One slot: the utterance under way.

    Attributes:
        state: [state] What the model carries.
        waiting: Samples that do not fill a hop yet.
        previous: [hop] The last hop, the first half of the next window.
        overlap: [hop] What the last frame adds to the next hop of output.
        to_skip: Samples of output still to be dropped: they lie before the utterance.
        owed: Samples taken and not given back yet.
    """

    state: Float
    previous: Float
    overlap: Float
    to_skip: int
    waiting: Int16Array = field(default_factory=lambda: np.empty(0, dtype=np.int16))
    owed: int = 0


class DenoiseRunner:
    """Runner[EarsInput, Int16Array]: speech with less noise, sample for sample in its place.

    Output lags behind input by `delay_samples` (50 ms with the published models) and less than a hop; the final step
    gives all that is owed, so an utterance comes back exactly as long as it was, and word times stay true. Between
    utterances a slot begins anew.

    Args:
        file: The ONNX file.
        max_slots: How many slots may be open; one takes memory (about its state, twice) from its first audio on.
        threads: Threads of one step.
    """

    max_batch = 1  # the published graphs step one stream

    def __init__(self, file: Path, *, max_slots: int = 1024, threads: int = 1) -> None:
        self.max_slots = max_slots
        self._file = file
        self._threads = threads
        self._session: Any = None
        self._streams: dict[int, _Stream | None] = {}

    @property
    def delay_samples(self) -> int:
        """How much audio must follow a sample before it is given back, at 16 kHz; known once loaded."""
        return (MODEL_DELAY_FRAMES + 1) * self._hop

    def load(self) -> None:
        """Opens the file. Raises EngineUnavailable without onnxruntime, WeightsError for a file of another kind."""
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineUnavailable("noise suppression needs onnxruntime: pip install 'relay-dialogue[cpu]'") from error
        if not self._file.is_file():
            raise WeightsError(
                f"there is no noise suppression model {self._file}; give the path of a DPDFNet ONNX file"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own, one for each status
            raise WeightsError(
                f"{self._file} cannot be opened as an ONNX model; fetch it again: {' '.join(str(error).split())}"
            ) from error
        try:
            self._hop = _read_hop(session)
            self._initial = _initial_state(session.get_modelmeta().custom_metadata_map)
            _check_graph(session, self._hop + 1, len(self._initial))
        except (KeyError, ValueError) as error:
            reason = f"its metadata lack {error.args[0]}" if isinstance(error, KeyError) else error
            raise WeightsError(
                f"{self._file} is not a 16 kHz DPDFNet model in the published layout ({reason}); "
                "fetch one that its authors exported"
            ) from error
        self._window = vorbis_window(2 * self._hop)
        self._session = session

    def open(self, slot: int) -> None:
        """Nothing yet: state is made with the first audio."""
        self._streams[slot] = None

    def close(self, slot: int) -> None:
        """Drops a slot's state."""
        del self._streams[slot]

    def unload(self) -> None:
        """Frees the model and all state."""
        self._session = None
        self._streams.clear()

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> Sequence[Int16Array | BaseException]:
        """[samples] int16 that each slot's audio completes. A slot that fails begins anew."""
        results: list[Int16Array | BaseException] = []
        for slot, x in zip(slots, xs, strict=True):
            try:
                results.append(self._step(slot, x))
            except Exception as error:
                self._streams[slot] = None
                results.append(error)
        return results

    def _step(self, slot: int, x: EarsInput) -> Int16Array:
        stream = self._streams[slot] or _Stream(
            self._initial, np.zeros(self._hop, np.float32), np.zeros(self._hop, np.float32), self.delay_samples
        )
        self._streams[slot] = stream
        stream.owed += len(x.pcm)
        pcm = np.concatenate([stream.waiting, x.pcm])
        if x.final:  # silence pushes out what is owed
            pcm = np.concatenate([pcm, np.zeros(self.delay_samples + -len(pcm) % self._hop, dtype=np.int16)])
        whole = len(pcm) // self._hop * self._hop
        stream.waiting = pcm[whole:].copy()
        hops = [self._hop_through(stream, pcm[at : at + self._hop]) for at in range(0, whole, self._hop)]
        clean = np.concatenate(hops) if hops else np.empty(0, dtype=np.float32)
        skipped = min(stream.to_skip, len(clean))
        stream.to_skip -= skipped
        clean = clean[skipped:][: stream.owed]
        stream.owed -= len(clean)
        if x.final:
            self._streams[slot] = None
        out: Int16Array = np.clip(np.rint(clean * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
        return out

    def _hop_through(self, stream: _Stream, pcm: Int16Array) -> Float:
        """[hop] int16 in -> [hop] float32 of output, by overlap and add: the window's squares sum to one."""
        hop = pcm.astype(np.float32) / np.float32(_FULL_SCALE)
        spectrum = np.fft.rfft(np.concatenate([stream.previous, hop]) * self._window)
        spec = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)[None, None]
        clean, stream.state = self._session.run(("spec_e", "state_out"), {"spec": spec, "state_in": stream.state})
        frame = np.fft.irfft(clean[0, 0, :, 0] + 1j * clean[0, 0, :, 1]) * self._window
        out: Float = (stream.overlap + frame[: self._hop]).astype(np.float32)
        stream.previous, stream.overlap = hop, frame[self._hop :].astype(np.float32)
        return out


def vorbis_window(length: int) -> Float:
    """[length] float32 power-complementary window (Vorbis I specification, section 1.3.2)."""
    rise = np.sin(np.pi * (np.arange(length) + 0.5) / length)
    window: Float = np.sin(np.pi / 2 * rise**2).astype(np.float32)
    return window


def _read_hop(session: Any) -> int:
    """The hop in samples. Raises KeyError or ValueError for metadata of another kind."""
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    for name, value in _EXPECTED.items():
        if metadata[name] != value:
            raise ValueError(f"{name} is {metadata[name]}, not {value}")
    hop, window, size = (int(metadata[name]) for name in ("hop_length", "window_length", "n_fft"))
    if hop < 1 or window != 2 * hop or size != window:
        raise ValueError(f"windows of {window} samples every {hop}, transformed as {size}")
    return hop


def _initial_state(metadata: Mapping[str, str]) -> Float:
    """[state] float32: the two running means at its head begin as the metadata say, the rest at zero."""
    state = np.zeros(int(metadata["state_size"]), dtype=np.float32)
    at = 0
    for name in ("erb_norm", "spec_norm"):
        values = np.array([float(value) for value in metadata[f"{name}_init"].split(",")], dtype=np.float32)
        if len(values) != int(metadata[f"{name}_state_size"]) or at + len(values) > len(state):
            raise ValueError(f"{name}_init has {len(values)} values")
        state[at : at + len(values)] = values
        at += len(values)
    return state


def _check_graph(session: Any, bins: int, state_size: int) -> None:
    """Raises ValueError unless inputs and outputs have the layout's names and sizes."""
    shapes = {array.name: array.shape for array in (*session.get_inputs(), *session.get_outputs())}
    if set(shapes) != {"spec", "state_in", "spec_e", "state_out"}:
        raise ValueError(f"its inputs and outputs are {', '.join(shapes)}")
    for name in ("spec", "spec_e"):
        if len(shapes[name]) != 4 or list(shapes[name][2:]) != [bins, 2]:
            raise ValueError(f"{name} has shape {shapes[name]}")
    for name in ("state_in", "state_out"):
        if list(shapes[name]) != [state_size]:
            raise ValueError(f"{name} has shape {shapes[name]}")
