"""Runs a learned recogniser in torch: on a GPU in half precision, or on the CPU as it is.

It takes what the ONNX runner takes, folders that were never exported, and published checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relay.config import Device
from relay.engine import device as devices
from relay.engine.learned_ears import Counts, Decoding, Encoded, Floats, LearnedEars, choose_right, make_decoder, sound
from relay.engine.torch_steps import own_stream, powers
from relay.errors import EngineUnavailable
from relay_models.ears_folder import OWN, EarsFolder, load_pieces

if TYPE_CHECKING:
    import torch

    from relay_models.ears import Ears
    from relay_models.ears_chunk import ChunkStep
    from relay_models.slot_ops import Ops
    from relay_models.slot_pipeline import Pipeline
    from relay_models.state import StreamState

BATCH_ROWS = 64
_FIRST_ROWS = 4
_DEPTH = 2  # batches under way: one is encoded while the one before is decoded
_STATIC_SHARE = 0.5  # of the GPU memory that is free: other models want some too

log = logging.getLogger(__name__)


class TorchEarsRunner(LearnedEars[int]):
    """A recogniser on a torch device; a stream's state is one row of buffers.

    On a GPU there are rows for all slots from the start, and steps of a few batch sizes are captured as CUDA graphs.
    Elsewhere, where there is no room for that, and for encoders that attend otherwise, the buffers grow with the
    streams under way.

    Args:
        folder: Model folder, in the own or the published layout; None takes the shipped one.
        device: Where it runs.
        lookahead_ms: One of the model's look-aheads; None takes its default.
        max_slots: How many slots can be open.
        max_batch: How many are stepped at once.
        rows: How many are encoded at once; None: as many as are stepped. With fewer, a part is encoded while the one
            before is decoded.
        dtype: Type of weights and state by torch's name; None takes `bfloat16` on a GPU and `float32` elsewhere.
        static: Rows for all slots from the start; None: on a GPU.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        device: Device = "auto",
        lookahead_ms: int | None = None,
        max_slots: int = 1024,
        max_batch: int = BATCH_ROWS,
        rows: int | None = None,
        dtype: str | None = None,
        static: bool | None = None,
    ) -> None:
        super().__init__(folder, max_slots=max_slots, max_batch=max_batch, rows=rows, ahead=_DEPTH - 1)
        self._device = device
        self._lookahead_ms = lookahead_ms
        self._dtype = dtype
        self._chunk: ChunkStep | None = None
        self._state: StreamState | None = None
        self._free: list[int] = []
        self._static = static
        self._pipeline: Pipeline | None = None
        self._begun: set[int] = set()

    def load(self) -> None:
        """Loads the weights onto the device. Raises EngineUnavailable without torch, WeightsError, UsageError."""
        try:
            import torch

            from relay_models.ears_chunk import ChunkStep
        except ImportError as error:
            raise EngineUnavailable("this recogniser needs torch: pip install 'relay-dialogue[gpu]'") from error
        from relay_models.host_transducer import HostTransducer

        device = devices.resolve(self._device)
        dtype = getattr(torch, self._dtype or ("bfloat16" if device == "cuda" else "float32"))
        folder = self._open_folder()
        ears = sound(lambda: _load(folder))
        right = choose_right(ears.config.encoder.rights, self._lookahead_ms)
        tensors = {name: tensor.numpy() for name, tensor in ears.state_dict().items()}
        transducer = sound(lambda: HostTransducer.from_tensors(ears.config.transducer, tensors))
        try:
            own_stream(device)
            self._chunk = ChunkStep(ears.to(device=device, dtype=dtype), right)
        except RuntimeError as error:
            raise EngineUnavailable(f"torch cannot use {device!r}: {' '.join(str(error).split())}") from error
        self._decoding = Decoding(
            decoder=make_decoder(transducer, folder, self.max_batch),
            pieces=sound(lambda: load_pieces(folder.path)),
            right=right,
            delay_frames=self._chunk.encoder.delay_frames,
        )
        if (device == "cuda" if self._static is None else self._static) and self._make_buckets(ears, right, device):
            self._free.extend(range(self.max_slots))
        else:
            self._grow(_FIRST_ROWS)

    def _make_buckets(self, ears: Ears, right: int, device: str) -> bool:
        """Prepares static steps; whether that was possible."""
        import torch

        from relay_models.ears_slots import EarsSlots
        from relay_models.slot_graph import Buckets
        from relay_models.slot_pipeline import Pipeline

        on_gpu = device == "cuda"
        try:
            one = EarsSlots(ears, right, 1)
        except ValueError:
            return False
        row_bytes = sum(tensor[0].nbytes for tensor in one.state.tensors.values())
        if on_gpu and row_bytes * self.max_slots > _STATIC_SHARE * torch.cuda.mem_get_info()[0]:
            log.warning("no room on the GPU for %d streams at once: their steps will be slower", self.max_slots)
            return False
        sizes = powers(self._batch_rows)
        for fused in (True, False) if on_gpu else (False,):
            try:
                slots = EarsSlots(ears, right, self.max_slots, ops=_fused_ops() if fused else None)
                self._pipeline = Pipeline(Buckets(slots.step, slots.inputs, sizes, graph=on_gpu), depth=_DEPTH)
            except Exception as error:  # no Triton, no compiler for it, or a driver that captures nothing
                which = "fused kernels" if fused else "CUDA graphs"
                log.warning("steps go without %s and will be slower: %s", which, " ".join(str(error).split())[:300])
            else:
                return True
        return False

    def _grow(self, rows: int) -> None:
        """Makes room for so many rows more."""
        import torch

        from relay_models.state import StreamState

        assert self._chunk is not None
        more = self._chunk.fresh_tensors(rows)
        before = self._state.rows if self._state is not None else 0
        if self._state is not None:
            more = {name: torch.cat((self._state[name], tensor)) for name, tensor in more.items()}
        self._state = StreamState(more)
        self._free.extend(range(before, before + rows))

    def _rights(self, folder: EarsFolder) -> tuple[int, ...]:
        if folder.model_type == OWN:
            return tuple(folder.config.get("encoder", {}).get("rights", ()))
        from relay_models.checkpoints.nemotron import read_ears_config

        return read_ears_config(folder.path).encoder.rights

    def _fresh(self) -> int:
        if self._pipeline is not None:
            return self._free.pop()
        assert self._state is not None
        if not self._free:
            self._grow(self._state.rows)
        row = self._free.pop()
        for tensor in self._state.tensors.values():
            tensor[row] = 0
        return row

    def _release(self, state: int) -> None:
        self._free.append(state)
        self._begun.discard(state)

    def _encode(self, states: Sequence[int], pcm: Floats, counts: Counts, lengths: Counts) -> Callable[[], Encoded]:
        import torch

        from relay_models.state import StreamState

        if self._pipeline is not None:
            return self._encode_static(self._pipeline, states, pcm, counts, lengths)
        assert self._chunk is not None
        assert self._state is not None

        def here(array: Floats | Counts) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        device = self._state["encoder.position"].device
        rows = torch.tensor(states, device=device)
        batch = StreamState({name: tensor[rows] for name, tensor in self._state.tensors.items()})
        with torch.no_grad():
            active = torch.ones(len(states), dtype=torch.bool, device=device)
            chunk = self._chunk(here(pcm), here(counts), here(lengths), batch, active)
            for name, tensor in self._state.tensors.items():
                tensor[rows] = batch[name]
        frames, valid, ends = chunk
        return lambda: Encoded(
            frames.float().cpu().numpy(), valid.cpu().numpy(), None if ends is None else ends.cpu().numpy()
        )

    def _encode_static(
        self, pipeline: Pipeline, states: Sequence[int], pcm: Floats, counts: Counts, lengths: Counts
    ) -> Callable[[], Encoded]:
        fresh = np.array([state not in self._begun for state in states])
        self._begun.update(states)
        step = pipeline.start(slots=np.array(states), pcm=pcm, counts=counts, lengths=lengths, fresh=fresh)

        def encoded() -> Encoded:
            frames, valid, *ends = step.results()
            return Encoded(frames, valid, ends[0] if ends else None)

        return encoded

    def unload(self) -> None:
        """Frees the weights and all state."""
        self._chunk = None
        self._state = None
        self._pipeline = None
        self._begun.clear()
        self._free.clear()
        self._slots.clear()


def _load(folder: EarsFolder) -> Ears:
    """The model, in float32 on the CPU. Raises the WeightsError of `relay_models`."""
    if folder.model_type == OWN:
        from relay_models.ears import load_ears

        return load_ears(folder.path)
    from relay_models.checkpoints.nemotron import load_nemotron

    return load_nemotron(folder.path)


def _fused_ops() -> Ops:
    """Raises ImportError without Triton."""
    from relay_models.slot_kernels import TritonOps

    return TritonOps()
