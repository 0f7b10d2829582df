"""`relay doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import asyncio
import platform
import shutil
import socket
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from relay.commands.console import print_json
from relay.commands.models import shipped
from relay.engine import catalog, fast
from relay.errors import EngineUnavailable, RelayError, WeightsError

PACKAGES = ("msgspec", "numpy", "prometheus-client", "rich", "safetensors", "soundfile", "soxr", "tokenizers")
SERVER_PACKAGES = ("webrtcvad-wheels", "websockets")


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What `relay doctor` was asked.

    Attributes:
        port: Port that should be free.
        models_dir: Where models of the user's own are; None: there are none.
        json: Print the findings as JSON.
    """

    port: int = 8000
    models_dir: Path | None = None
    json: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What.
        status: `fail`: the server cannot run; `warn`: something optional is missing.
        detail: What was found.
        todo: What to do about it; empty when all is well.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    todo: str = ""


def doctor(options: DoctorOptions) -> int:
    """Looks at everything and prints what it found.

    Returns:
        1 when something fails, else 0.
    """
    findings = [
        _python(),
        _packages(),
        _gpu(),
        _onnxruntime(),
        *_engines(),
        *_weights(),
        _path(options.models_dir),
        *_sound(),
        _port(options.port),
    ]
    if options.json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return int(any(finding.status == "fail" for finding in findings))


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in findings:
        mark = f"[{colours[finding.status]}]{finding.status:4}[/]"
        console.print(f"{mark}  {finding.name:14} {escape(finding.detail)}")
        if finding.todo:
            console.print(f"      {'':14} -> {escape(finding.todo)}")


def _python() -> Finding:
    detail = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}"
    return Finding("python", "ok", detail)


def _packages() -> Finding:
    missing = [name for name in (*PACKAGES, *SERVER_PACKAGES) if _version(name) is None]
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("packages", "ok", f"all {len(PACKAGES) + len(SERVER_PACKAGES)} that the server needs")


def _gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("gpu", "ok", "none; models run on the CPU")
    try:
        asked = subprocess.run(
            [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("gpu", "warn", f"nvidia-smi fails: {_line(error)}", "repair or reinstall the NVIDIA driver")
    cards = "; ".join(asked.stdout.strip().splitlines())
    if _version("torch") is None:
        return Finding("gpu", "warn", f"{cards}; torch is not installed", "pip install 'relay-dialogue[gpu]'")
    return Finding("gpu", "ok", cards)


def _onnxruntime() -> Finding:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name) is not None]
    if not both:
        return Finding("onnxruntime", "fail", "not installed", "pip install 'relay-dialogue[cpu]' (or [gpu])")
    if len(both) == 2:
        return Finding(
            "onnxruntime",
            "warn",
            "onnxruntime and onnxruntime-gpu are both installed; they are the same module",
            "pip uninstall onnxruntime onnxruntime-gpu, then install one of them",
        )
    try:
        import onnxruntime
    except ImportError as error:
        return Finding(
            "onnxruntime", "fail", f"does not import: {_line(error)}", f"pip install --force-reinstall {both[0]}"
        )
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    return Finding("onnxruntime", "ok", f"{onnxruntime.__version__}, providers: {providers}")


def _engines() -> list[Finding]:
    findings = []
    for kind, what in (("ears", "recogniser"), ("voice", "voice")):
        of_kind = [engine for engine in catalog.listing() if engine.kind == kind]
        usable = [engine.name for engine in of_kind if engine.missing is None]
        if usable:
            findings.append(Finding(kind, "ok", ", ".join(usable)))
        else:
            todo = "; or ".join(engine.missing or "" for engine in of_kind)
            findings.append(Finding(kind, "fail", f"no {what} is installed", todo))
    return findings


def _weights() -> list[Finding]:
    try:
        models = shipped()
    except RelayError as error:
        return [Finding("weights", "fail", str(error), "pip install --force-reinstall relay-dialogue")]
    damaged = [model for model in models if model.problem is not None]
    if damaged:
        todo = "pip install --force-reinstall relay-dialogue"
        return [Finding("weights", "fail", str(model.problem), todo) for model in damaged]
    return [Finding("weights", "ok", f"verified: {', '.join(model.name for model in models) or 'none shipped'}")]


def _path(models_dir: Path | None) -> Finding:
    """How `relay serve` makes replies here when it is not told. Models are loaded: each may be whole, and not fit."""

    async def load() -> None:
        async with fast.open_fast("relay", "cpu", models_dir, max_slots=1):
            pass

    try:
        fast.check("relay", models_dir, "auto")
        asyncio.run(load())
    except (WeightsError, EngineUnavailable) as error:
        todo = "repair or remove the models that it names, or pip install --force-reinstall relay-dialogue"
        return Finding("path", "warn", fast.why_cascade(error), todo)
    return Finding("path", "ok", "relay: the draft model begins replies where its verifier agrees")


def _sound() -> list[Finding]:
    files = "sound files work without it (talk --input and --output, say --out)"
    try:
        import sounddevice
    except ImportError:
        return [Finding("portaudio", "warn", "sounddevice is not installed", f"pip install sounddevice; {files}")]
    except OSError:
        todo = f"apt install libportaudio2, or brew install portaudio; {files}"
        return [Finding("portaudio", "warn", "the PortAudio library is missing", todo)]
    findings = [Finding("portaudio", "ok", sounddevice.get_portaudio_version()[1].split(",")[0])]
    for name, kind, role in (("microphone", "input", 0), ("loudspeaker", "output", 1)):
        of_kind = [d for d in sounddevice.query_devices() if d[f"max_{kind}_channels"] > 0]
        default = sounddevice.default.device[role]
        if not of_kind:
            findings.append(Finding(name, "warn", "none", f"connect one; {files}"))
            continue
        listed = "; ".join(f"{d['index']}{'*' if d['index'] == default else ''} {d['name']}" for d in of_kind)
        findings.append(Finding(name, "ok", f"{listed} (* default)"))
    return findings


def _port(port: int) -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            todo = "stop what listens there, or choose another: relay serve --port 0"
            return Finding("port", "warn", f"{port} is taken ({_line(error)})", todo)
    return Finding("port", "ok", f"{port} is free")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
