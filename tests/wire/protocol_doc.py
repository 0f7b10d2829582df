"""The tables of docs/protocol.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CLIENTS = {
    "openai": "tests/clients/openai_python.py",
    "openai-agents": "tests/clients/openai_agents.py",
    "pipecat": "tests/clients/pipecat_service.py",
    "npm openai": "tests/clients/openai_ws.mjs",
    "npm agents-realtime": "tests/clients/agents_realtime.mjs",
}
"""Independent clients and the scripts that hold a dialogue through them."""


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = TEXT.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def clients_in(cell: str) -> set[str]:
    """The clients that the last cell of an event's row names."""
    return set(CLIENTS) if cell == "all" else set(re.findall(r"`([^`]+)`", cell))


def events_of(client: str) -> set[str]:
    """The events that the tables say a client's test exercises."""
    rows = table("## Client events") + table("## Server events")
    return {row[0].strip("`") for row in rows if client in clients_in(row[3])}
