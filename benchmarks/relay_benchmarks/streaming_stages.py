"""Stages in a row against stages at once: front end, encoder and decoding of the same chunks, and the ratio.

In a row, a chunk passes all stages before the next one begins. At once, each stage has a thread (and on a GPU a CUDA
stream) of its own and works on another chunk; two buffers lie between neighbours, so that a fast one waits for a slow.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from relay_benchmarks import streaming_encoder as ours
from relay_benchmarks.streaming_growth import first_that_works
from relay_benchmarks.streaming_measure import wait
from relay_benchmarks.streaming_options import StreamingOptions
from relay_models.features import FeatureConfig, LogMel
from relay_models.framing import HOP_SAMPLES
from relay_models.slot_graph import Bucket
from relay_models.state import StreamState

STREAMS = 512
VOCABULARY = 1025
_BUFFERS = 2

Stage = Callable[[int], None]


def stages(options: StreamingOptions, note: Callable[[str], None]) -> dict[str, Any]:
    """Times a chunk of many streams through the three stages, in both ways."""
    streams = min(STREAMS, max(options.streams))
    _, encoder = ours.prepared(options)
    _, variant = first_that_works(encoder, options)
    slots = variant.slots(encoder, options.right, streams)
    bucket = Bucket(slots.step, slots.inputs(streams), graph=variant.graph)
    bucket.inputs["slots"].copy_(torch.arange(streams))
    bucket.inputs["active"].fill_(True)
    work = _work(bucket, encoder, options)
    alone = {}
    for name, stage in zip(("front_end_ms", "encoder_ms", "decoding_ms"), work, strict=True):
        alone[name] = round(_sequential([stage], options), 3)
    sequential_ms, pipelined_ms = _sequential(work, options), _pipelined(work, options)
    note(f"{streams} streams: {sequential_ms:.2f} ms a chunk in a row, {pipelined_ms:.2f} ms at once")
    return {
        "streams": streams,
        "ops": variant.ops,
        **alone,
        "sequential_ms": round(sequential_ms, 3),
        "pipelined_ms": round(pipelined_ms, 3),
        "ratio": round(sequential_ms / pipelined_ms, 3),
        "longest_stage_share": round(max(alone.values()) / pipelined_ms, 3),
    }


def _work(bucket: Bucket, encoder: Any, options: StreamingOptions) -> list[Stage]:
    """The stages: each takes the number of the buffer that it reads and writes."""
    device, streams = options.device, bucket.rows
    on_gpu = device == "cuda"
    config = encoder.config
    front_end = LogMel(FeatureConfig(mel_bins=config.mel_bins)).to(device)
    state = StreamState(front_end.fresh_tensors(streams))
    heard, made = bucket.inputs["features"], bucket.outputs[0]
    samples = heard.shape[1] * HOP_SAMPLES
    generator = np.random.default_rng(options.seed)
    pcm = torch.from_numpy(generator.integers(-3000, 3000, (streams, samples), dtype=np.int16))
    pcm = pcm.pin_memory() if on_gpu else pcm
    every = torch.ones(streams, dtype=torch.bool, device=device)
    features = [torch.zeros_like(heard) for _ in range(_BUFFERS)]
    frames = [torch.zeros_like(made) for _ in range(_BUFFERS)]
    head = nn.Linear(config.size, VOCABULARY).to(device=device, dtype=made.dtype).requires_grad_(False)
    shape = made.shape[:2]
    tokens = [torch.zeros(shape, dtype=torch.int64, pin_memory=on_gpu) for _ in range(_BUFFERS)]
    said: list[list[int]] = [[] for _ in range(streams)]

    def hear(buffer: int) -> None:
        new, _ = front_end.step(pcm.to(device, non_blocking=True).float() / 32768, state, every)
        features[buffer].copy_(new)

    def encode(buffer: int) -> None:
        heard.copy_(features[buffer])
        bucket.run()
        frames[buffer].copy_(bucket.outputs[0])

    def decode(buffer: int) -> None:
        tokens[buffer].copy_(head(frames[buffer]).argmax(-1), non_blocking=True)
        _finish(device)
        for text, new in zip(said, tokens[buffer].tolist(), strict=True):
            text[:] = [*text[-64:], *new]

    return [hear, encode, decode]


def _finish(device: str) -> None:
    """Until this thread's stream is done."""
    if device == "cuda":
        torch.cuda.current_stream().synchronize()


def _sequential(work: Sequence[Stage], options: StreamingOptions) -> float:
    """ms a chunk."""

    def chunk(number: int) -> None:
        for stage in work:
            stage(number % _BUFFERS)
            _finish(options.device)

    for number in range(3):
        chunk(number)
    wait(options.device)
    begin = time.perf_counter()
    for number in range(options.steps):
        chunk(number)
    return 1000 * (time.perf_counter() - begin) / options.steps


def _pipelined(work: Sequence[Stage], options: StreamingOptions) -> float:
    """ms a chunk. Raises what a stage raises."""
    wait(options.device)
    full: list[queue.Queue[int]] = [queue.Queue() for _ in range(len(work))]
    free: list[queue.Queue[int]] = [queue.Queue() for _ in range(len(work))]
    errors: list[BaseException] = []
    for waiting in free[:-1]:
        for buffer in range(_BUFFERS):
            waiting.put(buffer)

    def worker(index: int) -> None:
        own = torch.cuda.stream(torch.cuda.Stream()) if options.device == "cuda" else contextlib.nullcontext()
        with own:
            for number in range(options.steps):
                if index:
                    full[index - 1].get()
                if index + 1 < len(work):
                    free[index].get()
                if not errors:
                    try:
                        work[index](number % _BUFFERS)
                        _finish(options.device)
                    except BaseException as error:
                        errors.append(error)
                if index:
                    free[index - 1].put(0)
                full[index].put(0)

    begin = time.perf_counter()
    threads = [threading.Thread(target=worker, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return 1000 * (time.perf_counter() - begin) / options.steps
