"""The streaming benchmark: how many streams one device carries in time.

`relay bench streaming` calls `run`. On a machine that has torch and not the rest of Relay, it is
`python -m relay_benchmarks.streaming` with the same arguments, `models/` and `benchmarks/` in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from relay_benchmarks.streaming_options import StreamingOptions, add_arguments, options_of

Report = dict[str, Any]
Note = Callable[[str], None]
REFINEMENTS = 3
PEER_STEPS = 100


def run(options: StreamingOptions, note: Note, save: Callable[[Report], None]) -> Report:
    """Measures the part that is asked for.

    Args:
        options: What.
        note: Shown while it runs.
        save: Called with the report as it grows, so that an end before time leaves what was measured.

    Returns:
        The report.

    Raises:
        ValueError: There is no such device, or the shape fits no encoder.
    """
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device here; use --device cpu")
    from relay_benchmarks import streaming_growth, streaming_measure, streaming_stages

    report: Report = {"machine": streaming_measure.machine(options.device), "config": _config(options)}
    if options.part == "encoder":
        _encoder(options, report, note, save)
    elif options.part == "growth":
        report["growth"] = streaming_growth.growth(options, note)
    else:
        report["stages"] = streaming_stages.stages(options, note)
    save(report)
    return report


def _config(options: StreamingOptions) -> dict[str, Any]:
    return asdict(options)


def _encoder(options: StreamingOptions, report: Report, note: Note, save: Callable[[Report], None]) -> None:
    """Benchmark (a): fills the report in."""
    import torch

    from relay_benchmarks import streaming_encoder as ours
    from relay_benchmarks import streaming_measure as measuring
    from relay_benchmarks.streaming_measure import said

    begin = time.monotonic()

    def late(share: float = 1.0) -> bool:
        return time.monotonic() - begin > share * options.budget_s

    exact, encoder = ours.prepared(options)
    dtype = next(encoder.parameters()).dtype
    report["config"]["dtype"] = str(dtype).removeprefix("torch.")
    report["chunk_ms"] = ours.chunk_ms(options)
    report["work"] = work = ours.work(encoder, options)
    report["ceilings"] = ceilings = measuring.ceilings(options.device, dtype)
    note(
        f"{work['weights'] / 1e6:.0f} M weights; a copy moves {ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s, "
        f"a matrix product does {ceilings['matmul_flop_per_s'] / 1e12:.1f} TFLOP/s"
    )
    save(report)

    if options.peer:
        report["peer"] = _peer(options, dtype, note, lambda: late(0.4))
        save(report)

    report["tuning"] = []
    report["results"] = results = []
    variant, report["checks"] = ours.right_variant(exact, encoder, options, note)
    if exact is not encoder:
        del exact
        measuring.free_memory(options.device)

    if options.device == "cuda":
        note(f"tuning {variant.ops}, {'graph' if variant.graph else 'eager'}:")
        variant, report["tuning"] = ours.tune(encoder, variant, options, note)
        try:
            report["kernels"] = ours.kernels(encoder, variant, options)
        except Exception as error:  # some machines let nobody profile
            report["kernels"] = said(error)
        measuring.free_memory(options.device)
        save(report)
    report["variant"] = asdict(variant)

    def measure(streams: int) -> dict[str, Any] | None:
        try:
            result = ours.measure(encoder, variant, streams, options, steps=options.steps)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            report.setdefault("ended", f"{streams} streams: {said(error)}")
            note(report["ended"])
            return None
        result = ours.with_shares(result, work, ceilings, options)
        results.append(result)
        results.sort(key=lambda r: r["streams"])
        note(f"{streams:6d} streams: {result['p50_ms']:8.2f} ms, P99 {result['p99_ms']:8.2f} ms")
        save(report)
        return result

    budget_ms = report["chunk_ms"] / 2
    good, bad = 0, None
    for streams in options.streams:
        if late():
            report.setdefault("ended", f"time was up before {streams} streams")
            break
        result = measure(streams)
        if result is None or result["p99_ms"] > budget_ms:
            bad = streams
            break
        good = streams
    for _ in range(REFINEMENTS):
        middle = (good + (bad or 0)) // 2 // 64 * 64
        if bad is None or not good < middle < bad or late():
            break
        result = measure(middle)
        good, bad = (good, middle) if result is None or result["p99_ms"] > budget_ms else (middle, bad)
    report["summary"] = summary(report)


def _peer(options: StreamingOptions, dtype: Any, note: Note, late: Callable[[], bool]) -> dict[str, Any]:
    """What transformers' model does, or why it could not be measured."""
    from relay_benchmarks import streaming_measure as measuring
    from relay_benchmarks import streaming_peer

    found: dict[str, Any] = {"results": []}
    try:
        import transformers

        found["transformers"] = transformers.__version__
        encoder = streaming_peer.peer_encoder(options, dtype)
        for batch in options.peer_batches:
            if late():
                found["ended"] = f"time was up before {batch} streams"
                break
            steps = min(options.steps, PEER_STEPS)
            result = streaming_peer.measure_peer(encoder, batch, options, dtype, steps=steps)
            found["results"].append(result)
            note(f"transformers, {batch:5d} streams: {result['p50_ms']:8.2f} ms, P99 {result['p99_ms']:8.2f} ms")
    except Exception as error:
        found["ended"] = measuring.said(error)
        note(f"transformers: {found['ended']}")
    return found


def summary(report: Report) -> dict[str, Any]:
    """The figures that are asked for: the two side by side.

    A batch that takes t ms leaves room for chunk / 2 / t batches one after the other within half a chunk, so that a
    model serves the most streams at the batch size at which that many batches of it are most; ours are counted alike.
    """
    chunk = report["chunk_ms"]
    ours: list[dict[str, Any]] = report["results"]
    theirs: list[dict[str, Any]] = report.get("peer", {}).get("results", [])

    def streams_in_time(results: list[dict[str, Any]]) -> int:
        return max((r["streams"] * int(chunk / 2 / r["p99_ms"]) for r in results), default=0)

    def in_real_time(results: list[dict[str, Any]]) -> int:
        return max((round(r["streams"] * chunk / r["p50_ms"]) for r in results), default=0)

    within = [r["streams"] for r in ours if r["p99_ms"] <= chunk / 2]
    found: dict[str, Any] = {
        "streams_with_p99_in_half_a_chunk": max(within, default=0),
        "streams_in_real_time": in_real_time(ours),
    }
    if ours and theirs:
        first, their_first = ours[0], theirs[0]
        found |= {
            "peer_streams_with_p99_in_half_a_chunk": streams_in_time(theirs),
            "peer_streams_in_real_time": in_real_time(theirs),
            "streams_ratio": round(streams_in_time(ours) / max(streams_in_time(theirs), 1), 2),
            "real_time_ratio": round(in_real_time(ours) / in_real_time(theirs), 2),
        }
        if first["streams"] == their_first["streams"] == 1:
            found["one_stream_step_ratio"] = round(first["p50_ms"] / their_first["p50_ms"], 4)
    return found


def table(report: Report) -> list[str]:
    """The report for people."""
    if "results" not in report:
        part = "growth" if "growth" in report else "stages"
        return [f"{name}: {value}" for name, value in report.get(part, {}).items() if not isinstance(value, list)]
    lines = [f"{'streams':>8} {'P50 ms':>9} {'P99 ms':>9} {'memory':>7} {'compute':>8} {'floor ms':>9} {'GB':>7}"]
    for r in report["results"]:
        lines.append(
            f"{r['streams']:8d} {r['p50_ms']:9.2f} {r['p99_ms']:9.2f} {r['memory_share']:7.0%} "
            f"{r['compute_share']:8.0%} {r['floor_ms']:9.2f} {r['memory_gb'] or 0:7.1f}"
        )
    for r in report.get("peer", {}).get("results", []):
        lines.append(f"{r['streams']:8d} {r['p50_ms']:9.2f} {r['p99_ms']:9.2f}  transformers")
    if "ended" in report:
        lines.append(f"ended: {report['ended']}")
    lines += [f"{name}: {value}" for name, value in report.get("summary", {}).items()]
    if isinstance(report.get("kernels"), list):
        lines += [f"{k['ms']:8.3f} ms {k['calls']:5d} x {k['kernel']}" for k in report["kernels"][:12]]
    lines.append(f"variant: {report.get('variant')}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The benchmark without Relay's command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m relay_benchmarks.streaming", description=__doc__)
    add_arguments(parser)
    parsed = parser.parse_args(arguments)

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def save(report: Report) -> None:
        if parsed.json is not None and str(parsed.json) != "-":
            parsed.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    try:
        report = run(options_of(parsed), note, save)
    except ValueError as error:
        note(f"error: {error}")
        return 1
    if parsed.plot is not None:
        from relay_benchmarks.streaming_plots import plot_streaming

        plot_streaming(report, parsed.plot)
    if str(parsed.json) == "-":
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(table(report)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
