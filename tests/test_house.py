"""The rules that keep the house a house: arrows between rooms go down, and only the door reads argv and environment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for folder in ("relay", "models", "benchmarks") for p in (ROOT / folder).rglob("*.py"))

# Who may not import what: prefix of the importing module -> prefixes it must not reach, directly or through others.
FORBIDDEN = {
    "relay_models": ("relay.", "relay_benchmarks"),
    "relay.wire": (
        "asyncio",
        "websockets",
        "torch",
        "relay.server",
        "relay.session",
        "relay.stages",
        "relay.engine.engine",
    ),
    "relay.turn": ("asyncio", "websockets", "torch", "relay."),
    "relay.endpoint": ("asyncio", "websockets", "torch", "relay."),
    "relay.heard": ("asyncio", "websockets", "torch", "relay.session"),
    "relay.channel": ("websockets", "torch", "relay."),
    "relay.engine.batcher": ("asyncio", "websockets", "torch", "relay."),
    "relay.engine": ("websockets", "relay.stages", "relay.session", "relay.server", "relay.wire", "relay.client"),
    "relay.stages": ("websockets", "relay.session", "relay.server", "relay.wire"),
    "relay.brains": ("websockets", "relay.stages", "relay.session", "relay.server", "relay.wire", "relay.client"),
    "relay.session": ("websockets", "relay.server", "relay.client"),
    "relay.client": ("relay.server", "relay.session", "relay.stages"),
}
DIRECT_ONLY = ("torch", "asyncio", "websockets")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] in ("models", "benchmarks") else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name: str, prefix: str) -> bool:
    return name == prefix.rstrip(".") or name.startswith(prefix.rstrip(".") + ".")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_go_down(path: Path) -> None:
    name = name_of(path)
    for room, banned in FORBIDDEN.items():
        if not is_in(name, room):
            continue
        for target in imports_of(path):
            for prefix in banned:
                own_data = room in ("relay.turn", "relay.endpoint", "relay.channel", "relay.engine.batcher")
                if prefix == "relay." and not own_data and not target.startswith("relay."):
                    continue
                assert not (is_in(target, prefix)), f"{name} may not import {target}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_door_reads_argv_and_environment(path: Path) -> None:
    if name_of(path) in ("relay.cli", "relay.__main__") or name_of(path).startswith("relay_models.training"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read = f"{node.value.id}.{node.attr}"
            assert read not in ("os.environ", "os.getenv", "sys.argv"), f"{path}:{node.lineno} reads {read}"


def test_the_light_install_needs_no_torch() -> None:
    """Whatever the server imports when it starts on a CPU loads without torch."""
    light = [
        p for p in SOURCES if name_of(p).startswith("relay") and not name_of(p).startswith(("relay_models.training",))
    ]
    for path in light:
        name = name_of(path)
        if name.startswith("relay.") and name != "relay.engine.torch_runner":
            assert "torch" not in imports_of(path, top_level_only=True), f"{name} imports torch when it is imported"


def test_no_pickle_anywhere() -> None:
    for path in SOURCES:
        assert not imports_of(path) & {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}, path
