"""What the tests of the page need: a server process, a language model, a visit to the page, a file as microphone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

from playwright.sync_api import ConsoleMessage, Page, WebSocket

MICROPHONE_HZ = 48_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Listens beside the page: to what the playback worklet tells it, and to the audio that leaves the worklet's node.
SPY = """
if (globalThis.AudioWorkletNode) {
  const Native = AudioWorkletNode;
  window.spy = { events: [], loudest: 0 };
  window.AudioWorkletNode = class extends Native {
    constructor(context, name, options) {
      super(context, name, options);
      if (name !== "relay-playback") return;
      this.port.addEventListener("message", ({ data }) => window.spy.events.push(...data));
      const tap = new AnalyserNode(context);
      const block = new Float32Array(tap.fftSize);
      this.connect(tap);
      setInterval(() => {
        tap.getFloatTimeDomainData(block);
        const power = block.reduce((sum, x) => sum + x * x, 0) / block.length;
        window.spy.loudest = Math.max(window.spy.loudest, Math.sqrt(power));
      }, 20);
    }
  };
}
"""


class ServerProcess:
    """`relay serve` as people run it."""

    def __init__(self, log: Path, *arguments: str, port: int = 0, environ: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as errors:
            command = [sys.executable, "-m", "relay", "serve", "--port", str(port), *arguments]
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **(environ or {})}
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready "):
                self.url = line.split()[1]
                return
        self.stop()
        raise AssertionError(f"the server did not start:\n{log.read_text()}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class TalkativeBrain(BaseHTTPRequestHandler):
    """An OpenAI-compatible language model that always gives one long answer: an interruption must find it speaking."""

    answer: ClassVar[str] = "I will count slowly for you now. " + " ".join(
        f"This is sentence number {number} of my long answer." for number in ("one", "two", "three", "four", "five")
    )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in self.answer.split(" "):
            chunk = {"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Visit:
    """A page in a browser of its own, with all that crossed its sockets and all that it complained about."""

    page: Page
    sockets: list[WebSocket] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    audio_frames_sent: int = 0
    audio_bytes_received: int = 0
    complaints: list[str] = field(default_factory=list)

    def watch(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framesent", self._on_sent)
        socket.on("framereceived", self._on_received)

    def _on_sent(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            self.audio_frames_sent += 1
        else:
            self.sent.append(json.loads(payload))

    def _on_received(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            self.audio_bytes_received += len(payload) - 16
        else:
            self.received.append(json.loads(payload))

    def complain(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def events(self, type_: str) -> list[dict[str, Any]]:
        """Server events of one type, so far."""
        return [event for event in self.received if event["type"] == type_]

    def playback(self, type_: str) -> list[dict[str, Any]]:
        """What the playback worklet told, so far."""
        events: list[dict[str, Any]] = self.page.evaluate("window.spy.events")
        return [event for event in events if event["type"] == type_]

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Waits until a condition holds; the page's events are handled meanwhile."""
        for _ in range(int(timeout_s / 0.05)):
            if condition():
                return
            self.page.wait_for_timeout(50)  # lets the driver's events in; the condition decides
        raise AssertionError(f"{what} did not happen; the server sent {[event['type'] for event in self.received]}")


def send(page: Page, text: str) -> None:
    """Types a message and sends it."""
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def microphone_flags(path: Path, *, loop: bool) -> tuple[str, ...]:
    """Chromium's flags for a microphone that plays a file and needs no permission."""
    suffix = "" if loop else "%noloop"
    return (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}{suffix}",
    )
