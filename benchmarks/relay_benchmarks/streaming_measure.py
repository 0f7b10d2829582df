"""Timing on CPU and GPU alike, and what the machine can do at most."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

_COPY_BYTES = {"cuda": 4 << 30, "cpu": 1 << 28}
_MATMUL_SIZE = {"cuda": 8192, "cpu": 1024}


def wait(device: str) -> None:
    """Until the device is done with all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def times_ms(step: Callable[[], object], device: str, *, steps: int, warm_up: int) -> list[float]:
    """Wall time of each step, from its call until its results are there, in ms."""
    times = []
    for number in range(warm_up + steps):
        wait(device)
        begin = time.perf_counter()
        step()
        wait(device)
        if number >= warm_up:
            times.append(1000 * (time.perf_counter() - begin))
    return times


def percentiles(times: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, in the unit of `times`."""
    p50, p99 = np.percentile(times, (50, 99))
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4), "max_ms": round(max(times), 4)}


def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Bytes a second of a large copy, read and written, and operations a second of a large matrix product."""
    size = _COPY_BYTES[device] // 4
    source, target = (torch.empty(size, dtype=torch.float32, device=device).normal_() for _ in range(2))
    copy = partial(target.copy_, source)
    copy_ms = float(np.median(times_ms(copy, device, steps=10, warm_up=3)))
    del source, target, copy
    n = _MATMUL_SIZE[device]
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    matmul_ms = float(np.median(times_ms(partial(torch.matmul, left, right), device, steps=10, warm_up=3)))
    return {
        "copy_bytes_per_s": round(2 * 4 * size / copy_ms * 1000),
        "matmul_flop_per_s": round(2 * n**3 / matmul_ms * 1000),
    }


def machine(device: str) -> dict[str, Any]:
    """What it ran on."""
    found: dict[str, Any] = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
        found["cuda"] = torch.version.cuda
    return found


def memory_gb(device: str) -> float | None:
    """GPU memory in use by torch at its highest since the last call, in GB; None elsewhere."""
    if device != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 2)


def free_memory(device: str) -> None:
    """Gives cached memory back, so that the next measurement finds all of it."""
    if device == "cuda":
        torch.cuda.empty_cache()


def said(error: BaseException) -> str:
    """An error in one line of moderate length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
