"""What sessions cost the server: memory and processor of quiet ones, and what opening and closing many leaves behind.

A quiet session is a caller whose room noise arrives in real time and who says nothing. Cost is read from the server's
process from outside (psutil), its tasks from `/metrics`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psutil

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.duplex import ROOM_NOISE_DBFS
from relay.client.realtime import Client, connect

FRAME_MS = 20
SETTLE_S = 2.0
OPENERS = 8


@dataclass(frozen=True, slots=True)
class Usage:
    """A process at one moment."""

    rss_bytes: int
    cpu_s: float
    tasks: int
    at_s: float


def server_process() -> psutil.Process:
    """The server that this process has started. Raises LookupError if there is none."""
    for child in psutil.Process(os.getpid()).children(recursive=True):
        if "serve" in child.cmdline():
            return child
    raise LookupError("no server was started by this process")


async def usage(process: psutil.Process, url: str) -> Usage:
    """What the process uses now."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(url + "/metrics")).text
    tasks = next(float(line.split()[1]) for line in text.splitlines() if line.startswith("relay_tasks "))
    times = process.cpu_times()
    return Usage(process.memory_info().rss, times.user + times.system, int(tasks), time.perf_counter())


async def quiet(url: str, process: psutil.Process, *, sessions: int, seconds: float, seed: int) -> dict[str, Any]:
    """Connects so many quiet callers, and measures over a time in which nothing else happens."""
    before = await usage(process, url)
    noise = _room_noise(seed)
    ready = asyncio.Barrier(sessions + 1)
    async with asyncio.TaskGroup() as callers:
        tasks = [callers.create_task(_caller(url, noise, number, ready)) for number in range(sessions)]
        await ready.wait()
        await asyncio.sleep(SETTLE_S)
        begin = await usage(process, url)
        await asyncio.sleep(seconds)
        end = await usage(process, url)
        for task in tasks:
            task.cancel()
    return {
        "sessions": sessions,
        "seconds": round(end.at_s - begin.at_s, 2),
        "rss_mb": round(end.rss_bytes / 1e6, 1),
        "rss_mb_per_session": round((end.rss_bytes - before.rss_bytes) / 1e6 / sessions, 3),
        "cpu_cores": round((end.cpu_s - begin.cpu_s) / (end.at_s - begin.at_s), 3),
    }


async def churn(url: str, process: psutil.Process, *, sessions: int) -> dict[str, Any]:
    """Opens and closes sessions, a few at a time; the first tenth warms caches and is not compared with."""
    await _open_and_close(url, max(sessions // 10, OPENERS))
    before = await _settled(process, url)
    await _open_and_close(url, sessions)
    after = await _settled(process, url)
    return {
        "sessions": sessions,
        "rss_mb_before": round(before.rss_bytes / 1e6, 1),
        "rss_mb_after": round(after.rss_bytes / 1e6, 1),
        "tasks_before": before.tasks,
        "tasks_after": after.tasks,
    }


def report(url: str, path: str, results: dict[str, Any]) -> dict[str, Any]:
    """The benchmark's JSON."""
    machine = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
    return {"machine": machine, "config": {"url": url, "path": path}, **results}


async def _caller(url: str, noise: Int16Array, number: int, ready: asyncio.Barrier) -> None:
    samples = samples_in(FRAME_MS, VOICE_RATE_HZ)
    async with connect(url) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(_drain(client))
        await ready.wait()
        loop = asyncio.get_running_loop()
        begin_s = loop.time() + FRAME_MS / 1000 * (number % 20) / 20  # callers do not speak in step
        at = number * 977
        for frame in range(10**9):
            await asyncio.sleep(begin_s + frame * FRAME_MS / 1000 - loop.time())
            await client.append(noise[at : at + samples])
            at = (at + samples) % (len(noise) - samples)


async def _drain(client: Client) -> None:
    async for _ in client:
        pass


async def _open_and_close(url: str, sessions: int) -> None:
    left = iter(range(sessions))

    async def opener() -> None:
        for _ in left:
            async with connect(url):
                pass

    async with asyncio.TaskGroup() as openers:
        for _ in range(OPENERS):
            openers.create_task(opener())


async def _settled(process: psutil.Process, url: str) -> Usage:
    await asyncio.sleep(SETTLE_S)
    return await usage(process, url)


def _room_noise(seed: int) -> Int16Array:
    """Half a minute of coloured noise at the level of a quiet room."""
    white = np.random.default_rng(seed).standard_normal(VOICE_RATE_HZ * 30)
    brown = np.convolve(white, np.exp(-np.arange(64) / 12.0), mode="same")
    level = 32768.0 * 10 ** (ROOM_NOISE_DBFS / 20)
    noise: Int16Array = np.rint(brown / brown.std() * level).astype(np.int16)
    return noise
