"""Models of one's own: imported from folders, and pulled from a hub that is a real HTTP server on this machine."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from relay.engine.store import ModelStore
from relay.errors import ConnectionFailed, UsageError, WeightsError

pytest.importorskip("huggingface_hub")

REPOSITORY = "somebody/some-ears"
REVISION = "5" * 40
FILES = {
    "config.json": json.dumps({"model_type": "nemotron_asr_streaming"}).encode(),
    "model.safetensors": bytes(range(256)) * 40,
    "tokenizer.json": b"{}",
    "README.md": b"---\nlicense: cc-by-4.0\n---\n# Some ears\n",
    "pytorch_model.bin": b"a pickle",
    "train.py": b"print()",
}


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as one repository needs."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        headers = {"Content-Type": "application/json", "X-Repo-Commit": REVISION}
        if path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            siblings = [{"rfilename": name} for name in FILES]
            status, data = 200, json.dumps({"id": REPOSITORY, "sha": REVISION, "siblings": siblings}).encode()
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in FILES.items()]
            status, data = 200, json.dumps(tree).encode()
        elif path.startswith(f"/{REPOSITORY}/resolve/{REVISION}/") and (name := path.rpartition("/")[2]) in FILES:
            status, data = 200, FILES[name]
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            if body:
                self.asked.append(name)
        else:
            status, data = 404, b'{"error": "Repository not found"}'
            headers["X-Error-Code"] = "RepoNotFound"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hub, "asked", [], raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def checkpoint(path: Path) -> Path:
    path.mkdir(parents=True)
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    return path


def test_a_checkpoint_is_pulled_and_checked(hub: str, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    pulled = store.pull(REPOSITORY, endpoint=hub)
    assert (pulled.name, pulled.licence) == ("some-ears", "cc-by-4.0")
    assert REPOSITORY in pulled.summary
    assert store.models() == [pulled]
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert {path.name for path in store.locate(pulled).iterdir()} == wanted
    assert set(Hub.asked) == wanted  # nothing that would have to be unpickled is even fetched
    assert (pulled.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert sorted(path.name for path in store.root.iterdir()) == ["manifest.json", "some-ears"]


def test_a_pulled_checkpoint_can_have_another_name(hub: str, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.pull(REPOSITORY, as_name="mine", endpoint=hub).name == "mine"
    assert store.find("mine") is not None


def test_a_model_that_the_hub_has_not(hub: str, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(ConnectionFailed, match=r"nobody/nothing cannot be pulled .*relay models import FOLDER"):
        store.pull("nobody/nothing", endpoint=hub)
    assert store.models() == []
    assert list(store.root.iterdir()) == []


def test_without_a_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionFailed, match="check the network") as raised:
        ModelStore(tmp_path).pull(REPOSITORY, endpoint=f"http://127.0.0.1:{port}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["some-ears", "/etc/passwd", "a/b/c", "../x/y", "http://example.org/x"])
def test_what_is_no_hub_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="OWNER/MODEL"):
        ModelStore(tmp_path).pull(name)


def test_a_folder_is_imported(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    model = store.add(checkpoint(tmp_path / "ears-1"))
    assert (model.name, model.kind) == ("ears-1", "ears")
    assert store.add(tmp_path / "ears-1", "ears-2").name == "ears-2"
    assert [found.name for found in store.models()] == ["ears-1", "ears-2"]
    (tmp_path / "ears-1" / "model.safetensors").write_bytes(b"newer")
    again = store.add(tmp_path / "ears-1")
    assert (store.locate(again) / "model.safetensors").read_bytes() == b"newer"


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "a b"])
def test_names_that_would_leave_the_folder(tmp_path: Path, name: str) -> None:
    folder = checkpoint(tmp_path / "ears-1")
    if not name:
        name = " "
    with pytest.raises(UsageError, match="--as"):
        ModelStore(tmp_path / "models").add(folder, name)


def test_folders_that_hold_no_recogniser(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(WeightsError, match="import a folder with a recogniser"):
        store.add(tmp_path)
    folder = checkpoint(tmp_path / "ears-1")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        store.add(folder)
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(WeightsError, match="'whisper'"):
        store.add(folder)
    assert store.models() == []


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        ModelStore(tmp_path).models()
