"""Layers that several models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        y: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


def rotary_angles(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., head_dim] of rotary positions (Su et al. 2021, arXiv 2104.09864), float32.

    The two halves of a head are rotated against each other, as in the Qwen2 and Llama checkpoints.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[..., None].float() * theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies rotary positions to [batch, time, heads, head_dim]; cos and sin are [batch, time, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cos[:, :, None] + turned * sin[:, :, None]).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) over explicit keys and values.

    Args:
        query: [batch, time, heads, head_dim].
        key, value: [batch, span, kv_heads, head_dim]; kv_heads divides heads.
        mask: [batch, time, span] bool, true where the query may look.

    Returns:
        [batch, time, heads * head_dim].
    """
    batch, time, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, time, kv_heads, heads // kv_heads, head_dim).permute(0, 2, 3, 1, 4)
    scores = grouped @ key.permute(0, 2, 3, 1)[:, :, None] * head_dim**-0.5
    scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    mixed = scores.softmax(dim=-1) @ value.permute(0, 2, 1, 3)[:, :, None]
    return mixed.permute(0, 3, 1, 2, 4).reshape(batch, time, heads * head_dim)
