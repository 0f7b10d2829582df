from pathlib import Path

import numpy as np
import pytest
import torch

from relay_models.decoder import Decoder, DecoderConfig, load_packed_decoder
from relay_models.loading import WeightsError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

CONFIG = DecoderConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from relay_models.training.brain_export import write_packed

    torch.manual_seed(0)
    decoder = Decoder(CONFIG)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder: Path = tmp_path_factory.mktemp("brain")
    write_packed(dict(decoder.state_dict()), CONFIG, folder)
    return folder


def test_the_graph_computes_what_torch_does_on_the_same_bytes(folder: Path) -> None:
    decoder = load_packed_decoder(folder)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for span, time in ((0, 1), (0, 7), (9, 1), (9, 4)):
        tokens = torch.randint(0, CONFIG.vocab_size, (3, time), generator=generator)
        entries = torch.randn(3, span, *CONFIG.entry_shape, generator=generator).half()
        lengths = torch.tensor([span, span // 2, 0])
        counts = torch.tensor([time, max(1, time // 2), 1])
        with torch.no_grad():
            expected = decoder.advance(tokens, entries, lengths, counts)
        given = {"tokens": tokens, "entries": entries, "lengths": lengths, "counts": counts}
        logits, new = session.run(("logits", "new_entries"), {name: tensor.numpy() for name, tensor in given.items()})
        # Activations are quantised to int8 inside the product: close, not equal.
        scale = expected[0].abs().max().item()
        np.testing.assert_allclose(logits, expected[0], atol=0.03 * scale)
        assert new.dtype == np.float16
        np.testing.assert_allclose(new, expected[1], atol=0.05 * expected[1].abs().max().item())


def test_the_graph_holds_no_weights(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    inside = [i for i in model.graph.initializer if i.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(len(i.SerializeToString()) for i in inside) < 10_000
    assert {e.value for i in model.graph.initializer for e in i.external_data if e.key == "location"} == {
        "model.safetensors"
    }
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == CONFIG.num_hidden_layers * 7 + 1
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_the_tied_embedding_is_stored_once(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    (table,) = (i.name for i in model.graph.initializer if tuple(i.dims) == (CONFIG.vocab_size, 1, 64))
    assert {node.op_type for node in model.graph.node if table in node.input} == {"GatherND", "MatMulNBits"}


def test_other_bytes_are_refused() -> None:
    from relay_models.export import _point_into
    from relay_models.loading import TensorPlace

    initializer = onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), "x")
    with pytest.raises(WeightsError, match="x has another shape or type"):
        _point_into(initializer, TensorPlace("F32", (2, 3), 0, 24), "w.safetensors")
