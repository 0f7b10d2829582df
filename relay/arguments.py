"""Pieces of the command line that several commands share. What they need of the environment is handed to them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from relay.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
ENGINE_PROCESSES = ("each", "one")
PATHS = ("relay", "cascade", "draft")


class Parser(argparse.ArgumentParser):
    """Wrong use gives one line on stderr and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of printing the usage and exiting."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


Commands = argparse._SubParsersAction
"""What `add_subparsers` returns; argparse gives it no public name."""


def add_command(commands: Commands[Parser], name: str, summary: str, run_it: Callable[..., int]) -> Parser:
    """A command; `run_it` takes the parsed options and the environment, and returns the exit status."""
    parser: Parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(run=run_it)
    return parser


def add_json(parser: Parser) -> None:
    """`--json` as a switch."""
    parser.add_argument("--json", action="store_true", help="print machine-readable output on stdout")


def add_url(parser: Parser, environ: Mapping[str, str], *, default: str | None, note: str) -> None:
    """`--url` and `--api-key` of a server that runs already."""
    parser.add_argument("--url", default=default, help=f"the server; {note}")
    parser.add_argument(
        "--api-key", metavar="KEY", default=environ.get("RELAY_API_KEY"), help="key to present; default: $RELAY_API_KEY"
    )


def own_server(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment for a server that a command starts for itself: the caller's choice of engines, but no locks."""
    closed = {"RELAY_API_KEY", "RELAY_TLS_CERT", "RELAY_TLS_KEY", "RELAY_HOST", "RELAY_PORT", "RELAY_MAX_SESSIONS"}
    return {name: value for name, value in environ.items() if name not in closed}


def models_dir(environ: Mapping[str, str]) -> Path:
    """Where models of the user's own are: in $RELAY_HOME, else where the platform keeps data of applications."""
    if home := environ.get("RELAY_HOME"):
        return Path(home) / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "relay" / "models"
    data = environ.get("LOCALAPPDATA") if sys.platform == "win32" else environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "relay" / "models"


def positive(text: str) -> int:
    """A whole number above zero, for `type=`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def not_negative(text: str) -> int:
    """A whole number, zero or above, for `type=`."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number
