"""The fused kernels against their definition in plain torch: on a GPU, or interpreted (TRITON_INTERPRET=1)."""

from __future__ import annotations

import os

import pytest
import torch

from relay_models.encoder import Encoder
from relay_models.framing import ENDLESS
from relay_models.slots import SlotEncoder
from tests.models.ears.test_slots import SHAPES, SLOTS, poison
from tests.models.ears.tiny import MELS, encoder_config, loud

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("shape", "right", "left", "steps"), [("odd", 0, 2, 6), ("biased", 1, 4, 8), ("unbiased", 13, 14, 3)]
)
def test_kernels_give_what_their_definition_gives(shape: str, right: int, left: int, steps: int) -> None:
    """Frames and state, with streams that begin, wait and end, and batches filled up with rows of nobody."""
    from relay_models.slot_kernels import TritonOps

    encoder = Encoder(encoder_config(**SHAPES[shape], left=left, layers=1)).eval()
    loud(encoder)
    encoder.to(DEVICE)
    ours, wanted = (SlotEncoder(encoder, right, SLOTS, ops=ops, micro_rows=3) for ops in (TritonOps(keys=16), None))
    for slots in (ours, wanted):
        poison(slots, range(SLOTS))
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([ENDLESS, 8 * (right + 1) * 2 + 3, ENDLESS, 0], device=DEVICE)
    rows = torch.tensor([0, 3, 2, SLOTS], device=DEVICE)
    for step in range(steps):
        features = torch.randn(4, ours.chunk_mels, MELS, generator=generator).to(DEVICE)
        active = torch.tensor([True, True, step != 2, False], device=DEVICE)
        fresh = torch.tensor([step in (0, 4), step == 0, step == 0, False], device=DEVICE)
        features[3] = float("nan")
        (got, valid), (want, inside) = (slots.step(rows, features, active, fresh, lengths) for slots in (ours, wanted))
        assert torch.equal(valid, inside)
        torch.testing.assert_close(got[valid], want[valid], atol=1e-5, rtol=0)
    for name, tensor in ours.state.tensors.items():
        torch.testing.assert_close(tensor[:SLOTS], wanted.state[name][:SLOTS], atol=1e-5, rtol=0, equal_nan=True)
        assert torch.equal(tensor[SLOTS], torch.zeros_like(tensor[SLOTS])), name
