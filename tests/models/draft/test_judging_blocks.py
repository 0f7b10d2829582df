"""The verifier on the device: what it takes of a block of tokens, and thinks of it, is what the host does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from relay_models.draft_slots import BLOCK, DraftSlots, Judging
from relay_models.draft_stream import DraftStream
from relay_models.drafting import Chosen, Drafted, Drafting
from relay_models.host_verifier import HostVerifier
from relay_models.verifier import Verifier, VerifierConfig
from tests.models.draft.tiny_draft import TOKENIZER, draft_config, draft_model
from tests.models.ears.tiny import ears

torch.set_num_threads(1)
DRAFTING = Drafting(draft_config(), TOKENIZER)
SIZE = 10
SAYABLE = np.flatnonzero(~DRAFTING.banned)
BEGINNINGS = np.flatnonzero(DRAFTING.begins)
# Tokens that begin words and ends of turns come far more often than among all of them.
TOKENS = st.sampled_from(SAYABLE.tolist()) | st.sampled_from(BEGINNINGS.tolist()) | st.just(DRAFTING.end)
BLOCKS = st.lists(st.lists(TOKENS, min_size=BLOCK, max_size=BLOCK), min_size=1, max_size=4)


def verifier(threshold: float, **sizes: int) -> Verifier:
    torch.manual_seed(0)
    config = VerifierConfig(hidden_size=SIZE, size=16, scale=1.3, shift=0.2, threshold=threshold, **sizes)
    model = Verifier(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def cut_on_host(tokens: torch.Tensor, hidden: torch.Tensor, numbers: torch.Tensor, words: int) -> list[Drafted]:
    chosen = Chosen(tokens.numpy(), hidden.numpy(), *np.moveaxis(numbers.numpy(), 2, 0))
    return DRAFTING.run(lambda _: chosen, len(tokens), max_words=words)


@settings(max_examples=150, deadline=None)
@given(BLOCKS, st.integers(1, 9), st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5]), st.integers(0, 99))
def test_a_block_is_cut_and_judged_as_on_the_host(
    said: list[list[int]], words: int, confidence: float, threshold: float, seed: int
) -> None:
    tokens = torch.tensor(said)
    rows = len(tokens)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, BLOCK, SIZE, generator=generator)
    numbers = torch.rand(rows, BLOCK, 3, generator=generator)
    model = verifier(threshold)
    judging = Judging(model, DRAFTING)
    bounds, sure = torch.full((rows,), words), torch.full((rows,), confidence)
    kept, whole = judging.cut(tokens, bounds)
    with torch.no_grad():
        probabilities, spoken = judging.judge(tokens, hidden, numbers, sure, bounds)
    host = HostVerifier(model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    for row, drafted in enumerate(cut_on_host(tokens, hidden, numbers, words)):
        assert (int(kept[row]), int(whole[row])) == (len(drafted.tokens), len(drafted.word_ends))
        judged = host.judge(drafted, confidence)
        assert float(probabilities[row]) == pytest.approx(judged.probability, abs=1e-5)
        if abs(judged.probability - threshold) > 1e-5:  # nearer, rounding decides
            assert int(spoken[row]) == judged.words


def test_a_verifier_of_shorter_drafts_is_refused() -> None:
    with pytest.raises(ValueError, match="8 tokens"):
        Judging(verifier(0.5, max_tokens=8), DRAFTING)


def test_no_step_looks_at_what_the_device_has_computed() -> None:
    """Tensors without values: to read one on the host raises, so nothing in a step waits for a GPU."""
    recogniser = ears()
    model = draft_model(window=64, speech_size=recogniser.config.encoder.size)
    judge = Verifier(VerifierConfig(hidden_size=model.config.decoder.hidden_size, size=16)).eval()
    slots = DraftSlots(DraftStream(recogniser, model), DRAFTING, 3, judging=Judging(judge, DRAFTING))
    frame, draft = slots.listen_inputs(2), slots.draft_inputs(2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        (specials,) = slots.listen(**frame)
        *_, probabilities, spoken = slots.draft(**draft)
        assert (specials.shape, probabilities.shape, spoken.shape) == ((2, 5), (2,), (2,))
        with pytest.raises(DataDependentOutputException):
            float(probabilities[0])
