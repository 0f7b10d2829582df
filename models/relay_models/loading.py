"""Shipped weights: a manifest, files checked by SHA-256 before use, and where tensors lie in a safetensors file."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHTS_DIR = Path(__file__).parent / "weights"
MANIFEST = "manifest.json"
REINSTALL = "install Relay again"


class WeightsError(Exception):
    """Weights are missing, damaged, or of another layout than expected. `str(error)` says what to do."""


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """One file of a shipped model.

    Attributes:
        name: File name inside the model's folder.
        size_bytes: Its size.
        sha256: Its SHA-256, in hexadecimal.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """One model of the manifest.

    Attributes:
        name: Name and folder.
        kind: What it is for: `brain`, `ears`, `voice` ...
        summary: One line for people.
        licence: SPDX expression of the weights.
        files: Its files.
    """

    name: str
    kind: str
    summary: str
    licence: str
    files: tuple[ShippedFile, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)


def read_manifest(root: Path = WEIGHTS_DIR, *, remedy: str = REINSTALL) -> dict[str, ShippedModel]:
    """All models of a folder of models by name. Raises WeightsError when the manifest is missing or malformed."""
    try:
        listed = json.loads((root / MANIFEST).read_text(encoding="utf-8"))["models"]
        return {
            name: ShippedModel(
                name=name,
                kind=entry["kind"],
                summary=entry["summary"],
                licence=entry["licence"],
                files=tuple(ShippedFile(f["name"], f["size_bytes"], f["sha256"]) for f in entry["files"]),
            )
            for name, entry in listed.items()
        }
    except OSError as error:
        raise WeightsError(f"the list of weights is missing ({error}); {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"the list of weights is damaged ({error!r}); {remedy}") from error


def describe(name: str, folder: Path, *, kind: str, summary: str, licence: str = "Apache-2.0") -> dict[str, Any]:
    """The manifest entry of a folder of finished files."""
    files = [
        {"name": path.name, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    ]
    return {"kind": kind, "summary": summary, "licence": licence, "files": files}


def add_to_manifest(name: str, entry: dict[str, Any], root: Path = WEIGHTS_DIR) -> None:
    """Writes one model's entry into the manifest, leaving the others as they are."""
    path = root / MANIFEST
    manifest: dict[str, Any] = {"format": 1, "models": {}}
    if path.exists():
        manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["models"][name] = entry
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(name: str, root: Path = WEIGHTS_DIR, *, remedy: str = REINSTALL) -> Path:
    """Folder of a model, every file of it checked against the manifest once a process.

    Args:
        name: The model.
        root: Folder of models with their manifest; by default that of the shipped ones.
        remedy: What to do about damage, for the error's message.

    Raises:
        WeightsError: The model is unknown, or a file is missing or differs.
    """
    models = read_manifest(root, remedy=remedy)
    if name not in models:
        raise WeightsError(f"no model there is called {name!r}; there are: {', '.join(sorted(models)) or 'none'}")
    for file in models[name].files:
        path = root / name / file.name
        try:
            stat = path.stat()
            digest = _digest(path, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise WeightsError(f"the weights file {name}/{file.name} is missing; {remedy}") from error
        if digest != file.sha256:
            raise WeightsError(f"the weights file {name}/{file.name} is damaged; {remedy}")
    return root / name


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size_bytes: int, changed_ns: int) -> str:
    """SHA-256 of a file, computed again only when its size or time changed."""
    return sha256_of(path)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json. Raises WeightsError when it is missing or no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"config.json of {folder.name} cannot be read ({error}); install Relay again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"config.json of {folder.name} is no JSON object; install Relay again")
    return config


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where one tensor lies in a safetensors file.

    Attributes:
        dtype: Safetensors name of its type, e.g. `F32`, `U8`.
        shape: Its shape.
        offset: First byte, from the beginning of the file.
        length: Number of bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """Every tensor's place in a safetensors file: 8 bytes of header length, a JSON header, then the data.

    Raises:
        WeightsError: The file is missing or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (header_length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_length))
        return {
            name: TensorPlace(
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                offset=8 + header_length + entry["data_offsets"][0],
                length=entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise WeightsError(f"{path.name} cannot be read as safetensors ({error}); install Relay again") from error
