"""Growth: one stream for an hour. Neither the time of a chunk nor memory may rise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch

from relay_benchmarks import streaming_encoder as ours
from relay_benchmarks.streaming_measure import said, times_ms
from relay_benchmarks.streaming_options import StreamingOptions
from relay_benchmarks.trend import trend
from relay_models.slot_graph import Bucket


def growth(options: StreamingOptions, note: Callable[[str], None]) -> dict[str, Any]:
    """One stream of `options.hours` of audio, as fast as it goes: medians of each minute, and their slopes."""
    _, encoder = ours.prepared(options)
    bucket, variant = first_that_works(encoder, options)
    bucket.inputs["slots"].zero_()
    bucket.inputs["active"].fill_(True)
    minute_chunks = round(60_000 / ours.chunk_ms(options))
    generator = torch.Generator(options.device).manual_seed(options.seed)
    process = psutil.Process()

    def step() -> None:
        bucket.inputs["features"].normal_(generator=generator)
        bucket.run()

    # Rings fill in the first seconds, and are no growth.
    times_ms(step, options.device, steps=2 * minute_chunks // 10, warm_up=0)
    points = []
    for minute in range(max(round(60 * options.hours), 1)):
        times = times_ms(step, options.device, steps=minute_chunks, warm_up=0)
        memory = process.memory_info().rss
        device_memory = torch.cuda.memory_allocated() if options.device == "cuda" else 0
        points.append(
            {"minute": minute, "ms": float(np.median(times)), "memory_mb": round((memory + device_memory) / 1e6, 2)}
        )
        if minute % 10 == 9:
            note(f"minute {minute + 1}: {points[-1]['ms']:.2f} ms a chunk, {points[-1]['memory_mb']} MB")
    minutes = [float(point["minute"]) for point in points]
    return {
        "ops": variant.ops,
        "graph": variant.graph,
        "chunks": len(points) * minute_chunks,
        "time": trend(minutes, [point["ms"] for point in points], "ms"),
        "memory": trend(minutes, [point["memory_mb"] for point in points], "mb"),
        "points": points,
    }


def first_that_works(encoder: Any, options: StreamingOptions) -> tuple[Bucket, ours.Variant]:
    """One stream, in the first way to run it that works. Raises ValueError when none does."""
    failed = []
    for variant in ours.variants(options):
        try:
            slots = variant.slots(encoder, options.right, 1)
            return Bucket(slots.step, slots.inputs(1), graph=variant.graph), variant
        except Exception as error:
            failed.append(said(error))
    raise ValueError(f"the encoder cannot run: {failed}")
