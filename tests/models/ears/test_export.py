"""Packing and exporting a recogniser: one file of int8 weights, and graphs that compute what torch does on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from relay_models import ears_export, loading  # noqa: E402
from relay_models.ears import load_ears  # noqa: E402
from relay_models.ears_chunk import ChunkStep  # noqa: E402
from relay_models.ears_export import pack_ears  # noqa: E402
from relay_models.ears_folder import graph_name, load_pieces, load_transducer, open_folder  # noqa: E402
from relay_models.framing import ENDLESS, chunk_samples  # noqa: E402
from relay_models.host_transducer import HostTransducer  # noqa: E402
from relay_models.loading import WeightsError, tensor_places  # noqa: E402
from relay_models.state import StreamState  # noqa: E402
from tests.engine.ears_models import PIECES, small_ears, write_trained  # noqa: E402
from tests.models.ears.tiny import bursts  # noqa: E402


def session(exported_ears: Path, right: int) -> object:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(exported_ears / graph_name(right), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_graph_computes_what_torch_does_on_the_same_bytes(exported_ears: Path, right: int, rows: int) -> None:
    """State is carried through twenty chunks; int8 products round activations, which torch here does not."""
    chunk = ChunkStep(load_ears(exported_ears), right)
    graph = session(exported_ears, right)
    state = StreamState(chunk.fresh_tensors(rows))
    feed = {name: tensor.numpy().copy() for name, tensor in state.tensors.items()}
    names = [output.name for output in graph.get_outputs()]  # type: ignore[attr-defined]
    samples = chunk_samples(right)
    pcm = bursts(rows, 20 * samples)
    total = 19 * samples + 700  # the last chunk is not whole
    for number in range(20):
        part = pcm[:, number * samples : (number + 1) * samples]
        is_last = number == 19
        counts = torch.full((rows,), 700 if is_last else samples)
        lengths = torch.full((rows,), total // 160 - 6 if is_last else ENDLESS)
        with torch.no_grad():
            expected = chunk(part, counts, lengths, state, torch.ones(rows, dtype=torch.bool))
        inputs = {"pcm": part.numpy(), "counts": counts.numpy(), "lengths": lengths.numpy(), **feed}
        outputs = dict(zip(names, graph.run(None, inputs), strict=True))  # type: ignore[attr-defined]
        feed = {name: outputs[f"new.{name}"] for name in feed}
        assert (outputs["valid"] == expected.valid.numpy()).all()
        assert expected.ends is not None
        assert np.abs(outputs["ends"] - expected.ends.numpy()).max() < 0.05
        error = np.abs(outputs["frames"] - expected.frames.numpy()).max()
        assert error < 0.15, f"chunk {number}"
        assert np.abs(expected.frames.numpy()).mean() > 0.5
    assert (feed["encoder.position"] == 20 * (right + 1)).all()


def test_weights_ship_once(exported_ears: Path) -> None:
    """Each tensor of any size that is not decoded with lies in the one file, and every graph points at it."""
    places = tensor_places(exported_ears / "model.safetensors")
    large = {name: place.offset for name, place in places.items() if np.prod(place.shape) > 64}
    expected = {offset for name, offset in large.items() if not name.startswith(("predictor.", "joint."))}
    assert len(expected) > 30
    for right in (0, 1):
        graph = onnx.load(exported_ears / graph_name(right), load_external_data=False).graph
        entries = [entry for initializer in graph.initializer for entry in initializer.external_data]
        assert {entry.value for entry in entries if entry.key == "location"} == {"model.safetensors"}
        assert {int(entry.value) for entry in entries if entry.key == "offset"} >= expected
        text = (exported_ears / graph_name(right)).read_bytes()
        assert b"site-packages" not in text
        assert b"relay_models" not in text


def test_matrices_are_packed_and_the_rest_is_half(exported_ears: Path) -> None:
    tensors = load_file(exported_ears / "model.safetensors")
    assert not any(name.startswith("ctc.") for name in tensors)
    assert tensors["encoder.blocks.0.feed_forward1.linear1.packed"].dtype == np.uint8
    assert tensors["encoder.blocks.0.norm_out.weight"].dtype == np.float16
    assert tensors["encoder.blocks.0.attention.content_bias"].dtype == np.float16
    assert tensors["features.filters"].dtype == np.float32
    config = json.loads((exported_ears / "config.json").read_text())
    assert (config["ctc"], config["middle"], config["end"]) == (False, 0, True)


def test_packing_loses_little(exported_ears: Path) -> None:
    model, packed = small_ears(), load_ears(exported_ears)
    weights = packed.state_dict()
    for name, weight in model.state_dict().items():
        if not name.startswith("ctc."):
            assert (weights[name] - weight).abs().max() <= weight.abs().max() / 127, name


def test_the_decoder_reads_the_same_file_without_torch(exported_ears: Path) -> None:
    exact = {name: tensor.numpy() for name, tensor in load_ears(exported_ears).state_dict().items()}
    config = load_ears(exported_ears).config.transducer
    other = HostTransducer.from_tensors(config, exact)
    transducer = load_transducer(open_folder(exported_ears))
    for ours, theirs in zip(transducer.start(), other.start(), strict=True):
        assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
    assert load_pieces(exported_ears) == PIECES


def test_what_is_packed_of_odd_sizes() -> None:
    model = small_ears(inner=50)
    packed = pack_ears(model)
    assert packed["encoder.blocks.0.feed_forward1.linear2.weight"].dtype == np.float16  # no block divides 50
    assert packed["encoder.blocks.0.feed_forward1.linear1.packed"].shape == (50, 1, 32)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_trained(tmp_path / "trained", small_ears(layers=1))
    out = tmp_path / "weights" / "ears"
    argv = [
        "ears_export",
        str(tmp_path / "trained"),
        str(out),
        "--decoding",
        '{"beam": 2}',
        "--ship",
        "--lookahead-ms",
        "0",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    ears_export.main()
    assert "MB  in all" in capsys.readouterr().out
    assert loading.locate("ears", tmp_path / "weights") == out
    assert open_folder(out).rights == (0, 1)
    assert open_folder(out).config["decoding"] == {"beam": 2}
    monkeypatch.setattr(sys, "argv", [*argv[:-1], "480"])
    with pytest.raises(SystemExit):
        ears_export.main()
    assert "80, 0 ms" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{}", '{"model_type": "relay_ears"}', '{"model_type": "relay_ears", "transducer": {}}']
)
def test_a_config_of_something_else(exported_ears: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json|model\.safetensors"):
        load_transducer(open_folder(tmp_path))
