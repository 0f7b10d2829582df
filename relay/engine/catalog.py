"""The recognisers and voices that ship with Relay, by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.engine import Runner
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.pocketsphinx_ears import PocketsphinxRunner
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.errors import EngineUnavailable, UsageError

Kind = Literal["ears", "voice"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Entry(Generic[R]):
    """One engine.

    Attributes:
        kind: `ears` or `voice`.
        name: Its name on the command line.
        aliases: Other names for it.
        summary: One line for `relay models list`, with the licence.
        module: The module that must be importable.
        extra: The optional dependencies of this project that bring it.
        make: Makes a runner that is not loaded yet.
    """

    kind: Kind
    name: str
    aliases: tuple[str, ...]
    summary: str
    module: str
    extra: str
    make: Callable[[], R]

    @property
    def missing(self) -> str | None:
        """What must be done before this engine runs here; None if nothing."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return f"pip install 'relay-dialogue[{self.extra}]'"


# In order of preference: `auto` is the first that is installed.
EARS: tuple[Entry[Runner[EarsInput, EarsOutput]], ...] = (
    Entry(
        kind="ears",
        name="pocketsphinx",
        aliases=("baseline",),
        summary="PocketSphinx, US English, streaming, CPU (BSD-2-Clause)",
        module="pocketsphinx",
        extra="baseline",
        make=PocketsphinxRunner,
    ),
)
VOICES: tuple[Entry[Runner[VoiceInput, VoiceOutput]], ...] = (
    Entry(
        kind="voice",
        name="espeak",
        aliases=("baseline",),
        summary="eSpeak NG, US English, streaming, CPU (GPL-3.0-or-later)",
        module="espeakng_loader",
        extra="baseline",
        make=EspeakRunner,
    ),
)


def ears(name: str = "auto") -> Runner[EarsInput, EarsOutput]:
    """A recogniser's runner by name, not loaded yet. Raises UsageError for an unknown name, EngineUnavailable."""
    return _find("ears", EARS, name).make()


def voice(name: str = "auto") -> Runner[VoiceInput, VoiceOutput]:
    """A voice's runner by name, not loaded yet. Raises UsageError for an unknown name, EngineUnavailable."""
    return _find("voice", VOICES, name).make()


def listing() -> tuple[Entry[Any], ...]:
    """Every engine, for `relay models list` and `relay doctor`."""
    return (*EARS, *VOICES)


def _find(kind: Kind, entries: Sequence[Entry[R]], name: str) -> Entry[R]:
    for entry in entries:
        if name in (entry.name, *entry.aliases):
            if entry.missing is not None:
                raise EngineUnavailable(f"the {entry.name} {kind} engine is not installed: {entry.missing}")
            return entry
    if name == "auto":
        for entry in entries:
            if entry.missing is None:
                return entry
        raise EngineUnavailable(f"no {kind} engine is installed: {entries[-1].missing}")
    known = ", ".join(["auto", *(known for entry in entries for known in (entry.name, *entry.aliases))])
    raise UsageError(f"there is no {kind} engine {name!r}: choose one of {known}")
