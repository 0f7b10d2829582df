"""The peer's side of the streaming benchmark: transformers' encoder of the same shape, streaming with its own cache."""

from __future__ import annotations

import gc
from typing import Any

import torch

from relay_benchmarks.streaming_measure import free_memory, memory_gb, percentiles, times_ms
from relay_benchmarks.streaming_options import StreamingOptions
from relay_models.framing import SUBSAMPLING

LEFT = 70


def peer_encoder(options: StreamingOptions, dtype: torch.dtype) -> Any:
    """Their encoder with random weights. Raises ImportError without a transformers that has it."""
    from transformers import NemotronAsrStreamingEncoder, NemotronAsrStreamingEncoderConfig

    torch.manual_seed(options.seed)
    config = NemotronAsrStreamingEncoderConfig(
        hidden_size=options.size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=options.inner,
        num_mel_bins=options.mel_bins,
        subsampling_conv_channels=options.channels,
        sliding_window=LEFT + 1,
        default_num_lookahead_tokens=options.right,
        attention_bias=False,
        convolution_bias=False,
        scale_input=False,
    )
    with torch.device(options.device):
        encoder: Any = NemotronAsrStreamingEncoder(config)
    return encoder.to(device=options.device, dtype=dtype).eval().requires_grad_(False)


def measure_peer(
    encoder: Any, batch: int, options: StreamingOptions, dtype: torch.dtype, *, steps: int
) -> dict[str, Any]:
    """Times of a step of so many streams, with full caches. Raises what it raises, torch.OutOfMemoryError for one."""
    memory_gb(options.device)
    frames = options.right + 1
    shape = (batch, SUBSAMPLING * frames, options.mel_bins)
    features = torch.randn(shape, device=options.device, dtype=dtype)
    first = features[:, : SUBSAMPLING * options.right + 1]
    caches: dict[str, Any] = {"past_key_values": None, "padding_cache": None}
    piece = first

    def step() -> None:
        output = encoder(piece, use_cache=True, num_lookahead_tokens=options.right, **caches)
        caches.update(past_key_values=output.past_key_values, padding_cache=output.padding_cache)

    try:
        with torch.inference_mode():
            step()
            piece = features
            times = times_ms(step, options.device, steps=steps, warm_up=-(-LEFT // frames) + 3)
        return {"streams": batch, **percentiles(times), "steps": steps, "memory_gb": memory_gb(options.device)}
    finally:
        caches.clear()
        gc.collect()
        free_memory(options.device)
