"""The encoder's side of the streaming benchmark: is it right, how does it run best, how many streams does it hold."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from relay_benchmarks.streaming_measure import free_memory, memory_gb, percentiles, said, times_ms
from relay_benchmarks.streaming_options import StreamingOptions
from relay_models.encoder import Encoder, EncoderConfig
from relay_models.framing import FRAME_MS
from relay_models.slot_graph import Bucket
from relay_models.slot_ops import Ops
from relay_models.slots import SlotEncoder
from relay_models.state import StreamState
from relay_models.streaming import EncoderStream

CHECK_ROWS = 4
CHECK_ERROR = {torch.float32: 1e-4}  # relative; what half precision may differ by is in _HALF
_HALF = 0.1
WARM_UP_STEPS = 5
TUNE_STEPS = 12
TUNE_STREAMS = 2048
PROFILED_STEPS = 3

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the encoder; see `SlotEncoder`, `TritonOps` and `Bucket`."""

    ops: str
    graph: bool
    micro_rows: int = 1024
    lanes: int = 1
    keys: int = 32
    warps: int = 4
    stages: int = 2

    def make_ops(self) -> Ops | None:
        """Raises ImportError without Triton."""
        if self.ops != "triton":
            return None
        from relay_models.slot_kernels import TritonOps

        return TritonOps(keys=self.keys, warps=self.warps, stages=self.stages)

    def slots(self, encoder: Encoder, right: int, streams: int) -> SlotEncoder:
        """The encoder with so many slots, all fresh."""
        return SlotEncoder(encoder, right, streams, ops=self.make_ops(), micro_rows=self.micro_rows, lanes=self.lanes)


def random_encoder(options: StreamingOptions) -> Encoder:
    """An encoder of the shape asked for, with random weights, on its device and in its type, in evaluation mode."""
    torch.manual_seed(options.seed)
    config = EncoderConfig(
        mel_bins=options.mel_bins,
        channels=options.channels,
        size=options.size,
        layers=options.layers,
        heads=options.heads,
        inner=options.inner,
        left=70,
        rights=(options.right,),
        attention_bias=False,
        convolution_bias=False,
        dropout=0.0,
    )
    with torch.device(options.device):
        encoder = Encoder(config).eval().requires_grad_(False)
        for block in encoder.layers():
            for bias in (block.attention.content_bias, block.attention.distance_bias):
                nn.init.normal_(bias, std=0.1)
    return encoder


def variants(options: StreamingOptions) -> list[Variant]:
    """What can be tried at first, the best hope before the others."""
    graph = options.device == "cuda"
    names = ("triton", "torch") if options.ops == "auto" else (options.ops,)
    if options.device == "cpu" and options.ops == "auto":
        names = ("torch",)
    found = [Variant(name, graph) for name in names]
    return [*found, replace(found[-1], graph=False)] if graph else found


@torch.no_grad()
def check(exact: Encoder, encoder: Encoder, variant: Variant, options: StreamingOptions) -> dict[str, Any]:
    """Whether a variant gives the frames of `EncoderStream` in float32: its relative error, and if that will do.

    Given the float32 encoder twice it is held to float32's accuracy, which no mistake in a kernel passes.

    Streams begin at different times, one waits, rings wrap around, and a neighbour is not a number.
    """
    device, right = options.device, options.right
    stream = EncoderStream(exact, right)
    state = StreamState(stream.fresh_tensors(CHECK_ROWS))
    slots = variant.slots(encoder, right, CHECK_ROWS + 1)
    bucket = Bucket(slots.step, slots.inputs(CHECK_ROWS + 2), graph=variant.graph)
    generator = torch.Generator().manual_seed(options.seed)
    inputs = bucket.inputs
    inputs["slots"][: CHECK_ROWS + 1] = torch.arange(CHECK_ROWS + 1, device=device)
    inputs["features"][CHECK_ROWS] = float("nan")
    inputs["active"][CHECK_ROWS] = True
    wrong, size = 0.0, 0.0
    for number in range(slots.span // slots.chunk_frames + 4):
        features = torch.randn(CHECK_ROWS, slots.chunk_mels, options.mel_bins, generator=generator).to(device)
        begun = torch.tensor([number >= row for row in range(CHECK_ROWS)], device=device)
        active = begun & torch.tensor([row != 1 or number % 5 != 4 for row in range(CHECK_ROWS)], device=device)
        inputs["features"][:CHECK_ROWS] = features
        inputs["active"][:CHECK_ROWS] = active
        inputs["fresh"][:CHECK_ROWS] = torch.tensor([number <= row for row in range(CHECK_ROWS)], device=device)
        bucket.run()
        wanted, valid, _ = stream.step(features, state, active)
        frames = bucket.outputs[0][:CHECK_ROWS]
        wrong += float((frames[valid].double() - wanted[valid].double()).square().sum())
        size += float(wanted[valid].double().square().sum())
    error = (wrong / size) ** 0.5
    dtype = bucket.outputs[0].dtype
    right_enough = error <= CHECK_ERROR.get(dtype, _HALF)
    return {**asdict(variant), "dtype": str(dtype), "relative_error": error, "right": right_enough}


def right_variant(exact: Encoder, encoder: Encoder, options: StreamingOptions, note: Note) -> tuple[Variant, list[Any]]:
    """The first variant that gives the right frames, and all that was checked. Raises ValueError when none does."""
    checks: list[dict[str, Any]] = []
    for candidate in variants(options):
        # In float32 without a graph, then in the type and the way that are measured.
        tries = [(exact, replace(candidate, graph=False))] if encoder is not exact else []
        passed = True
        for model, variant in [*tries, (encoder, candidate)]:
            try:
                checked = check(exact, model, variant, options)
            except Exception as error:
                checked = {**asdict(variant), "error": said(error), "right": False}
            checks.append(checked)
            result = checked.get("error") or f"relative error {checked['relative_error']:.1e}"
            note(f"check {variant.ops}, {'graph' if variant.graph else 'eager'}: {result}")
            passed = passed and checked["right"]
        if passed:
            return candidate, checks
    raise ValueError(f"no way to run the encoder gave the right frames: {checks}")


class Load:
    """So many streams in the middle of their calls, all of them stepped at once.

    Raises:
        torch.OutOfMemoryError: They do not fit.
    """

    def __init__(self, encoder: Encoder, variant: Variant, streams: int, options: StreamingOptions) -> None:
        slots = variant.slots(encoder, options.right, streams)
        generator = torch.Generator(options.device).manual_seed(options.seed)
        for name, tensor in slots.state.tensors.items():
            if name != "position":
                tensor.normal_(generator=generator)
        # Rings are full, and every stream stands somewhere else.
        chunks = torch.randint(100, 1000, (streams,), generator=generator, device=options.device)
        slots.state["position"][:streams] = chunks * slots.chunk_frames
        self._bucket = Bucket(slots.step, slots.inputs(streams), graph=variant.graph)
        inputs = self._bucket.inputs
        inputs["slots"].copy_(torch.randperm(streams, generator=generator, device=options.device))
        inputs["features"].normal_(generator=generator)
        inputs["active"].fill_(True)

    def step(self) -> None:
        """One chunk of each."""
        self._bucket.run()

    def frames(self) -> Tensor:
        """What the last step gave."""
        return self._bucket.outputs[0]


def measure(
    encoder: Encoder, variant: Variant, streams: int, options: StreamingOptions, *, steps: int
) -> dict[str, Any]:
    """Times of a step of so many streams. Raises what `Load` raises; RuntimeError when frames are not finite."""
    memory_gb(options.device)
    load = None
    try:
        load = Load(encoder, variant, streams, options)
        times = times_ms(load.step, options.device, steps=steps, warm_up=WARM_UP_STEPS)
        if not bool(load.frames().isfinite().all()):
            raise RuntimeError("the encoder's frames are not finite")
        return {"streams": streams, **percentiles(times), "steps": steps, "memory_gb": memory_gb(options.device)}
    finally:
        del load
        gc.collect()
        free_memory(options.device)


def tune(encoder: Encoder, variant: Variant, options: StreamingOptions, note: Note) -> tuple[Variant, list[Any]]:
    """The fastest of a variant's settings at a load that fills the device, and what each one took."""
    streams = min(TUNE_STREAMS, max(options.streams))
    best, best_ms, tried = variant, float("inf"), []
    for changes in _settings(variant):
        candidate = replace(best, **changes)
        try:
            result = measure(encoder, candidate, streams, options, steps=TUNE_STEPS)
        except Exception as error:
            tried.append({**asdict(candidate), "error": said(error)})
            note(f"  {changes}: {said(error)}")
            continue
        tried.append({**asdict(candidate), **result})
        note(f"  {changes or 'as it is'}: {result['p50_ms']:.2f} ms for {streams} streams")
        if result["p50_ms"] < best_ms:
            best, best_ms = candidate, result["p50_ms"]
    return best, tried


def kernels(encoder: Encoder, variant: Variant, options: StreamingOptions) -> list[dict[str, Any]]:
    """Where the time of a step goes on a GPU: kernels, their calls in a step and their time, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    load = Load(encoder, variant, min(TUNE_STREAMS, max(options.streams)), options)
    times_ms(load.step, options.device, steps=1, warm_up=2)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        times_ms(load.step, options.device, steps=PROFILED_STEPS, warm_up=0)
    found = [
        {
            "kernel": event.key[:80],
            "calls": event.count // PROFILED_STEPS,
            "ms": round(event.self_device_time_total / PROFILED_STEPS / 1000, 4),
        }
        for event in profiler.key_averages()
    ]
    return sorted(found, key=lambda kernel: -kernel["ms"])[:20]


def _settings(variant: Variant) -> Iterator[dict[str, Any]]:
    """Changes to try one after the other, each on top of the best so far."""
    yield {}
    if variant.ops == "triton":
        for keys, warps, stages in ((32, 4, 3), (16, 4, 3), (32, 2, 2), (64, 4, 2), (128, 4, 1)):
            yield {"keys": keys, "warps": warps, "stages": stages}
    for micro_rows in (512, 2048):
        yield {"micro_rows": micro_rows}
    if variant.graph:
        for micro_rows in (512, 1024):
            yield {"lanes": 2, "micro_rows": micro_rows}


def work(encoder: Encoder, options: StreamingOptions) -> dict[str, int]:
    """What a step must do at least: operations and bytes a stream, and bytes of weights however many streams.

    Counted are matrix products, convolutions and attention; keys and values read once, all that is new written once.
    """
    config, frames = encoder.config, options.right + 1
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    item = next(encoder.parameters()).element_size()
    span = config.reaches(options.right)[0].left + frames
    linears = sum(m.weight.numel() for block in encoder.layers() for m in block.modules() if isinstance(m, nn.Linear))
    # The table of distances is projected once, not in every step.
    linears -= config.layers * config.size**2
    attention = config.layers * config.size * (2 * span + span + frames - 1)
    depthwise = config.layers * config.size * config.kernel
    bins = encoder.subsampling.bins
    channels = config.channels
    subsampling = 4 * bins[1] * channels * 9 + (2 * bins[2] + bins[3]) * channels * (9 + channels)
    subsampling += encoder.subsampling.linear.weight.numel()
    ring = config.layers * config.size * (2 * span + 2 * frames + (config.kernel - 1) + frames)
    return {
        "flop_per_stream": 2 * frames * (linears + attention + depthwise + subsampling),
        "bytes_per_stream": item * (ring + frames * config.size) + 4 * 8 * frames * config.mel_bins,
        "bytes_of_weights": item * weights,
        "weights": weights,
    }


def with_shares(
    result: dict[str, Any], work: dict[str, int], ceilings: dict[str, float], options: StreamingOptions
) -> dict[str, Any]:
    """A measurement with its shares of the ceilings, and of the floor: the larger of the two times they allow."""
    streams, seconds = result["streams"], result["p50_ms"] / 1000
    moved = streams * work["bytes_per_stream"] + work["bytes_of_weights"]
    done = streams * work["flop_per_stream"]
    memory_s, compute_s = moved / ceilings["copy_bytes_per_s"], done / ceilings["matmul_flop_per_s"]
    return {
        **result,
        "memory_share": round(memory_s / seconds, 3),
        "compute_share": round(compute_s / seconds, 3),
        "floor_ms": round(1000 * max(memory_s, compute_s), 4),
        "floor_in_turn_ms": round(1000 * (memory_s + compute_s), 4),
        "streams_in_real_time": round(streams * chunk_ms(options) / result["p50_ms"]),
    }


def chunk_ms(options: StreamingOptions) -> int:
    """Length of a chunk."""
    return FRAME_MS * (options.right + 1)


def prepared(options: StreamingOptions) -> tuple[Encoder, Encoder]:
    """The encoder in float32, and in the type that is measured."""
    torch.backends.cudnn.allow_tf32 = False  # convolutions that others are held to must be exact
    exact = random_encoder(options)
    name = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    dtype: torch.dtype = getattr(torch, name)
    return exact, exact if dtype == torch.float32 else copy.deepcopy(exact).to(dtype)
