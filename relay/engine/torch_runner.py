"""Runs the embedded language model in torch: static buffers on the device, one padded batch a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relay.engine.brain import READING, BrainInput, BrainOutput, FloatArray, Plan, Rows, draw
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading

if TYPE_CHECKING:
    from relay_models.decoder import Decoder
    from relay_models.state import StreamState

PREFILL_TOKENS = 64


class TorchBrainRunner:
    """The language model behind the engine contract, from the same weights file as the ONNX graph.

    Every step runs all rows of the pool: rows without a step get no tokens. Shapes are therefore static.

    Args:
        folder: Model folder; None takes the shipped one.
        device: Torch device.
        max_slots: How many dialogues may be open.
        cache_rows: How many of them keep a cache; also the largest batch.
    """

    def __init__(
        self, folder: Path | None = None, *, device: str = "cuda", max_slots: int = 1024, cache_rows: int = 32
    ) -> None:
        self.max_slots = max_slots
        self.max_batch = cache_rows
        self._folder = folder
        self._device = device
        self._rows = Rows(cache_rows)
        self._model: Decoder | None = None
        self._state: StreamState | None = None

    def load(self) -> None:
        """Dequantises the weights onto the device. Raises EngineUnavailable without torch or device, WeightsError."""
        try:
            import torch

            from relay_models.decoder import load_packed_decoder
        except ImportError as error:
            raise EngineUnavailable("the torch runner needs torch: pip install 'relay-dialogue[gpu]'") from error
        try:
            folder = self._folder or loading.locate("brain")
            self._model = load_packed_decoder(folder).to(self._device)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
            raise EngineUnavailable(f"torch cannot use {self._device!r}: {' '.join(str(error).split())}") from error
        self._state = self._model.fresh_state(self.max_batch, dtype=torch.float16)

    def open(self, slot: int) -> None:
        """Nothing to prepare: a slot takes a row when it is first stepped."""

    def step(self, slots: Sequence[int], xs: Sequence[BrainInput]) -> Sequence[BrainOutput | BaseException]:
        """Reads up to `PREFILL_TOKENS` new tokens of each slot and draws where none is left to read."""
        assert self._model is not None
        plans = [self._plan(slot, x) for slot, x in zip(slots, xs, strict=True)]
        ready = [plan for plan in plans if isinstance(plan, Plan)]
        if not ready:
            return [plan for plan in plans if not isinstance(plan, Plan)]
        try:
            logits = self._forward(ready)
        except Exception as error:
            for slot in slots:
                self._rows.drop(slot)
            return [error] * len(slots)
        return [
            plan if not isinstance(plan, Plan) else draw(logits[plan.row], x) if plan.complete else READING
            for plan, x in zip(plans, xs, strict=True)
        ]

    def _plan(self, slot: int, x: BrainInput) -> Plan | ValueError:
        assert self._model is not None
        context = self._model.config.max_position_embeddings
        if len(x.tokens) > context:
            return ValueError(f"{len(x.tokens)} tokens are more than the model's context of {context}")
        try:
            return self._rows.plan(slot, x, chunk=PREFILL_TOKENS)
        except ValueError as error:
            return error

    def _forward(self, plans: Sequence[Plan]) -> FloatArray:
        """One step of the whole pool -> logits [rows, vocabulary] float32."""
        import torch

        assert self._model is not None
        assert self._state is not None
        # Two widths only, so that a compiled or captured step would be reused.
        width = 1 if all(len(plan.tokens) == 1 for plan in plans) else PREFILL_TOKENS
        tokens = np.zeros((self.max_batch, width), dtype=np.int64)
        counts = np.zeros(self.max_batch, dtype=np.int64)
        lengths = self._state["lengths"]
        for plan in plans:
            tokens[plan.row, : len(plan.tokens)] = plan.tokens
            counts[plan.row] = len(plan.tokens)
            lengths[plan.row] = plan.start
        device = lengths.device
        logits, self._state = self._model.step(
            torch.from_numpy(tokens).to(device), self._state, torch.from_numpy(counts).to(device)
        )
        array: FloatArray = logits.float().cpu().numpy()
        return array

    def close(self, slot: int) -> None:
        """Gives the slot's row back to the pool."""
        self._rows.drop(slot)

    def unload(self) -> None:
        """Frees the weights and all caches."""
        self._model = None
        self._state = None
