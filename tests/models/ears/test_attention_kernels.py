"""On a GPU only: attention by fused kernels learns what plain attention learns, or training must not use them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from relay_models.conformer import Attention, distance_embeddings
from relay_models.encoder import EncoderConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def gradients(attention: Attention, frames: int, right: int, *, half: bool, plain: bool) -> dict[str, torch.Tensor]:
    """Of a random loss: the output, and what every weight is told."""
    device, size = torch.device("cuda"), 256
    generator = torch.Generator(device).manual_seed(frames)
    x, weight = torch.randn(2, 48, frames, size, device=device, generator=generator)
    numbers = torch.arange(frames, device=device)
    visible = EncoderConfig().reaches(right)[0].visible(numbers[:, None], numbers)[None, None].expand(48, 1, -1, -1)
    embeddings = distance_embeddings(1 - frames, frames - 1, size, device)
    attention.zero_grad()
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext(), torch.autocast("cuda", torch.bfloat16, enabled=half):
        y = attention(x, visible, embeddings.bfloat16() if half else embeddings)
    (y.float() * weight).sum().backward()
    found = {name: p.grad.clone() for name, p in attention.named_parameters() if p.grad is not None}
    return found | {"output": y.detach().float()}


@pytest.mark.parametrize("right", [0, 1, 6, 13])
@pytest.mark.parametrize("frames", [30, 45, 60, 80, 110, 160, 210])
def test_fused_attention_learns_the_same(frames: int, right: int) -> None:
    torch.manual_seed(0)
    attention = Attention(EncoderConfig(size=256, heads=4, inner=768, dropout=0.0).block).cuda()
    for bias in (attention.content_bias, attention.distance_bias):
        torch.nn.init.normal_(bias, std=0.05)
    exact = gradients(attention, frames, right, half=False, plain=True)
    plain = gradients(attention, frames, right, half=True, plain=True)
    fused = gradients(attention, frames, right, half=True, plain=False)
    for name, expected in exact.items():
        of_plain, of_fused = ((got[name] - expected).norm() / expected.norm().clamp(min=1e-6) for got in (plain, fused))
        # A bias of keys moves no weight of attention: its gradient is rounding and nothing else.
        assert of_fused <= 2 * of_plain + 0.01 or name == "k_proj.bias", (name, of_plain.item(), of_fused.item())
