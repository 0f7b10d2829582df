"""How fast the page falls silent when it is interrupted: Chromium without a window, a file as its microphone.

The microphone says the same question again and again, with a pause that is too short for the answer, so that nearly
every question interrupts the answer to the one before. The page records what its microphone heard and what it played,
on one clock ("Save sound"); the figures are read off that recording.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from relay.client.files import read_blocks
from relay.errors import EngineUnavailable

MICROPHONE_HZ = 48_000
PAUSE_S = 1.8
"""After each question: the answer begins in it, and is far from its end."""
SPEECH_LEVEL, PLAYED_LEVEL = 0.02, 0.003
WORDS_GAP_S, SENTENCES_GAP_S = 0.9, 0.6
"""Quiet that is part of a question, and of an answer."""

FloatArray = npt.NDArray[np.float32]


def write_microphone(question: Path, path: Path, seed: int = 0) -> float:
    """Writes what the microphone hears in a loop; returns its length in seconds."""
    pcm = np.concatenate(list(read_blocks(question, MICROPHONE_HZ, 1.0))).astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(pcm) > 0.01)
    pcm = pcm[loud[0] : loud[-1] + 1] * (0.5 / np.abs(pcm).max())
    sound = np.concatenate((pcm, np.zeros(round(PAUSE_S * MICROPHONE_HZ), np.float32)))
    sound += np.random.default_rng(seed).normal(0, 1e-3, len(sound)).astype(np.float32)
    soundfile.write(path, sound, MICROPHONE_HZ, subtype="PCM_16")
    return len(sound) / MICROPHONE_HZ


def stretches(sound: FloatArray, level: float, gap_samples: int) -> list[tuple[int, int]]:
    """First and last sample of each stretch above a level, gaps shorter than `gap_samples` included."""
    loud = np.flatnonzero(np.abs(sound) > level)
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > gap_samples)
    firsts, lasts = np.concatenate((loud[:1], loud[cuts + 1])), np.concatenate((loud[cuts], loud[-1:]))
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def stop_times_ms(recording: FloatArray, rate_hz: int) -> list[float]:
    """From the first sample of an interruption to the last that was played of the answer it interrupts.

    Args:
        recording: [samples, 2]: the microphone, and what was played.
        rate_hz: Its rate.
    """
    spoken = stretches(recording[:, 0], SPEECH_LEVEL, round(WORDS_GAP_S * rate_hz))
    played = stretches(recording[:, 1], PLAYED_LEVEL, round(SENTENCES_GAP_S * rate_hz))
    return [1000 * (end - begins) / rate_hz for begins, _ in spoken for start, end in played if start < begins < end]


async def record(url: str, microphone: Path, seconds: float, out: Path) -> None:
    """Talks on the page for some time and saves its recording.

    Raises:
        EngineUnavailable: Playwright or a browser is missing.
    """
    try:
        from playwright.async_api import Error, async_playwright
    except ImportError as error:
        raise EngineUnavailable("bench page needs playwright: pip install playwright") from error
    flags = [
        *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []),  # root cannot have one
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=flags
            )
        except Error as error:
            raise EngineUnavailable("bench page needs Chromium: playwright install chromium") from error
        page = await browser.new_page()
        await page.goto(url)
        await page.get_by_role("button", name="Start talking").click()
        await page.wait_for_timeout(seconds * 1000)
        async with page.expect_download() as download:
            await page.locator("#save-audio").click()
        await (await download.value).save_as(out)
        await browser.close()
