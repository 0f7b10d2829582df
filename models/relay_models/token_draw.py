"""Draws the next token of a whole batch on the device, in static shapes, so that it can be a part of a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 8


def packed_width(vocabulary: int) -> int:
    """Bytes of a set of tokens, one bit a token, the lowest bit of a byte first."""
    return -(-vocabulary // _BITS)


def unpack_sets(packed: Tensor, vocabulary: int) -> Tensor:
    """Sets of tokens, [..., packed_width] uint8 -> [..., vocabulary] bool."""
    bits = packed[..., None] >> torch.arange(_BITS, dtype=torch.uint8, device=packed.device)
    return (bits & 1).flatten(-2)[..., :vocabulary].bool()


def draw_tokens(logits: Tensor, sampling: Tensor, sets: Tensor) -> tuple[Tensor, Tensor]:
    """Draws a token a row by nucleus sampling (Holtzman et al. 2019, arXiv 1904.09751).

    Tokens are ordered by falling logit after division by the temperature, equal ones by number; those that together
    hold the asked share are kept, and the point says which of them is taken.

    Args:
        logits: [rows, vocabulary] float32.
        sampling: [rows, 3] float64: the temperature, which is above 0; the share of probability that is drawn from, of
            which 0 leaves the likeliest token; a point from 0 to 1 (exclusive).
        sets: [rows, 2, packed_width] uint8: the tokens that may not be drawn, and those whose probability is asked for.

    Returns:
        The tokens [rows] int64; and [rows, 4] float32, which temperature, share and bans do not touch: the natural
        logarithm of the token's probability, the distribution's entropy in nats, the probability of the likeliest token
        less that of the second, and the probability of all watched tokens.
    """
    temperature, top_p, point = sampling.split(1, dim=1)
    banned, watched = unpack_sets(sets, logits.shape[1]).unbind(1)
    logprobs = logits.log_softmax(dim=1)
    probabilities = logprobs.exp()
    token = _nucleus_token(logits.masked_fill(banned, -torch.inf), temperature.float(), top_p, point)
    likeliest = probabilities.topk(2, dim=1).values
    figures = (
        logprobs.gather(1, token)[:, 0],
        -(probabilities * logprobs).sum(1),
        likeliest[:, 0] - likeliest[:, 1],
        (probabilities * watched).sum(1).clamp(max=1),
    )
    return token[:, 0], torch.stack(figures, dim=1)


def _nucleus_token(logits: Tensor, temperature: Tensor, top_p: Tensor, point: Tensor) -> Tensor:
    """[rows, vocabulary] logits, -inf where banned, and [rows, 1] each -> [rows, 1] int64."""
    scaled = (logits - logits.amax(1, keepdim=True)) / temperature
    ordered, order = scaled.sort(dim=1, descending=True, stable=True)
    weights = ordered.double().exp()
    cumulated = (weights / weights.sum(1, keepdim=True)).cumsum(1)
    # Rounding can leave the whole just below the share; a row of no numbers must not index past its end either.
    last = torch.searchsorted(cumulated, top_p.contiguous()).clamp(max=logits.shape[1] - 1)
    place = torch.searchsorted(cumulated, point * cumulated.gather(1, last), right=True)
    return order.gather(1, place.minimum(last))
