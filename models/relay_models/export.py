"""Models as ONNX graphs without weights: their initialisers point into the safetensors file beside the graph.

A module's matrices are first put behind `PackedLinear` and `PackedEmbedding`, which compute on the packed int8 of
`quantize.py`. Traced, a packed product becomes one `com.microsoft::MatMulNBits` node; a packed embedding becomes a
gather and a multiplication over the same bytes. So both runners read one file, and weights ship once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from relay_models.loading import TensorPlace, WeightsError, tensor_places
from relay_models.quantize import PACKED, SCALES, ZERO_POINT

ACCURACY_LEVEL = 4
"""MatMulNBits multiplies in int8: activations are quantised block by block (4); 0 would keep them in float32."""
_FOLDED_ELEMENTS = 64  # more are no constant but a weight, or cheaply computed when the graph is loaded


def dequantized(packed: Tensor, scales: Tensor) -> Tensor:
    """Packed [..., blocks, block] uint8 and scales [..., blocks] -> float32 [..., blocks * block]."""
    return ((packed.float() - ZERO_POINT) * scales[..., None]).flatten(-2)


class PackedLinear(nn.Module):
    """A linear layer over packed weights.

    Args:
        packed: [N, K/block, block] uint8.
        scales: [N, K/block] float32.
        bias: [N] float32, or None.
    """

    packed: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, packed: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer(PACKED, packed)
        self.register_buffer(SCALES, scales)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        y = self._node(x) if torch.onnx.is_in_onnx_export() else x @ dequantized(self.packed, self.scales).T
        return y if self.bias is None else y + self.bias

    def _node(self, x: Tensor) -> Tensor:
        rows, blocks, block = self.packed.shape
        node: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            (x, self.packed, self.scales),
            attrs={
                "N": rows, "K": blocks * block, "bits": 8, "block_size": block, "accuracy_level": ACCURACY_LEVEL,
            },
            dtype=x.dtype,
            shape=(*x.shape[:-1], rows),
            version=1,
        )  # fmt: skip
        return node


class PackedEmbedding(nn.Module):
    """An embedding over packed weights; shapes as in `PackedLinear`."""

    packed: Tensor
    scales: Tensor

    def __init__(self, packed: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer(PACKED, packed)
        self.register_buffer(SCALES, scales)

    def forward(self, index: Tensor) -> Tensor:
        """[...] int64 -> [..., K]."""
        return dequantized(self.packed[index], self.scales[index])


def use_packed(module: nn.Module, tensors: Mapping[str, Tensor], *, tied: Mapping[str, str] | None = None) -> None:
    """Replaces, in place, every linear layer and embedding whose packed weights are among the tensors.

    Args:
        module: The model, in its own names.
        tensors: Of a packed safetensors file.
        tied: Modules that share another's weights: name -> name of the one that holds them.
    """
    for name, child in list(module.named_modules()):
        stem = (tied or {}).get(name, name)
        if f"{stem}.{PACKED}" not in tensors:
            continue
        packed, scales = tensors[f"{stem}.{PACKED}"], tensors[f"{stem}.{SCALES}"]
        replacement = (
            PackedEmbedding(packed, scales)
            if isinstance(child, nn.Embedding)
            else PackedLinear(packed, scales, tensors.get(f"{name}.bias"))
        )
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, replacement)


def export_graph(
    module: nn.Module,
    arguments: Sequence[Any],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Any],
    weights: Path,
    graph: Path,
    tied: Mapping[str, str] | None = None,
) -> None:
    """Traces a packed module and writes its graph beside its weights.

    Args:
        module: Its parameters and buffers carry the names of tensors in `weights`, or are small constants.
        arguments: Example inputs, in order; one may be a list of tensors.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        dynamic: Dimensions that vary, by `forward`'s argument: {dimension: its name}, or a list of them for a list.
        weights: Safetensors file.
        graph: ONNX file to write, in the same folder.
        tied: Modules whose tensors have another's names in `weights`: name -> name there.
    """
    places = tensor_places(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter uses what torch itself is about to drop
        program = torch.onnx.export(
            module.eval(),
            tuple(arguments),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dict(dynamic),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    # Folding must stop at anything that could be a weight: a folded copy would ship it twice.
    optimizer.optimize(program.model, input_size_limit=_FOLDED_ELEMENTS, output_size_limit=_FOLDED_ELEMENTS)
    proto = program.model_proto
    widened = []
    for initializer in proto.graph.initializer:
        owner, _, tensor = initializer.name.rpartition(".")
        name = f"{(tied or {}).get(owner, owner)}.{tensor}"
        if name in places:
            if places[name].dtype == "F16":
                widened.append(_widen(initializer))
            _point_into(initializer, places[name], weights.name)
    nodes = [*widened, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _strip(proto)
    onnx.save(proto, graph)


def _strip(proto: onnx.ModelProto) -> None:
    """Drops the exporter's notes on where each node came from: source paths and stack traces of this machine."""
    proto.graph.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]  # shapes inside the graph, which the runtime infers anyway
    for item in (
        *proto.graph.node,
        *proto.graph.initializer,
        *proto.graph.input,
        *proto.graph.output,
    ):
        item.doc_string = ""
        del item.metadata_props[:]
    for node in proto.graph.node:
        node.name = ""


_ONNX_TYPES = {"F32": onnx.TensorProto.FLOAT, "F16": onnx.TensorProto.FLOAT16, "U8": onnx.TensorProto.UINT8}


def _widen(initializer: onnx.TensorProto) -> onnx.NodeProto:
    """A node that gives in float32 what the file holds in float16; the runtime runs it once, when it loads."""
    node = onnx.helper.make_node("Cast", [f"{initializer.name}.half"], [initializer.name], to=onnx.TensorProto.FLOAT)
    initializer.name += ".half"
    initializer.data_type = onnx.TensorProto.FLOAT16
    return node


def _point_into(initializer: onnx.TensorProto, place: TensorPlace, file: str) -> None:
    """Replaces an initialiser's data by a reference into a file."""
    if tuple(initializer.dims) != place.shape or initializer.data_type != _ONNX_TYPES.get(place.dtype):
        raise WeightsError(f"{initializer.name} has another shape or type in {file} than in the graph")
    initializer.ClearField("raw_data")
    initializer.ClearField("float_data")
    initializer.ClearField("int32_data")
    initializer.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", place.offset), ("length", place.length)):
        initializer.external_data.add(key=key, value=str(value))
