"""The exported draft model: its graphs compute what torch does on the same bytes, and hold no weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from relay_models import draft_export  # noqa: E402
from relay_models.draft import DraftModel, load_draft  # noqa: E402
from relay_models.draft_config import DRAFT, LISTEN  # noqa: E402
from relay_models.loading import locate, read_manifest  # noqa: E402
from relay_models.verifier import Verifier, VerifierConfig, save_verifier  # noqa: E402
from tests.models.draft.exported import SPEECH, packable_model, write_exported  # noqa: E402

pytestmark = pytest.mark.timeout(600)  # a busy machine takes minutes to export
ROWS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported(tmp_path_factory.mktemp("models") / "draft", packable_model())


@pytest.fixture(scope="module")
def model(folder: Path) -> DraftModel:
    return load_draft(folder)


def rings(model: DraftModel, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Rings as after many entries: nothing in them is zero."""
    fresh = model.fresh_tensors(ROWS)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in fresh.items() if tensor.dim() == 4}


def close(got: Any, wanted: torch.Tensor) -> None:
    """Activations are quantised to int8 inside the products: close, not equal."""
    np.testing.assert_allclose(got, wanted, atol=0.06 * wanted.abs().max().item())


@pytest.mark.parametrize("entries", [(0, 1, 2), (23, 24, 25), (47, 1000, 0)])
def test_the_graphs_compute_what_torch_does_on_the_same_bytes(
    folder: Path, model: DraftModel, entries: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(sum(entries))
    state = rings(model, generator)
    layers = len(model.layers())
    keys, values = list(state.values())[:layers], list(state.values())[layers:]
    previous, counts = torch.randint(0, 300, (ROWS,), generator=generator), torch.tensor(entries)
    common = {name: tensor.numpy() for name, tensor in {**state, "previous": previous, "entries": counts}.items()}
    speech, past = (torch.randn(ROWS, frames, SPEECH, generator=generator) for frames in (2, 1))
    with torch.no_grad():
        hidden, new = model.advance(model.heard(speech, past, previous), counts, keys, values)
        specials = model.specials(hidden)
    session = onnxruntime.InferenceSession(folder / LISTEN, providers=["CPUExecutionProvider"])
    got = session.run(("hidden", "specials", "new"), {"speech": speech.numpy(), "past": past.numpy(), **common})
    close(got[0], hidden)
    np.testing.assert_allclose(got[1], specials, atol=0.02)
    close(got[2], new)

    session = onnxruntime.InferenceSession(folder / DRAFT, providers=["CPUExecutionProvider"])
    free = torch.zeros(model.config.decoder.vocab_size, dtype=torch.bool)
    with torch.no_grad():
        hidden, new = model.advance(model.decoder.model.embed_tokens(previous), counts, keys, values)
        wanted = model.choose(hidden, free)
        scores = model.logits(hidden).log_softmax(-1)
    names = ("token", "log_probability", "entropy", "margin", "hidden", "new")
    token, score, entropy, margin, *rest = session.run(names, {"banned": free.numpy(), **common})
    close(rest[0], hidden)
    close(rest[1], new)
    # Where two tokens are about as likely, either may win.
    assert (scores.max(-1).values - scores[range(ROWS), torch.from_numpy(token)]).max() < 0.2
    for ours, its in ((score, wanted.log_probability), (entropy, wanted.entropy), (margin, wanted.margin)):
        np.testing.assert_allclose(ours, its, atol=0.15)
    banned = free.clone()
    banned[torch.from_numpy(token)] = True
    (other,) = session.run(("token",), {"banned": banned.numpy(), **common})
    assert not set(other.tolist()) & set(token.tolist()), "what is banned is not said"


def test_the_graphs_hold_no_weights_and_the_embedding_is_stored_once(folder: Path, model: DraftModel) -> None:
    layers = model.config.decoder.num_hidden_layers
    for name, others in ((LISTEN, 2), (DRAFT, 0)):  # the adapter's two
        graph = onnx.load(folder / name, load_external_data=False).graph
        inside = [i for i in graph.initializer if i.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(len(i.SerializeToString()) for i in inside) < 5_000
        assert len([node for node in graph.node if node.op_type == "MatMulNBits"]) == layers * 7 + 1 + others
        tables = [i.name for i in graph.initializer if tuple(i.dims)[:1] == (model.config.decoder.vocab_size,)]
        assert len(tables) == 2, "packed and scales"
        assert not any(node.doc_string or node.metadata_props for node in graph.node)


def test_the_command_ships_model_and_verifier(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_verifier(Verifier(VerifierConfig(hidden_size=48, size=16)), tmp_path / "judge")
    out = tmp_path / "weights" / "draft"
    report = tmp_path / "report.json"
    report.write_text('{"trust": {"turn_ends": {"weight": 0.75, "bias": 1.5}, "stops": {"weight": 1.0, "bias": 0.0}}}')
    for verifier in (tmp_path / "judge", out.parent / "verifier"):  # where it lies already, it stays
        command = ["draft_export", folder, out, "--verifier", verifier, "--ship", "--turn-ends", report]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        draft_export.main()
    assert "draft: in all" in capsys.readouterr().out
    assert {name: entry.kind for name, entry in read_manifest(out.parent).items()} == {
        "draft": "draft",
        "verifier": "verifier",
    }
    assert locate("draft", out.parent) == out
    assert locate("verifier", out.parent) == out.parent / "verifier"
    config = json.loads((folder / "config.json").read_text())
    assert config["turn_ends"] == config["stops"] == {"weight": 0.0, "bias": 0.0}
    assert json.loads((out / "config.json").read_text()) == config | {"turn_ends": {"weight": 0.75, "bias": 1.5}}
    packed = load_draft(folder).state_dict()  # what is packed already stays as it is
    for name, tensor in load_draft(out).state_dict().items():
        torch.testing.assert_close(packed[name], tensor)
