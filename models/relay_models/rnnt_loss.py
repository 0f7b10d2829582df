"""The transducer loss (Graves 2012, arXiv 1211.3711) with FastEmit (Yu et al. 2021, arXiv 2010.11148), in plain torch.

The lattice has a node (t, u) for "u tokens said before frame t": blank leads to (t + 1, u), the next token to (t, u +
1), and a path ends in (T, U). Nodes of one anti-diagonal t + u depend on the diagonal before alone, so that the
recursion runs over diagonals, all rows of a batch at once; the backward variables are the forward ones of the lattice
turned by 180 degrees and run in the same pass. The gradient is written out: it needs the logits and one softmax, no
recorded recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_IMPOSSIBLE = -1e30
"""Logarithm of zero that can be added to itself without becoming not a number."""
_SLICE_ELEMENTS = 1 << 28
"""Logits turned to float32 at a time; bounds the extra memory of a bfloat16 batch."""


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    frame_counts: Tensor,
    target_counts: Tensor,
    *,
    blank: int,
    fastemit: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of each row's targets, summed over all alignments.

    Args:
        logits: [batch, frames, tokens + 1, vocabulary], not normalised; computed in float32 (in float64 if they are).
        targets: [batch, tokens] int64, padded by anything valid.
        frame_counts: [batch] int64, frames of each row, at least 1.
        target_counts: [batch] int64, tokens of each row.
        blank: Its index in the vocabulary.
        fastemit: The lambda of FastEmit: the gradient of every token's log-probability is taken 1 + lambda times,
            that of blank once (equations 9 to 12). The value of the loss does not show it.

    Returns:
        [batch]. Differentiable in the logits, once.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    batch, frames, positions = logits.shape[:3]
    if targets.shape != (batch, positions - 1):
        raise ValueError(f"logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}")
    if frame_counts.shape != (batch,) or target_counts.shape != (batch,) or frames == 0:
        raise ValueError("each row needs a count of frames and a count of targets, and one frame at least")
    costs: Tensor = _RNNTLoss.apply(  # type: ignore[no-untyped-call]
        logits, targets, frame_counts, target_counts, blank, fastemit
    )
    return costs


class _RNNTLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        frame_counts: Tensor,
        target_counts: Tensor,
        blank: int,
        fastemit: float,
    ) -> Tensor:
        """Costs; the gradients in the log-probabilities come along and wait for `backward`."""
        labels = torch.nn.functional.pad(targets, (0, 1))[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
        sums = torch.cat([_wide(part).logsumexp(-1) for part in _slices(logits)])
        blanks = logits[..., blank].to(sums.dtype) - sums
        tokens = logits.gather(3, labels)[..., 0].to(sums.dtype) - sums
        costs, blank_gradient, token_gradient = _lattice(blanks, tokens, frame_counts, target_counts)
        ctx.save_for_backward(logits, labels, sums, blank_gradient, token_gradient * (1 + fastemit))
        ctx.blank = blank
        return costs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Through the log-softmax: minus the softmax times all that flows in, plus what flows into each entry."""
        logits, labels, sums, blank_gradient, token_gradient = ctx.saved_tensors
        outer = gradients[0][:, None, None]
        into_blank, into_token = blank_gradient * outer, token_gradient * outer
        into_all = into_blank + into_token
        result = torch.empty_like(logits)
        start = 0
        for part in _slices(logits):
            rows = slice(start, start + len(part))
            softmax = (_wide(part) - sums[rows, ..., None]).exp_()
            flow = softmax.mul_(-into_all[rows, ..., None])
            flow[..., ctx.blank] += into_blank[rows]
            flow.scatter_add_(3, labels[rows], into_token[rows, ..., None])
            result[rows] = flow
            start += len(part)
        return result, None, None, None, None, None


def _slices(logits: Tensor) -> Sequence[Tensor]:
    """Rows, as many at a time as may be widened to float32."""
    return torch.split(logits, max(1, _SLICE_ELEMENTS // max(1, logits[0].numel())))


def _wide(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _lattice(
    blanks: Tensor, tokens: Tensor, frame_counts: Tensor, target_counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Costs [batch] and their gradients in the log-probabilities `blanks` and `tokens` [batch, frames, tokens + 1]."""
    batch, frames, width = blanks.shape
    last = (frame_counts + target_counts)[:, None, None]  # the diagonal on which a row's paths end
    diagonals = frames + width - 1
    t = torch.arange(frames, device=blanks.device)[None, :, None]
    u = torch.arange(width, device=blanks.device)[None, None]
    frame_counts, target_counts = frame_counts[:, None, None], target_counts[:, None, None]
    inside = (t < frame_counts) & (u <= target_counts)
    # The last blank may only be said when all tokens are.
    blanks = blanks.where(inside & ((t < frame_counts - 1) | (u == target_counts)), _IMPOSSIBLE)
    tokens = tokens.where(inside & (u < target_counts), _IMPOSSIBLE)

    d = torch.arange(diagonals, device=blanks.device)[None, :, None]
    skewed_blanks, skewed_tokens = (_pick(x, d - u, u.expand(batch, diagonals, -1)) for x in (blanks, tokens))
    turned_blanks = _pick(skewed_blanks, last - 1 - d, target_counts - u)
    turned_tokens = _pick(skewed_tokens, last - 1 - d, target_counts - 1 - u)
    nodes = _forward(torch.cat((skewed_blanks, turned_blanks)), torch.cat((skewed_tokens, turned_tokens)))
    before, turned = nodes.chunk(2)

    # What is still to come from the next diagonal on: of the same u after a blank, of the next one after a token.
    ahead_of_blank = _pick(turned, last - 1 - d, target_counts - u)
    ahead_of_token = _pick(turned, last - 1 - d, target_counts - 1 - u)
    total = _pick(before, last, target_counts)
    blank_share = (before[:, :-1] + skewed_blanks + ahead_of_blank - total).exp()
    token_share = (before[:, :-1] + skewed_tokens + ahead_of_token - total).exp()
    numbers = u.expand(batch, frames, -1)
    return (
        -total[:, 0, 0],
        -_pick(blank_share, t + u, numbers, missing=0.0),
        -_pick(token_share, t + u, numbers, missing=0.0),
    )


def _forward(blanks: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of reaching each node, from skewed steps: [batch, diagonals, width], one diagonal more out."""
    batch, diagonals, width = blanks.shape
    # Diagonal first, so that each step reads and writes whole blocks; a column more, from which nothing comes.
    nodes = blanks.new_full((diagonals + 1, batch, width + 1), _IMPOSSIBLE)
    nodes[0, :, 1] = 0
    by_blank = blanks.transpose(0, 1).contiguous()
    by_token = torch.nn.functional.pad(tokens[..., :-1], (1, 0), value=_IMPOSSIBLE).transpose(0, 1).contiguous()
    for step in range(diagonals):
        here = nodes[step]
        torch.logaddexp(here[:, 1:] + by_blank[step], here[:, :-1] + by_token[step], out=nodes[step + 1, :, 1:])
    return nodes[..., 1:].transpose(0, 1)


def _pick(x: Tensor, rows: Tensor, columns: Tensor, missing: float = _IMPOSSIBLE) -> Tensor:
    """x [batch, height, width] read at (rows, columns), both broadcast to [batch, ...]; `missing` outside of x."""
    batch, height, width = x.shape
    shape = torch.broadcast_shapes(rows.shape, columns.shape, (batch, 1, 1))
    rows, columns = rows.expand(shape), columns.expand(shape)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = (rows * width + columns).where(inside, 0)
    return x.flatten(1).gather(1, index.flatten(1)).reshape(index.shape).where(inside, missing)
