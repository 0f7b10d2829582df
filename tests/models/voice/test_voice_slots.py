"""The voice as static steps over slots = each reply alone, whoever stands beside it and whatever a slot held before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_models.slot_graph import Buckets
from relay_models.slot_pipeline import Pipeline
from relay_models.state import StreamState
from relay_models.voice_plan import POSITIONS, STEP_FRAMES, padded, window_of
from relay_models.voice_slots import VoiceSlots
from tests.models.voice.tiny import some_words, voice

SLOTS, BATCH = 5, 3
MODEL = voice(speakers=1)
SIZE = MODEL.config.size
EXACT = 1e-9
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


def poison(state: StreamState, slot: int) -> None:
    for tensor in state.tensors.values():
        tensor[slot] = float("nan") if tensor.is_floating_point() else 12_345


class Alone:
    """One reply, stepped by itself."""

    def __init__(self) -> None:
        self.state = StreamState(MODEL.fresh_tensors(1))

    def step(self, *given: np.ndarray) -> np.ndarray:
        inputs = [torch.from_numpy(array[None]) for array in given]
        samples, _ = MODEL.step(*inputs, self.state, torch.ones(1, dtype=torch.bool))
        return samples[0].numpy()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, SLOTS - 1), min_size=1, max_size=BATCH), max_size=12),
    st.sets(st.tuples(st.integers(0, 11), st.integers(0, SLOTS - 1))),
)
def test_slots_in_any_company_speak_as_if_alone(batches: list[set[int]], restarts: set[tuple[int, int]]) -> None:
    slots = VoiceSlots(MODEL, SLOTS)
    speaking = Pipeline(Buckets(slots.speak, slots.speak_inputs, [BATCH], graph=False), depth=1)
    chance = np.random.default_rng(0)
    replies: dict[int, Alone] = {}
    for slot in range(SLOTS):
        poison(slots.state, slot)
    for number, batch in enumerate(batches):
        for at, slot in restarts:
            if at == number and replies.pop(slot, None) is not None:
                poison(slots.state, slot)
        order = sorted(batch, key=lambda slot: (slot * 7 + number) % SLOTS)
        fresh = np.array([slot not in replies for slot in order])
        vectors = chance.standard_normal((len(order), STEP_FRAMES, SIZE))
        positions = chance.random((len(order), STEP_FRAMES, POSITIONS))
        valid = np.arange(STEP_FRAMES) < chance.integers(1, STEP_FRAMES + 1, (len(order), 1))
        step = speaking.start(slots=np.array(order), vectors=vectors, positions=positions, valid=valid, fresh=fresh)
        (samples,) = step.results()
        for row, slot in enumerate(order):
            want = replies.setdefault(slot, Alone()).step(vectors[row], positions[row], valid[row])
            # The samples of static steps leave as float32.
            np.testing.assert_allclose(samples[row], want.astype(np.float32), rtol=1e-6, atol=EXACT)
    assert all(not tensor[SLOTS].any() for tensor in slots.state.tensors.values())  # nobody has no state


def test_windows_are_read_as_by_the_voice() -> None:
    slots = VoiceSlots(MODEL, SLOTS)
    width = 48
    reading = Pipeline(Buckets(slots.read, lambda rows: slots.read_inputs(rows, width), [BATCH], graph=False), depth=1)
    words = some_words(6)
    for numbers in ([0, 1, 2], [5], [3, 4]):  # smaller batches find what the larger left in the buffers
        windows = [window_of(words, number) for number in numbers]
        ids, places = padded(windows)
        room = ((0, 0), (0, width - ids.shape[1]))
        vectors, lengths = reading.start(ids=np.pad(ids, room), places=np.pad(places, room)).results()
        assert len(vectors) == len(lengths) == len(windows)
        for row, window in enumerate(windows):
            one = (torch.from_numpy(array) for array in padded([window]))
            want = MODEL.encode(*one, torch.zeros(1, dtype=torch.int64))
            count = len(window.ids)
            np.testing.assert_allclose(vectors[row, :count], want[0][0].detach().float(), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(lengths[row, :count], want[1][0].detach().float(), rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_captured_steps_speak_what_eager_ones_speak(device: str) -> None:
    """On the CPU both are eager."""
    model = voice(speakers=1).to(device)
    chance = np.random.default_rng(1)
    both = [VoiceSlots(model, SLOTS), VoiceSlots(model, SLOTS)]
    pipelines = [
        Pipeline(Buckets(slots.speak, slots.speak_inputs, [BATCH], graph=graph and device == "cuda"), depth=1)
        for slots, graph in zip(both, (True, False), strict=True)
    ]
    for number in range(6):
        given = {
            "slots": chance.permutation(SLOTS)[: 1 + number % BATCH],
            "vectors": chance.standard_normal((1 + number % BATCH, STEP_FRAMES, SIZE)),
            "positions": chance.random((1 + number % BATCH, STEP_FRAMES, POSITIONS)),
            "valid": np.ones((1 + number % BATCH, STEP_FRAMES), np.bool_),
            "fresh": np.full(1 + number % BATCH, number == 0),
        }
        (one,), (other,) = (pipeline.start(**given).results() for pipeline in pipelines)
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=EXACT)
