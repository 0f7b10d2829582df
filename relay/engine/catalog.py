"""Recognisers and voices by name: those that ship with Relay, and checkpoints of one's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from relay.config import Device
from relay.engine import device as devices
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.ears_onnx import OnnxEarsRunner
from relay.engine.ears_torch import TorchEarsRunner
from relay.engine.engine import Runner
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.learned_ears import LearnedEars
from relay.engine.pocketsphinx_ears import PocketsphinxRunner
from relay.engine.store import KNOWN, ModelStore, is_hub_name
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.engine.voice_onnx import OnnxVoiceRunner
from relay.engine.voice_torch import TorchVoiceRunner
from relay.errors import EngineUnavailable, UsageError, WeightsError
from relay_models import loading
from relay_models.ears_folder import open_folder
from relay_models.voice_plan import ENCODE

Kind = Literal["ears", "voice"]
R = TypeVar("R")
EarsRunner = Runner[EarsInput, EarsOutput]
VoiceRunner = Runner[VoiceInput, VoiceOutput]


@dataclass(frozen=True, slots=True)
class EarsOptions:
    """How a recogniser is to run.

    Attributes:
        lookahead_ms: Audio it may wait for; None: its own choice.
        device: Where it runs.
    """

    lookahead_ms: int | None = None
    device: Device = "auto"


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
        make: Makes a runner that is not loaded yet, from `EarsOptions`, of which voices read the device.
        weights: The shipped weights that it needs, if any.
    """

    kind: Kind
    name: str
    aliases: tuple[str, ...]
    summary: str
    module: str
    extra: str
    make: Callable[[EarsOptions], R]
    weights: str | None = None

    @property
    def missing(self) -> str | None:
        """What must be done before this engine runs here; None if nothing."""
        if self.weights is not None and not _is_shipped(self.weights):
            return "install a version of Relay that ships its weights"
        if importlib.util.find_spec(self.module) is not None:
            return None
        return f"pip install 'relay-dialogue[{self.extra}]'"


def _is_shipped(name: str) -> bool:
    try:
        loading.locate(name)
    except loading.WeightsError:
        return False
    return True


def _learned(folder: Path | None, options: EarsOptions) -> EarsRunner:
    if devices.resolve(options.device) == "cuda":
        return TorchEarsRunner(folder, device="cuda", lookahead_ms=options.lookahead_ms)
    return OnnxEarsRunner(folder, lookahead_ms=options.lookahead_ms)


def _learned_voice(folder: Path | None, device: Device) -> VoiceRunner:
    """On the CPU, exported graphs run without torch; all else is run by torch."""
    if devices.resolve(device) == "cuda":
        return TorchVoiceRunner(folder, device="cuda")
    exported = folder is None or ((folder / ENCODE).exists() and importlib.util.find_spec("onnxruntime") is not None)
    return OnnxVoiceRunner(folder) if exported else TorchVoiceRunner(folder, device="cpu")


def _pocketsphinx(options: EarsOptions) -> EarsRunner:
    if options.lookahead_ms is not None:
        raise UsageError("the pocketsphinx recogniser has no choice of look-ahead; leave --lookahead-ms out")
    return PocketsphinxRunner()


EARS: tuple[Entry[EarsRunner], ...] = (
    Entry(
        kind="ears",
        name="relay",
        aliases=(),
        summary="Relay's own streaming recogniser, US English, int8, CPU (Apache-2.0)",
        module="onnxruntime",
        extra="cpu",
        make=lambda options: _learned(None, options),
        weights="ears",
    ),
    Entry(
        kind="ears",
        name="pocketsphinx",
        aliases=("baseline",),
        summary="PocketSphinx, US English, streaming, CPU (BSD-2-Clause)",
        module="pocketsphinx",
        extra="baseline",
        make=_pocketsphinx,
    ),
)
VOICES: tuple[Entry[VoiceRunner], ...] = (
    Entry(
        kind="voice",
        name="relay",
        aliases=(),
        summary="Relay's own streaming voice, US English, int8, CPU (Apache-2.0)",
        module="onnxruntime",
        extra="cpu",
        make=lambda options: _learned_voice(None, options.device),
        weights="voice",
    ),
    Entry(
        kind="voice",
        name="espeak",
        aliases=("baseline",),
        summary="eSpeak NG, US English, streaming, CPU (GPL-3.0-or-later)",
        module="espeakng_loader",
        extra="baseline",
        make=lambda _: EspeakRunner(),
    ),
)
"""Like `EARS` in order of preference: `auto` is the first that can run here."""


def ears(name: str = "auto", options: EarsOptions | None = None, *, models_dir: Path | None = None) -> EarsRunner:
    """A recogniser's runner, not loaded yet.

    Args:
        name: A shipped engine, a model of one's own (`relay models list`), or a folder with a checkpoint.
        options: How it is to run.
        models_dir: Where models of one's own are; None: there are none.

    Raises:
        UsageError: The name is unknown, or the engine has no such look-ahead.
        EngineUnavailable: It is not installed, or was not pulled yet.
        WeightsError: The checkpoint is damaged, or of no supported layout.
    """
    options = options or EarsOptions()
    folder = None if _is_known(EARS, name) else _checkpoint(name, models_dir)
    if folder is not None:
        return _ears_of(folder, options)
    return _find("ears", EARS, name, _own_names(models_dir)).make(options)


def lookaheads_ms(name: str = "auto", *, models_dir: Path | None = None) -> tuple[int, ...]:
    """Look-aheads that a recogniser lets one choose from, its default first; none where it has no choice.

    Raises what `ears` raises.
    """
    runner = ears(name, models_dir=models_dir)
    return runner.lookaheads_ms() if isinstance(runner, LearnedEars) else ()


def voice(name: str = "auto", *, device: Device = "auto") -> VoiceRunner:
    """A voice's runner, not loaded yet.

    Args:
        name: A shipped engine, or the folder of a voice.
        device: Where it runs, if it can choose.

    Raises:
        UsageError: The name is unknown.
        EngineUnavailable: It is not installed, or the device is not there.
    """
    if not _is_known(VOICES, name) and Path(name).is_dir():
        return _learned_voice(Path(name), device)
    return _find("voice", VOICES, name).make(EarsOptions(device=device))


def listing() -> tuple[Entry[Any], ...]:
    """Every engine of this version, for `relay models list` and `relay doctor`: not those whose weights do not ship."""
    entries: tuple[Entry[Any], ...] = (*EARS, *VOICES)
    return tuple(entry for entry in entries if entry.weights is None or _is_shipped(entry.weights))


def _checkpoint(name: str, models_dir: Path | None) -> Path | None:
    """The folder that a name stands for; None when it stands for none."""
    store = ModelStore(models_dir) if models_dir is not None else None
    stored = store.find(name) if store is not None else None
    if store is not None and stored is not None:
        return store.locate(stored)
    if Path(name).is_dir():
        return Path(name)
    if name in KNOWN or (is_hub_name(name) and not Path(name).exists()):
        raise EngineUnavailable(f"{name} is not on this machine; fetch it with `relay models pull {name}`")
    return None


def _ears_of(path: Path, options: EarsOptions) -> EarsRunner:
    """The runner for a folder: on the CPU, exported graphs run without torch; all else is run by torch."""
    try:
        folder = open_folder(path)
    except loading.WeightsError as error:
        raise WeightsError(str(error).replace(loading.REINSTALL, "give a folder with a recogniser")) from error
    if folder.rights and importlib.util.find_spec("onnxruntime") is not None:
        return _learned(path, options)
    if importlib.util.find_spec("torch") is None:
        raise EngineUnavailable(f"{path.name} is run by torch: pip install 'relay-dialogue[gpu]'")
    return TorchEarsRunner(path, device=devices.resolve(options.device), lookahead_ms=options.lookahead_ms)


def _own_names(models_dir: Path | None) -> list[str]:
    return [model.name for model in ModelStore(models_dir).models()] if models_dir is not None else []


def own_name(entries: Sequence[Entry[R]], name: str) -> str:
    """An engine's own name for its alias and for `auto`; anything else as it is."""
    for entry in entries:
        if name in entry.aliases or (name == "auto" and entry.missing is None):
            return entry.name
    return name


def _is_known(entries: Sequence[Entry[R]], name: str) -> bool:
    return name == "auto" or any(name in (entry.name, *entry.aliases) for entry in entries)


def _find(kind: Kind, entries: Sequence[Entry[R]], name: str, own: Sequence[str] = ()) -> Entry[R]:
    for entry in entries:
        if name in (entry.name, *entry.aliases):
            if entry.missing is not None:
                raise EngineUnavailable(f"the {entry.name} {kind} engine is not installed: {entry.missing}")
            return entry
    if name == "auto":
        for entry in entries:
            if entry.missing is None:
                return entry
        raise EngineUnavailable(f"no {kind} engine is installed: {entries[0].missing}")
    known = ", ".join(["auto", *(known for entry in entries for known in (entry.name, *entry.aliases)), *own])
    raise UsageError(f"there is no {kind} engine {name!r}: choose one of {known}, or give a folder with one")
