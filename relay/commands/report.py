"""What the benchmark commands share: what they need, and where their report goes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import msgspec

from relay.errors import EngineUnavailable, UsageError


def require(package: str, flag: str) -> None:
    """Raises EngineUnavailable, naming what asks for the package, when it is not installed."""
    if importlib.util.find_spec(package) is None:
        raise EngineUnavailable(f"{flag} needs {package}: pip install 'relay-dialogue[bench]'")


def check_writable(*paths: Path | None) -> None:
    """Raises UsageError for a file in no folder: minutes of measuring must not end at a mistyped name."""
    for path in paths:
        if path is not None and not is_stdout(path) and not path.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {path.absolute().parent}; make it first")


def is_stdout(path: Path | None) -> bool:
    """Whether the report goes to stdout (`-`), where nothing else may then be printed."""
    return path is not None and str(path) == "-"


def write_report(report: object, path: Path | None) -> None:
    """Writes a report as indented JSON to a file or stdout; nowhere without a path."""
    if path is None:
        return
    text = msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"
    if is_stdout(path):
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")
