"""Runs the duplex draft model as ONNX graphs on the CPU: int8, one core by default, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relay.engine.draft import DRAFT_FRAME_SAMPLES
from relay.engine.ears_onnx import OnnxEncoder
from relay.engine.ears_onnx import State as EncoderState
from relay.engine.learned_draft import Floats, Forked, Integers, LearnedDraft
from relay.engine.onnx_graph import open_graph
from relay.errors import WeightsError
from relay_models import loading
from relay_models.draft_config import DRAFT, LISTEN, RIGHT, DraftConfig, keys_name, values_name
from relay_models.drafting import Chosen, Drafting
from relay_models.ears_folder import graph_name, open_folder
from relay_models.framing import ENDLESS
from relay_models.tokenizer import ChatTokenizer

BATCH_ROWS = 8

_DRAFTED = ("token", "hidden", "log_probability", "entropy", "margin", "new")  # the first five in `Chosen`'s order


@dataclass(slots=True)
class _Memory:
    """State of some streams, one a row.

    Attributes:
        entries: [rows], how many entries each has had.
        rings: Keys of each layer, then values of each, [rows, kv_heads, window, head_dim].
    """

    entries: Integers
    rings: list[Floats]

    @classmethod
    def join(cls, parts: Sequence[_Memory]) -> _Memory:
        """A copy of several as one."""
        rings = [np.concatenate(layer) for layer in zip(*(part.rings for part in parts), strict=True)]
        return cls(np.concatenate([part.entries for part in parts]), rings)

    def write(self, new: Floats) -> None:
        """Takes the entries [rows, layers, 2, kv_heads, head_dim] that a graph gave."""
        rows, places = np.arange(len(new)), self.entries % self.rings[0].shape[2]
        layers = new.shape[1]
        for number, ring in enumerate(self.rings):
            ring[rows, :, places] = new[:, number % layers, number // layers]
        self.entries += 1


@dataclass(slots=True)
class _Stream:
    """State of a slot: the encoder's, the frame before [1, 1, speech_size], and the model's."""

    encoder: EncoderState
    past: Floats
    memory: _Memory


class OnnxDraftRunner(LearnedDraft):
    """The exported draft model. A slot's rings are written in place; where one slot is stepped, they are not copied.

    Args:
        ears: Folder of the recogniser whose encoder it hears through, with a graph for a look-ahead of one frame.
        draft: Folder of the model, with graphs.
        tokenizer: tokenizer.json of its text.
        max_slots: How many sessions may be followed; one takes 4 MB.
        max_batch: How many are stepped at once.
        threads: Threads of one step.
    """

    def __init__(
        self,
        ears: Path,
        draft: Path,
        tokenizer: Path,
        *,
        max_slots: int = 64,
        max_batch: int = BATCH_ROWS,
        threads: int = 1,
    ) -> None:
        super().__init__(ears, draft, tokenizer, max_slots=max_slots, max_batch=max_batch)
        self._threads = threads
        self._streams: dict[int, _Stream] = {}
        self._encoder: OnnxEncoder
        self._drafting: Drafting
        self._listener: Any = None
        self._drafter: Any = None

    def load(self) -> None:
        """Opens the graphs. Raises EngineUnavailable without onnxruntime, WeightsError."""
        try:
            self._tokenizer = ChatTokenizer.load(self._tokenizer_path)
            self._config = DraftConfig.from_dict(loading.read_config(self._draft_folder))
            self._drafting = Drafting(self._config, self._tokenizer)
            ears = open_folder(self._ears_folder)
        except (loading.WeightsError, ValueError) as error:
            raise WeightsError(str(error)) from error
        if RIGHT not in ears.rights or ears.delay_frames:
            raise WeightsError(f"a draft model needs ears exported with a look-ahead of {RIGHT} frame, in chunks")
        self._encoder = OnnxEncoder(ears.path / graph_name(RIGHT), self._threads)
        if self._encoder.size != self._config.speech_size:
            raise WeightsError(f"ears of width {self._encoder.size} with a draft model for {self._config.speech_size}")
        self._listener, self._drafter = (
            open_graph(self._draft_folder / name, self._threads, of="the draft model") for name in (LISTEN, DRAFT)
        )
        layers = range(self._config.decoder.num_hidden_layers)
        self._rings = (*(keys_name(index) for index in layers), *(values_name(index) for index in layers))

    def unload(self) -> None:
        """Frees everything."""
        self._slots.clear()
        self._streams.clear()
        self._listener = self._drafter = None
        del self._encoder

    def _reset(self, slot: int) -> None:
        sizes = self._config.decoder
        ring = (1, sizes.num_key_value_heads, self._config.window, sizes.head_dim)
        self._streams[slot] = _Stream(
            encoder=self._encoder.fresh(),
            past=np.zeros((1, 1, self._config.speech_size), dtype=np.float32),
            memory=_Memory(np.zeros(1, dtype=np.int64), [np.zeros(ring, dtype=np.float32) for _ in self._rings]),
        )

    def _release(self, slot: int) -> None:
        del self._streams[slot]

    def _listen(self, slots: Sequence[int], pcm: Floats, previous: Integers) -> Floats:
        streams = [self._streams[slot] for slot in slots]
        counts = np.full(len(slots), DRAFT_FRAME_SAMPLES)
        speech = self._encoder.step([one.encoder for one in streams], pcm, counts, np.full_like(counts, ENDLESS)).frames
        alone = len(streams) == 1
        memory = streams[0].memory if alone else _Memory.join([one.memory for one in streams])
        past = np.concatenate([one.past for one in streams])
        specials: Floats
        specials, new = self._listener.run(
            ("specials", "new"), {"speech": speech, "past": past, "previous": previous, **self._feed(memory)}
        )
        for row, one in enumerate(streams):
            one.past = speech[row : row + 1, -1:].copy()
            one.memory.write(new[row : row + 1])
        return specials

    def _fork(self, slots: Sequence[int], confidences: Floats, max_tokens: int, max_words: int) -> list[Forked]:
        fork = _Memory.join([self._streams[slot].memory for slot in slots])

        def step(previous: Integers) -> Chosen:
            given = {"previous": previous, "banned": self._drafting.banned, **self._feed(fork)}
            *chosen, new = self._drafter.run(_DRAFTED, given)
            fork.write(new)
            return Chosen(*(part[:, None] for part in chosen))

        made = self._drafting.run(step, len(slots), max_tokens=max_tokens, max_words=max_words)
        return [(each, None) for each in made]

    def _feed(self, memory: _Memory) -> dict[str, Any]:
        return {"entries": memory.entries, **dict(zip(self._rings, memory.rings, strict=True))}
