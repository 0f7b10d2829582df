"""What commands write: results on stdout, progress on stderr and only to a terminal."""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console


def print_json(value: object) -> None:
    """One JSON value on one line of stdout, at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def progress_console() -> Console:
    """Where progress goes: stderr; silent unless it is a terminal."""
    return Console(stderr=True, quiet=not sys.stderr.isatty())


def complain(message: str) -> None:
    """One line on stderr about something that went wrong while the command goes on."""
    print(f"relay: error: {' '.join(message.split())}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """One line on stderr for whoever watches."""
    progress_console().print(message, highlight=False, markup=False)
