"""Firefox, driven by WebDriver BiDi (w3c.github.io/webdriver-bidi), which it speaks without any driver program."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import connect

PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "media.autoplay.default": 0,
    "media.navigator.permission.disabled": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


def firefox_path() -> str | None:
    """The browser's program, if it is installed."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """One headless Firefox with one page.

    Args:
        profile: An empty folder.
        preload: JavaScript function that runs in every page before the page's own code.
        environment: The process's environment variables.
    """

    def __init__(self, profile: Path, preload: str, environment: dict[str, str]) -> None:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
        (profile / "user.js").write_text("\n".join(lines))
        path = firefox_path()
        assert path is not None
        command = [path, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
        variables = {**environment, "HOME": str(profile)}
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables, text=True
        )
        self._preload = preload
        self._last_id = 0
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        """Connects and opens the page."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            self._socket = stack.enter_context(connect(f"{self._address()}/session", max_size=None))
            self.command("session.new", capabilities={})
            self.command("session.subscribe", events=["log.entryAdded"])
            self._page = self.command("browsingContext.create", type="tab")["context"]
            self.command("script.addPreloadScript", functionDeclaration=self._preload)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends the browser."""
        self._stack.close()

    def _address(self) -> str:
        """Where the browser listens; it says so on stderr, which is read on so that it never blocks."""
        stderr = self._process.stderr
        assert stderr is not None
        for line in stderr:
            if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                self._drain = threading.Thread(target=lambda: [None for _ in stderr])
                self._drain.start()
                return found[1]
        raise AssertionError("Firefox did not start")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if hasattr(self, "_drain"):
            self._drain.join()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def command(self, method: str, **params: Any) -> Any:
        """Sends a command and waits for its result; console errors that come meanwhile are kept."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] in {"error", "warn"}:
                self.complaints.append(str(message["params"]["text"]))
            if message.get("id") == self._last_id:
                assert message["type"] == "success", message
                return message["result"]

    def goto(self, url: str) -> None:
        """Loads a page."""
        self.command("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of the promise it gives, as if the user had just clicked."""
        wrapped = f"(async () => JSON.stringify(await ({expression})))()"
        target = {"context": self._page}
        result = self.command(
            "script.evaluate", expression=wrapped, target=target, awaitPromise=True, userActivation=True
        )
        assert result["type"] == "success", result
        value = result["result"].get("value")
        return None if value is None else json.loads(value)

    def until(self, expression: str, timeout_s: float = 60.0) -> None:
        """Waits until a JavaScript expression is true."""
        for _ in range(int(timeout_s / 0.05)):
            if self.evaluate(f"Boolean({expression})"):
                return
            time.sleep(0.05)  # between two looks; the condition decides
        raise AssertionError(
            f"{expression} did not become true; the page shows {self.evaluate('document.body.innerText')}"
        )
