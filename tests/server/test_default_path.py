"""How replies are made when nobody says how: by the relay, or by the cascade where its models cannot be loaded."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.commands.bench_paths import path_flags, path_of
from relay.config import Path_
from relay.errors import ConnectionFailed, RelayError, UsageError, WeightsError
from relay.server import models
from relay_models import loading
from relay_models.draft_config import DRAFT

Serving = Callable[..., Any]


async def offered(serving: Serving, **config: Any) -> list[str]:
    """What a session may ask for, after it has been answered."""
    async with serving(**config) as stand, stand.client() as client:
        await client.send(type="session.update", session={"type": "realtime", "relay": {}})
        paths: list[str] = (await client.wait_for("session.updated"))["session"]["relay"]["paths"]
        assert (await client.text_turn())["status"] == "completed"
        assert await path_of(stand.server.url) == paths[0]
        return paths


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A version of Relay that does not ship these models."""
    shipped = {name: model for name, model in loading.read_manifest().items() if name not in names}
    monkeypatch.setattr(loading, "read_manifest", lambda *_, **__: shipped)


def test_the_relay_where_nobody_asks(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    """Another recogniser listens here: the draft model hears through an encoder pass of its own."""
    assert asyncio.run(offered(serving, path=None)) == ["relay", "cascade", "draft"]
    assert warnings(caplog) == []


@pytest.mark.parametrize("missing", ["draft", "verifier", "ears"])
def test_the_cascade_where_a_model_is_missing_and_it_says_so(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    without(monkeypatch, missing)
    assert asyncio.run(offered(serving, path=None)) == ["cascade"]
    (warning,) = warnings(caplog)
    assert warning == (
        "replies are made by the language model alone (--path cascade): the path relay needs the weights of the "
        f"{missing} model, which this version does not ship and which are not in $RELAY_HOME/models"
    )
    with pytest.raises(
        WeightsError, match=f"the path relay needs the weights of the {missing} model.*; or use --path casc"
    ):
        asyncio.run(offered(serving, path="relay"))
    with pytest.raises(UsageError, match=f"the {missing} model.*; or use --path cascade"):
        path_flags("relay", None)


@pytest.mark.parametrize(
    ("name", "file"), [("draft", DRAFT), ("verifier", "model.safetensors"), ("ears", "config.json")]
)
def test_the_cascade_where_a_model_does_not_load(
    serving: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, file: str
) -> None:
    shutil.copytree(loading.locate(name), tmp_path / name)
    (tmp_path / name / file).write_bytes(b"no such thing")
    assert asyncio.run(offered(serving, path=None, models_dir=tmp_path)) == ["cascade"]
    (warning,) = warnings(caplog)
    assert file in warning
    assert "\n" not in warning
    with pytest.raises(RelayError, match=file):
        asyncio.run(offered(serving, path="relay", models_dir=tmp_path))


def test_sessions_beyond_those_that_the_draft_model_listens_to_are_answered_all_the_same(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_FAST_SESSIONS", {"cpu": 1, "cuda": 1})

    async def main() -> None:
        async with serving(path=None) as stand, stand.client() as first, stand.client() as second:
            for client in (first, second):
                assert (await client.text_turn())["status"] == "completed"
                await client.append(bytes(2 * 24_000))
                assert (await client.text_turn())["status"] == "completed"

    asyncio.run(main())


@pytest.mark.parametrize("path", ["cascade", "draft"])
def test_another_path_where_it_is_asked_for(serving: Serving, path: Path_) -> None:
    paths = asyncio.run(offered(serving, path=path))
    assert paths == (["cascade"] if path == "cascade" else ["draft", "cascade"])
    assert path_flags(path, None) == ("--path", path)
    assert path_flags(None, None) == ()


def test_a_server_that_is_not_there_has_no_path() -> None:
    with pytest.raises(ConnectionFailed):
        asyncio.run(path_of("ws://127.0.0.1:9"))
