"""Runs the embedded language model as an ONNX graph on the CPU, int8, one core by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.engine.brain import READING, BrainInput, BrainOutput, Rows, draw
from relay.engine.onnx_graph import open_graph
from relay.errors import WeightsError
from relay_models import loading

PREFILL_TOKENS = 64
CACHE_ROWS = 16


class OnnxBrainRunner:
    """The language model behind the engine contract; slots share one session and a bounded pool of caches.

    Each slot's cache is one array [context, layers, 2, kv_heads, head_dim] float16; the graph reads its valid part and
    gives back only the new tokens' entries, so rolling back is forgetting a length.

    Args:
        folder: Model folder; None takes the shipped one.
        max_slots: How many dialogues may be open.
        cache_rows: How many of them keep a cache (2 MB each, of which the system gives what is written to).
        threads: Threads of one step.
    """

    max_batch = 1

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_slots: int = 1024,
        cache_rows: int = CACHE_ROWS,
        threads: int = 1,
    ) -> None:
        self.max_slots = max_slots
        self._folder = folder
        self._threads = threads
        self._rows = Rows(cache_rows)
        self._caches: list[npt.NDArray[np.float16] | None] = [None] * cache_rows
        self._session: Any = None
        self._context = 0

    def load(self) -> None:
        """Opens the graph. Raises EngineUnavailable without onnxruntime, WeightsError without sound weights."""
        try:
            folder = self._folder or loading.locate("brain")
            config = loading.read_config(folder)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error
        self._session = open_graph(folder / "model.onnx", self._threads, of="the embedded brain")
        self._context = config["max_position_embeddings"]

    def open(self, slot: int) -> None:
        """Nothing to prepare: a slot takes a cache when it is first stepped."""

    def step(self, slots: Sequence[int], xs: Sequence[BrainInput]) -> Sequence[BrainOutput | BaseException]:
        """Reads up to `PREFILL_TOKENS` new tokens and, when none is left to read, draws the next one."""
        return [self._step(slot, x) for slot, x in zip(slots, xs, strict=True)]

    def _step(self, slot: int, x: BrainInput) -> BrainOutput | BaseException:
        try:
            if len(x.tokens) > self._context:
                raise ValueError(f"{len(x.tokens)} tokens are more than the model's context of {self._context}")
            plan = self._rows.plan(slot, x, chunk=PREFILL_TOKENS)
            stop = plan.start + len(plan.tokens)
            cache = self._cache(plan.row)
            logits, entries = self._session.run(
                ("logits", "new_entries"),
                {
                    "tokens": np.array([plan.tokens], dtype=np.int64),
                    "entries": cache[None, : plan.start],
                    "lengths": np.array([plan.start], dtype=np.int64),
                    "counts": np.array([len(plan.tokens)], dtype=np.int64),
                },
            )
            cache[plan.start : stop] = entries[0]
            return draw(logits[0], x) if plan.complete else READING
        except Exception as error:
            self._rows.drop(slot)  # its cache may not hold what the books say
            return error

    def _cache(self, row: int) -> npt.NDArray[np.float16]:
        """The row's cache, made when the row is first used. It never grows: what grows bit by bit leaves holes."""
        cache = self._caches[row]
        if cache is None:
            cache = np.zeros((self._context, *self._session.get_inputs()[1].shape[2:]), dtype=np.float16)
            self._caches[row] = cache
        return cache

    def close(self, slot: int) -> None:
        """Gives the slot's cache back to the pool."""
        self._rows.drop(slot)

    def unload(self) -> None:
        """Frees the session and all caches."""
        self._session = None
        self._caches = [None] * len(self._caches)
