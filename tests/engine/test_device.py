"""Where models run, and what they take there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from relay.engine import device


@pytest.mark.parametrize(("runs_there", "taken"), [(True, 4096), (False, 0)])
def test_gpu_memory_is_asked_for_only_where_a_model_runs_on_one(
    monkeypatch: pytest.MonkeyPatch, runs_there: bool, taken: int
) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: runs_there, memory_allocated=lambda: 4096)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert device.memory_bytes() == taken
    monkeypatch.delitem(sys.modules, "torch")
    assert device.memory_bytes() == 0
