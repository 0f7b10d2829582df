from __future__ import annotations

import importlib.util

import pytest

from relay.engine import catalog
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.pocketsphinx_ears import PocketsphinxRunner
from relay.errors import EngineUnavailable, UsageError


@pytest.mark.parametrize("name", ["pocketsphinx", "baseline", "auto"])
def test_recognisers_by_name(name: str) -> None:
    assert isinstance(catalog.ears(name), PocketsphinxRunner)


@pytest.mark.parametrize("name", ["espeak", "baseline", "auto"])
def test_voices_by_name(name: str) -> None:
    assert isinstance(catalog.voice(name), EspeakRunner)


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="no ears engine 'espeak': choose one of auto, pocketsphinx, baseline"):
        catalog.ears("espeak")


@pytest.mark.parametrize("name", ["espeak", "auto"])
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'relay-dialogue\[baseline\]'"):
        catalog.voice(name)
    assert all(entry.missing for entry in catalog.listing())


def test_listing() -> None:
    assert [(entry.kind, entry.name) for entry in catalog.listing()] == [("ears", "pocketsphinx"), ("voice", "espeak")]
    assert all(entry.missing is None for entry in catalog.listing())
