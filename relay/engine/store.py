"""Models of one's own: a folder of checkpoints that were pulled from a hub or imported, with checksums.

The layout is that of the shipped weights: a folder each, and manifest.json with the SHA-256 of every file.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from relay.errors import ConnectionFailed, EngineUnavailable, UsageError, WeightsError
from relay_models import loading
from relay_models.ears_folder import PUBLISHED, open_folder

KNOWN = {"nemotron": "nvidia/nemotron-speech-streaming-en-0.6b"}
"""Published checkpoints with a short name."""
WANTED = ("*.json", "*.safetensors", "*.onnx", "LICENSE*", "README.md")
"""Files that are taken; nothing that would have to be unpickled."""
REMEDY = "import or pull it again"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Stored:
    """A model of one's own.

    Attributes:
        name: Its name.
        kind: What it is for.
        summary: One line about it.
        licence: SPDX expression, or what is known of it.
        size_bytes: Of all its files.
        path: Its folder.
    """

    name: str
    kind: str
    summary: str
    licence: str
    size_bytes: int
    path: Path


class ModelStore:
    """The folder.

    Args:
        root: Made when the first model comes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[Stored]:
        """All models, by name. Raises WeightsError when the manifest is damaged."""
        if not (self.root / loading.MANIFEST).exists():
            return []
        try:
            found = loading.read_manifest(self.root, remedy=f"mend or remove {self.root / loading.MANIFEST}")
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error
        return [
            Stored(m.name, m.kind, m.summary, m.licence, m.size_bytes, self.root / m.name)
            for m in sorted(found.values(), key=lambda m: m.name)
        ]

    def find(self, name: str) -> Stored | None:
        """A model by its name, its short name or the hub's name for it."""
        wanted = stored_name(KNOWN.get(name, name)) if name in KNOWN or is_hub_name(name) else name
        return next((model for model in self.models() if model.name == wanted), None)

    def locate(self, model: Stored) -> Path:
        """Its folder, every file checked. Raises WeightsError when one is missing or differs."""
        try:
            return loading.locate(model.name, self.root, remedy=REMEDY)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error

    def add(self, folder: Path, name: str | None = None, *, source: str | None = None) -> Stored:
        """Copies a recogniser's folder in, replacing a model of the same name.

        Args:
            folder: In a supported layout.
            name: Name to give it; by default the folder's.
            source: Where it came from, for its summary.

        Raises:
            UsageError: The name is none.
            WeightsError: The folder holds no recogniser in a supported layout.
        """
        name = name or folder.resolve().name
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name for a model; give one of letters, digits, . - _ with --as")
        try:
            checked = open_folder(folder)
        except loading.WeightsError as error:
            raise WeightsError(str(error).replace(loading.REINSTALL, "import a folder with a recogniser")) from error
        files = sorted({path for pattern in WANTED for path in folder.glob(pattern) if path.is_file()})
        if not any(path.suffix == ".safetensors" for path in files):
            raise WeightsError(f"{folder} holds no .safetensors file; weights in other formats are not read")
        self.root.mkdir(parents=True, exist_ok=True)
        # Copied beside and then renamed, so that an interrupted copy is never taken for a model.
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".incoming-") as incoming:
            new = Path(incoming) / name
            new.mkdir()
            for path in files:
                shutil.copyfile(path, new / path.name)
            layout = "published layout" if checked.model_type == PUBLISHED else "own layout"
            summary = f"recogniser, {layout}, from {source or folder.resolve()}"
            entry = loading.describe(name, new, kind="ears", summary=summary, licence=_licence(new))
            if (self.root / name).exists():
                shutil.rmtree(self.root / name)
            new.rename(self.root / name)
        loading.add_to_manifest(name, entry, self.root)
        found = self.find(name)
        assert found is not None
        return found

    def pull(self, name: str, *, as_name: str | None = None, endpoint: str | None = None) -> Stored:
        """Downloads a checkpoint from a hub.

        Args:
            name: A short name of `KNOWN`, or the hub's name for it, `owner/model`.
            as_name: Name to give it here; by default the last part of the hub's name.
            endpoint: URL of the hub; by default huggingface_hub's own choice.

        Raises:
            UsageError: The name is neither.
            EngineUnavailable: huggingface_hub is not installed.
            ConnectionFailed: The hub cannot be reached or has no such model.
            WeightsError: What came is no recogniser in a supported layout.
        """
        repository = KNOWN.get(name, name)
        if not is_hub_name(repository):
            raise UsageError(f"{name!r} is no model to pull; give {', '.join(sorted(KNOWN))} or a hub's OWNER/MODEL")
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise EngineUnavailable("pulling needs huggingface_hub: pip install 'relay-dialogue[hub]'") from error
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".incoming-") as incoming:
            try:
                snapshot_download(repository, local_dir=incoming, allow_patterns=list(WANTED), endpoint=endpoint)
            except Exception as error:  # the library passes on those of its HTTP client, too
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise ConnectionFailed(
                    f"{repository} cannot be pulled ({reason}); check the network and the name, or fetch the files "
                    "elsewhere and run `relay models import FOLDER`"
                ) from error
            return self.add(Path(incoming), as_name or stored_name(repository), source=repository)


def is_hub_name(name: str) -> bool:
    """Whether a name looks like OWNER/MODEL."""
    owner, slash, model = name.partition("/")
    return bool(slash and _NAME.fullmatch(owner) and _NAME.fullmatch(model))


def stored_name(repository: str) -> str:
    """Name of a hub's model here."""
    return repository.rpartition("/")[2]


def _licence(folder: Path) -> str:
    """What the model card's header says."""
    card = folder / "README.md"
    if card.exists():
        found = re.search(r"^license(?:_name)?:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.M)
        if found:
            return found[1]
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("license") or "see its source"
