"""The loss against an enumeration of all alignments."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models import rnnt_loss as module
from relay_models.rnnt_loss import rnnt_loss

torch.set_num_threads(1)
BLANK = 3


def enumerated(log_probabilities: Tensor, targets: list[int]) -> Tensor:
    """Minus the log of the summed probability of every way to say `targets`: [frames, tokens + 1, vocabulary] -> []."""
    frames, tokens = len(log_probabilities), len(targets)
    paths = []
    for places in itertools.combinations(range(frames - 1 + tokens), tokens):
        t = u = 0
        path = log_probabilities.new_zeros(())
        for place in range(frames - 1 + tokens):
            if place in places:
                path = path + log_probabilities[t, u, targets[u]]
                u += 1
            else:
                path = path + log_probabilities[t, u, BLANK]
                t += 1
        paths.append(path + log_probabilities[t, u, BLANK])
    return -torch.logsumexp(torch.stack(paths), 0)


def case(frame_counts: list[int], target_counts: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, frames, tokens = len(frame_counts), max(frame_counts), max(target_counts)
    logits = 2 * torch.randn(batch, frames, tokens + 1, BLANK + 1, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, BLANK, (batch, tokens), generator=generator)
    return logits.requires_grad_(), targets, torch.tensor(frame_counts), torch.tensor(target_counts)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=3), st.integers(0, 99))
def test_values_and_gradients_are_those_of_the_enumeration(sizes: list[tuple[int, int]], seed: int) -> None:
    logits, targets, frames, tokens = case([t for t, _ in sizes], [u for _, u in sizes], seed)
    weights = torch.arange(1.0, len(sizes) + 1, dtype=torch.float64)
    costs = rnnt_loss(logits, targets, frames, tokens, blank=BLANK)
    want = torch.stack(
        [
            enumerated(logits[row, :t, : u + 1].log_softmax(-1), targets[row, :u].tolist())
            for row, (t, u) in enumerate(sizes)
        ]
    )
    torch.testing.assert_close(costs, want, atol=1e-12, rtol=0)
    (gradient,) = torch.autograd.grad(costs @ weights, logits)
    (wanted,) = torch.autograd.grad(want @ weights, logits)
    torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    logits, targets, frames, tokens = case([3, 4], [2, 1], 5)
    assert torch.autograd.gradcheck(lambda x: rnnt_loss(x, targets, frames, tokens, blank=BLANK), (logits,))


def test_fastemit_scales_what_flows_into_tokens_alone() -> None:
    """Equations 9 to 12 of arXiv 2010.11148: (1 + lambda) at every token's log-probability, 1 at every blank's."""
    logits, targets, frames, tokens = case([4], [3], 7)
    log_probabilities = logits.log_softmax(-1)
    plain = enumerated(log_probabilities[0], targets[0].tolist())
    (flow,) = torch.autograd.grad(plain, log_probabilities, retain_graph=True)
    scale = torch.full((BLANK + 1,), 1.25, dtype=torch.float64)
    scale[BLANK] = 1
    (want,) = torch.autograd.grad(log_probabilities, logits, flow * scale)
    cost = rnnt_loss(logits, targets, frames, tokens, blank=BLANK, fastemit=0.25)
    torch.testing.assert_close(cost[0], plain)
    (gradient,) = torch.autograd.grad(cost.sum(), logits)
    torch.testing.assert_close(gradient, want, atol=1e-12, rtol=0)


def test_padding_changes_nothing_and_gets_no_gradient() -> None:
    logits, targets, frames, tokens = case([2, 5], [1, 3], 1)
    other = logits.detach().clone()
    other[0, 2:], other[0, :, 2:] = 50, -50
    other.requires_grad_()
    one = rnnt_loss(logits, targets, frames, tokens, blank=BLANK)
    two = rnnt_loss(other, targets, frames, tokens, blank=BLANK)
    assert torch.equal(one, two)
    (gradient,) = torch.autograd.grad(two.sum(), other)
    assert not gradient[0, 2:].any()
    assert not gradient[0, :, 2:].any()


def test_bfloat16_logits_cost_what_their_values_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets, frames, tokens = case([5, 3, 4], [2, 2, 1], 2)
    half = logits.detach().bfloat16().requires_grad_()
    wide = half.detach().float().requires_grad_()
    monkeypatch.setattr(module, "_SLICE_ELEMENTS", 1)
    costs = rnnt_loss(half, targets, frames, tokens, blank=BLANK)
    want = rnnt_loss(wide, targets, frames, tokens, blank=BLANK)
    torch.testing.assert_close(costs, want)
    (gradient,) = torch.autograd.grad(costs.sum(), half)
    (wanted,) = torch.autograd.grad(want.sum(), wide)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.float(), wanted, atol=4e-3, rtol=0)


def test_long_rows_stay_finite() -> None:
    logits = 30 * torch.randn(1, 400, 101, 5, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    cost = rnnt_loss(logits, torch.zeros(1, 100, dtype=torch.int64), torch.tensor([400]), torch.tensor([100]), blank=4)
    (gradient,) = torch.autograd.grad(cost.sum(), logits)
    assert cost.isfinite().all()
    assert gradient.isfinite().all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    logits, targets, frames, tokens = case([2], [1], 0)
    with pytest.raises(ValueError, match="do not fit targets"):
        rnnt_loss(logits, targets[:, :0], frames, tokens, blank=BLANK)
    with pytest.raises(ValueError, match="count of frames"):
        rnnt_loss(logits, targets, frames[:0], tokens, blank=BLANK)


@pytest.mark.filterwarnings("ignore")  # torchaudio announces its own end
def test_torchaudio_says_the_same() -> None:
    """Where it is installed (the GPU set); its kernel has no FastEmit."""
    functional = pytest.importorskip("torchaudio.functional", exc_type=ImportError)
    logits, targets, frames, tokens = case([6, 4, 5], [3, 0, 2], 9)
    one, two = (logits.detach().float().requires_grad_() for _ in range(2))
    ours = rnnt_loss(one, targets, frames, tokens, blank=BLANK)
    theirs = functional.rnnt_loss(two, targets.int(), frames.int(), tokens.int(), blank=BLANK, reduction="none")
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    (gradient,), (wanted,) = torch.autograd.grad(ours.sum(), one), torch.autograd.grad(theirs.sum(), two)
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=0)
