"""What the streaming benchmark is asked, and its arguments: of `relay bench streaming`, and of a run without Relay."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

PARTS = ("encoder", "growth", "stages")
STREAMS = (1, 8, 64, 256, 512, 1024, 2048, 4096, 6000, 8000, 9000, 10_000, 12_000, 14_000, 16_000)
PEER_BATCHES = (1, 8, 64, 256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class StreamingOptions:
    """What is measured.

    Attributes:
        part: `encoder`: the encoder over more and more streams; `growth`: one stream for an hour; `stages`: stages in a
            row against stages at once.
        device: `cpu` or `cuda`.
        dtype: Type of weights and state by torch's name; None takes `bfloat16` on a GPU, `float32` elsewhere.
        layers, size, heads, inner, channels, mel_bins: Shape of the encoder; the published one of 0.6 billion weights.
        right: Look-ahead in frames of 80 ms; a chunk is one frame more.
        streams: Numbers of streams, rising; it ends where the 99th percentile passes half a chunk.
        steps: Steps that are timed for each.
        ops: `auto`, `triton` or `torch`: how the encoder computes between its matrix products.
        peer: Measure transformers' model too.
        peer_batches: Its batch sizes.
        budget_s: Nothing new is begun after so long.
        hours: Length of the call of `growth`.
        seed: Of weights and features.
    """

    part: str = "encoder"
    device: str = "cpu"
    dtype: str | None = None
    layers: int = 24
    size: int = 1024
    heads: int = 8
    inner: int = 4096
    channels: int = 256
    mel_bins: int = 128
    right: int = 1
    streams: tuple[int, ...] = STREAMS
    steps: int = 100
    ops: str = "auto"
    peer: bool = True
    peer_batches: tuple[int, ...] = PEER_BATCHES
    budget_s: float = 200.0
    hours: float = 1.0
    seed: int = 0


def positive(text: str) -> int:
    """A whole number from 1 on. Raises argparse.ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments."""
    d = StreamingOptions()
    parser.add_argument("--part", choices=PARTS, default=d.part, help=f"what is measured; default {d.part}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=d.device, help=f"default {d.device}")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: bfloat16 on a GPU")
    shape = (("layers", "N"), ("size", "N"), ("heads", "N"), ("inner", "N"), ("channels", "N"), ("mel-bins", "N"))
    for name, metavar in shape:
        default = getattr(d, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=positive, metavar=metavar, default=default, help=f"default {default}")
    parser.add_argument("--right", type=int, choices=(0, 1, 6, 13), default=d.right, help="look-ahead in 80 ms frames")
    parser.add_argument("--streams", type=positive, nargs="+", metavar="N", default=d.streams, help="how many, rising")
    parser.add_argument("--steps", type=positive, metavar="N", default=d.steps, help=f"timed; default {d.steps}")
    parser.add_argument("--ops", choices=("auto", "triton", "torch"), default=d.ops, help="between matrix products")
    parser.add_argument("--no-peer", action="store_true", help="without transformers' model")
    parser.add_argument(
        "--peer-batches", type=positive, nargs="+", metavar="N", default=d.peer_batches, help="its sizes"
    )
    parser.add_argument("--budget-s", type=float, default=d.budget_s, help=f"begin nothing after; default {d.budget_s}")
    parser.add_argument("--hours", type=float, default=d.hours, help=f"length of growth's call; default {d.hours}")
    parser.add_argument("--seed", type=int, default=d.seed, help="of weights and features; default 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw times and throughput here")


def options_of(parsed: argparse.Namespace) -> StreamingOptions:
    """The options that were parsed."""
    return StreamingOptions(
        part=parsed.part,
        device=parsed.device,
        dtype=parsed.dtype,
        layers=parsed.layers,
        size=parsed.size,
        heads=parsed.heads,
        inner=parsed.inner,
        channels=parsed.channels,
        mel_bins=parsed.mel_bins,
        right=parsed.right,
        streams=tuple(sorted(set(parsed.streams))),
        steps=parsed.steps,
        ops=parsed.ops,
        peer=not parsed.no_peer,
        peer_batches=tuple(sorted(set(parsed.peer_batches))),
        budget_s=parsed.budget_s,
        hours=parsed.hours,
        seed=parsed.seed,
    )
