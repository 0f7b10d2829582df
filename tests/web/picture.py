"""Makes the README's picture of the page: `python -m tests.web.picture docs/page-light.png [dark] [flags of serve]`.

A real dialogue: three sentences said by the voice that ships go to a real server through a browser's microphone. The
second reply is interrupted by the third sentence, and the picture is taken while the third is heard.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.web.browser import FLAGS, MICROPHONE_HZ, ServerProcess, microphone_flags

SAID = (("I would like some coffee.", 9.0), ("Where can I buy a ticket?", 3.2), ("Sorry, wait a moment.", 60.0))
"""Each with the silence after it, in seconds: the first reply is heard to its end, the second is not."""
SIZE = {"width": 1000, "height": 940}
COLOURS = 256


def microphone(path: Path) -> None:
    """Writes the sentences, with the noise of a quiet room."""
    parts = [np.zeros(3 * MICROPHONE_HZ)]
    for text, silence_s in SAID:
        subprocess.run(
            [sys.executable, "-m", "relay", "say", text, "--out", str(path)], check=True, capture_output=True
        )
        samples, rate_hz = soundfile.read(path)
        times = np.arange(int(len(samples) * MICROPHONE_HZ / rate_hz)) / MICROPHONE_HZ
        parts += [
            np.interp(times, np.arange(len(samples)) / rate_hz, samples),
            np.zeros(int(silence_s * MICROPHONE_HZ)),
        ]
    signal = np.concatenate(parts)
    noise = np.random.default_rng(0).normal(0, 0.001, len(signal))
    soundfile.write(path, signal + noise, MICROPHONE_HZ, subtype="PCM_16")


def take(out: Path, scheme: str, *flags: str) -> None:
    """Holds the dialogue and takes the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        sound = Path(folder) / "microphone.wav"
        microphone(sound)
        server = ServerProcess(Path(folder) / "server.log", *flags)
        try:
            arguments = [*FLAGS, *microphone_flags(sound, loop=False)]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(server.url)
            page.get_by_role("button", name="Start talking").click()
            page.locator(".reply").nth(2).locator(".word.now").wait_for(timeout=90_000)
            page.wait_for_timeout(700)
            page.screenshot(path=out)
            browser.close()
        finally:
            server.stop()
    Image.open(out).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    given = sys.argv[2:]
    dark = given[:1] == ["dark"]
    take(Path(sys.argv[1]), "dark" if dark else "light", *given[dark:])
