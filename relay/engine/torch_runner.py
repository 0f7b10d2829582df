"""Runs the embedded language model in torch: static buffers on the device, a batch of a few sizes a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from relay.engine.brain import READING, BrainInput, BrainOutput, Plan, Rows, pack_draws
from relay.engine.torch_steps import own_stream, powers, static_steps
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading

if TYPE_CHECKING:
    from relay_models.slot_pipeline import Pipeline

PREFILL_TOKENS = 64
_WIDTHS = (1, PREFILL_TOKENS)  # two only, each captured


class TorchBrainRunner:
    """The language model behind the engine contract, from the same weights file as the ONNX graph.

    A step is of a few sizes, one token or `PREFILL_TOKENS` wide; on a GPU each is a CUDA graph.

    Args:
        folder: Model folder; None takes the shipped one.
        device: Torch device.
        max_slots: How many dialogues may be open.
        cache_rows: How many of them keep a cache, of 2 MB each.
        max_batch: How many are stepped at once, at most as many as keep a cache.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        device: str = "cuda",
        max_slots: int = 1024,
        cache_rows: int = 256,
        max_batch: int = 32,
    ) -> None:
        self.max_slots = max_slots
        self.max_batch = min(max_batch, cache_rows)
        self._folder = folder
        self._device = device
        self._cache_rows = cache_rows
        self._rows = Rows(cache_rows)
        self._context = self._vocabulary = 0
        self._pipelines: dict[int, Pipeline] = {}

    def load(self) -> None:
        """Dequantises the weights onto the device. Raises EngineUnavailable without torch or device, WeightsError."""
        try:
            from relay_models.decoder import load_packed_decoder
            from relay_models.decoder_slots import DecoderSlots
        except ImportError as error:
            raise EngineUnavailable("the torch runner needs torch: pip install 'relay-dialogue[gpu]'") from error
        try:
            folder = self._folder or loading.locate("brain")
            own_stream(self._device)
            model = load_packed_decoder(folder).to(self._device)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
            raise EngineUnavailable(f"torch cannot use {self._device!r}: {' '.join(str(error).split())}") from error
        self._context, self._vocabulary = model.config.max_position_embeddings, model.config.vocab_size
        slots = DecoderSlots(model, self._cache_rows)
        self._pipelines = {
            width: static_steps(
                slots.step,
                partial(slots.inputs, width=width),
                powers(self.max_batch),
                name=f"language model, {width} wide,",
            )
            for width in _WIDTHS
        }

    def open(self, slot: int) -> None:
        """Nothing to prepare: a slot takes a row when it is first stepped."""

    def step(self, slots: Sequence[int], xs: Sequence[BrainInput]) -> Sequence[BrainOutput | BaseException]:
        """Reads up to `PREFILL_TOKENS` new tokens of each slot and draws where none is left to read."""
        plans = [self._plan(slot, x) for slot, x in zip(slots, xs, strict=True)]
        ready = [(plan, x) for plan, x in zip(plans, xs, strict=True) if isinstance(plan, Plan)]
        try:
            drawn = iter(self._forward([plan for plan, _ in ready], [x for _, x in ready]) if ready else ())
        except Exception as error:
            for slot in slots:
                self._rows.drop(slot)
            return [error] * len(slots)
        return [next(drawn) if isinstance(plan, Plan) else plan for plan in plans]

    def _plan(self, slot: int, x: BrainInput) -> Plan | ValueError:
        if len(x.tokens) > self._context:
            return ValueError(f"{len(x.tokens)} tokens are more than the model's context of {self._context}")
        try:
            plan = self._rows.plan(slot, x, chunk=PREFILL_TOKENS)
        except ValueError as error:
            return error
        for tokens in (plan.tokens, x.banned, x.watched):  # what the cache holds was looked at when it was read
            if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocabulary:  # a GPU would be lost over it
                self._rows.drop(slot)
                return ValueError(f"a token that is none of the model's {self._vocabulary}")
        return plan

    def _forward(self, plans: Sequence[Plan], xs: Sequence[BrainInput]) -> list[BrainOutput]:
        """Reads what each plan says, and draws the token after it where that completes the context."""
        width = 1 if all(len(plan.tokens) == 1 for plan in plans) else PREFILL_TOKENS
        tokens = np.zeros((len(plans), width), dtype=np.int64)
        for row, plan in zip(tokens, plans, strict=True):
            row[: len(plan.tokens)] = plan.tokens
        sampling, sets = pack_draws(xs, self._vocabulary)
        step = self._pipelines[width].start(
            slots=np.array([plan.row for plan in plans]),
            tokens=tokens,
            lengths=np.array([plan.start for plan in plans]),
            counts=np.array([len(plan.tokens) for plan in plans]),
            sampling=sampling,
            sets=sets,
        )
        drawn, figures = step.results()
        return [
            BrainOutput(token, *told) if plan.complete else READING
            for plan, token, told in zip(plans, drawn.tolist(), figures.tolist(), strict=True)
        ]

    def close(self, slot: int) -> None:
        """Gives the slot's row back to the pool."""
        self._rows.drop(slot)

    def unload(self) -> None:
        """Frees the weights and all caches."""
        self._pipelines.clear()
