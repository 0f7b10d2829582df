"""Clients of other projects, from the registries and unchanged, each in a spoken dialogue with the real server.

The caller asks a question, breaks into the long reply with another question, and the reply to that one calls a function
first. What the client made of it, what crossed the socket and what the language model was asked must agree.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import trustme
from playwright.async_api import async_playwright

from relay_benchmarks.espeak import Spoken, speak
from tests.clients.stand import HERE, KEY, LONG_REPLY, Seen, missing, node, python_of, run, stand
from tests.web.browser import FLAGS
from tests.wire.protocol_doc import events_of

pytestmark = pytest.mark.timeout(240)
RATE_HZ = 24_000
QUESTIONS = ("can you help me find a restaurant", "what is the weather like today")


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two spoken questions, PCM at 24 kHz, each with a faint room's noise long enough for every detector of turns."""
    folder = tmp_path_factory.mktemp("speech")
    random = np.random.default_rng(5)
    paths: list[Path] = []
    for pcm in speak([Spoken(text, "en-us", 150) for text in QUESTIONS]):
        quiet = random.normal(0, 8, len(pcm) + 5 * RATE_HZ)
        quiet[: len(pcm)] += pcm * (0.5 * 32767 / np.abs(pcm).max())
        paths.append(folder / f"{len(paths)}.pcm")
        paths[-1].write_bytes(quiet.astype("<i2").tobytes())
    return paths


def check(client: str, seen: Seen) -> None:
    """What holds for every client."""
    assert not seen.told("error")
    errors = [event["error"]["message"] for event in seen.received if event["type"] == "error"]
    assert errors == [report["message"] for report in seen.told("refused")]
    first, second = (report["text"] for report in seen.told("heard"))
    assert "restaurant" in first
    assert "weather" in second
    (tool,) = seen.told("tool")
    assert (tool["name"], tool["city"]) == ("look_up", "Bern")
    cut, whole = (reply for reply in seen.told("reply") if "Hello" not in reply["text"])
    assert (cut["interrupted"], whole["interrupted"]) == (True, False)
    assert LONG_REPLY.startswith(cut["text"].strip())
    assert whole["text"].strip() == "It is sunny in Bern."
    assert all(reply["peak"] > 1000 and reply["ms"] > 500 for reply in (cut, whole))
    # The language model is shown what was heard of the long reply, and no more.
    answer = next(messages for messages in seen.asked if messages[-1]["role"] == "tool")
    (heard,) = (m["content"] for m in answer if m["role"] == "assistant" and str(m["content"]).startswith("I will"))
    assert LONG_REPLY.startswith(heard)
    assert len(heard) < len(LONG_REPLY)
    statuses = [event["response"]["status"] for event in seen.received if event["type"] == "response.done"]
    assert statuses.count("cancelled") == 1
    assert not [kind for kind in seen.types() if kind.startswith("relay.")]
    assert events_of(client) <= seen.types(), f"docs/protocol.md names {client} for what it did not do"


def hold(client: str, command: list[str | Path], speech: list[Path], records: Path) -> Seen:
    """A dialogue of a client that is a script."""
    seen = Seen()

    async def main() -> None:
        async with stand(seen, records) as url:
            await run(seen, [*command, url, KEY, *speech])

    asyncio.run(main())
    check(client, seen)
    return seen


def test_openai(speech: list[Path], tmp_path: Path) -> None:
    seen = hold("openai", [sys.executable, HERE / "openai_python.py"], speech, tmp_path)
    assert [report["text"] for report in seen.told("topic")] == ["weather"]
    assert [report["text"] for report in seen.told("retrieved")] == ["It is sunny in Bern."]
    assert [report["code"] for report in seen.told("refused")] == ["item_delete_invalid_item_id"]


def test_openai_agents(speech: list[Path], tmp_path: Path) -> None:
    hold("openai-agents", [python_of("agents"), HERE / "openai_agents.py"], speech, tmp_path)


def test_pipecat(speech: list[Path], tmp_path: Path) -> None:
    seen = hold("pipecat", [python_of("pipecat"), HERE / "pipecat_service.py"], speech, tmp_path)
    assert len(seen.told("refused")) == 1


def test_npm_agents_realtime_in_node(speech: list[Path], tmp_path: Path) -> None:
    seen = hold("npm agents-realtime", [node(), HERE / "agents_realtime_node.mjs"], speech, tmp_path)
    check_history(seen)


def check_history(seen: Seen) -> None:
    (history,) = seen.told("history")
    question, cut, interruption, whole = history["said"]
    assert "restaurant" in question
    assert LONG_REPLY.startswith(cut)
    assert len(cut) < len(LONG_REPLY)
    assert "weather" in interruption
    assert whole == "It is sunny in Bern."


@pytest.fixture
def site() -> Iterator[str]:
    """URL of the scripts' folder."""
    node()
    handler = functools.partial(Files, directory=str(HERE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_port}"
        files.shutdown()
        thread.join()


class Files(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_npm_agents_realtime_in_chromium(site: str, speech: list[Path], tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        missing("Chromium")
    seen = Seen()

    async def main() -> None:
        async with stand(seen, tmp_path) as url, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = await browser.new_page()
            await page.expose_function("report", lambda kind, fields: seen.reports.append({"kind": kind, **fields}))
            await page.goto(f"{site}/agents_realtime.html")
            await page.wait_for_function("() => window.hold")
            question, interruption = (base64.b64encode(path.read_bytes()).decode() for path in speech)
            call = {"url": url, "apiKey": KEY, "question": question, "interruption": interruption}
            await page.evaluate("call => window.hold(call)", call)
            await browser.close()

    asyncio.run(main())
    check("npm agents-realtime", seen)
    check_history(seen)


def test_npm_openai_over_tls(speech: list[Path], tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, chain, key = (tmp_path / name for name in ("ca.pem", "chain.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(ca))
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    seen = Seen()

    async def main() -> None:
        async with stand(seen, tmp_path, "--tls-cert", str(chain), "--tls-key", str(key)) as url:
            assert url.startswith("https://")
            await run(seen, [node(), HERE / "openai_ws.mjs", url, KEY, *speech, ca])

    asyncio.run(main())
    check("npm openai", seen)
    assert {"input_audio_buffer.commit", "response.cancel"} <= seen.types()
