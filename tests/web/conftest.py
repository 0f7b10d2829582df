"""A real server process, a real Chromium, and sound files in place of the microphone."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.web.browser import FLAGS, MICROPHONE_HZ, SPY, ServerProcess, TalkativeBrain, Visit
from tests.web.scripted import Script, ScriptedServer


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers; they are stopped with the test."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, port: int = 0, environ: Mapping[str, str] | None = None) -> ServerProcess:
        log = tmp_path / f"server-{len(servers)}.log"
        servers.append(ServerProcess(log, *arguments, port=port, environ=environ))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that leave it as they found it."""
    running = ServerProcess(tmp_path_factory.mktemp("server") / "server.log")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def talkative_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose replies are long."""
    log = tmp_path_factory.mktemp("server") / "talkative.log"
    with ThreadingHTTPServer(("127.0.0.1", 0), TalkativeBrain) as brain:
        thread = threading.Thread(target=brain.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{brain.server_port}/v1"
        try:
            running = ServerProcess(log, "--llm-url", url, "--llm-model", "counting")
            yield running
            running.stop()
        finally:
            brain.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A spoken question, [samples] float at the microphone's rate, without silence around it."""
    path = tmp_path_factory.mktemp("speech") / "question.wav"
    say = [sys.executable, "-m", "relay", "say", "What can you do for me?", "--out", str(path)]
    subprocess.run(say, check=True, capture_output=True)
    samples, rate_hz = soundfile.read(path)
    times = np.arange(int(len(samples) * MICROPHONE_HZ / rate_hz)) / MICROPHONE_HZ
    resampled = np.interp(times, np.arange(len(samples)) / rate_hz, samples)
    loud = np.flatnonzero(np.abs(resampled) > 0.01)
    return resampled[loud[0] : loud[-1]] * (0.5 / np.abs(resampled).max())


@pytest.fixture
def microphone(speech: np.ndarray[Any, np.dtype[np.float64]], tmp_path: Path) -> Callable[..., Path]:
    """Makes a file for the fake microphone: the question, with room noise before and after it."""

    def make(before_s: float, after_s: float) -> Path:
        random = np.random.default_rng(0)
        signal = np.concatenate(
            [np.zeros(int(before_s * MICROPHONE_HZ)), speech, np.zeros(int(after_s * MICROPHONE_HZ))]
        )
        path = tmp_path / "microphone.wav"
        soundfile.write(path, signal + random.normal(0, 0.001, len(signal)), MICROPHONE_HZ, subtype="PCM_16")
        return path

    return make


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Callable[..., Browser]]:
    """Browsers by their flags, started once each: `chromium(*flags)`."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed; install it (apt-get install chromium) to test the page")
    browsers: dict[tuple[str, ...], Browser] = {}

    def launch(*flags: str) -> Browser:
        if flags not in browsers:
            browsers[flags] = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        return browsers[flags]

    yield launch
    for browser in browsers.values():
        browser.close()


@pytest.fixture
def visit(chromium: Callable[..., Browser]) -> Iterator[Callable[..., Visit]]:
    """Opens pages, each in a context of its own: `visit(url, *flags)`. `preload` is JavaScript that runs before all."""
    pages: list[Page] = []

    def open_page(url: str, *flags: str, preload: str = "", **context: Any) -> Visit:
        page = chromium(*flags).new_page(**context)
        pages.append(page)
        page.set_default_timeout(30_000)
        page.add_init_script(SPY)
        if preload:
            page.add_init_script(preload)
        visited = Visit(page)
        page.on("websocket", visited.watch)
        page.on("console", visited.complain)
        page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        page.goto(url)
        return visited

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts servers that follow a script: `scripted(*scripts)`; what goes wrong in a script fails the test."""
    with contextlib.ExitStack() as running:

        def start(*scripts: Script) -> ScriptedServer:
            return running.enter_context(ScriptedServer(*scripts).running())

        yield start
