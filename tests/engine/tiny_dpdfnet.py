"""A tiny ONNX graph in DPDFNet's published layout: what a test of noise suppression needs of the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relay.engine.denoise import MODEL_DELAY_FRAMES

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

HOP, BINS = 160, 161
ERB, SPEC = 32, 96
FRAME = BINS * 2
STATE = ERB + SPEC + MODEL_DELAY_FRAMES * FRAME
METADATA = {
    "model_type": "dpdfnet",
    "profile": "dpdfnet_16khz",
    "sample_rate": "16000",
    "n_fft": "320",
    "hop_length": "160",
    "window_length": "320",
    "window_type": "vorbis",
    "freq_bins": "161",
    "state_size": str(STATE),
    "erb_norm_state_size": str(ERB),
    "spec_norm_state_size": str(SPEC),
    "erb_norm_init": ",".join(f"{x:.9g}" for x in np.linspace(-60, -90, ERB)),
    "spec_norm_init": ",".join(f"{x:.9g}" for x in np.linspace(0.001, 0.0001, SPEC)),
}


def write_model(path: Path, *, gated: bool, metadata: dict[str, str] = METADATA, state: int = STATE) -> Path:
    """A graph that gives each frame `MODEL_DELAY_FRAMES` later, as the real ones do.

    With `gated`, multiplied by a gain made of a running mean of the input's level, which begins at the metadata's
    values: so the output depends on all that came before, and on how the state began.
    """
    norms = ERB + SPEC

    def constant(name: str, values: Any, dtype: Any = np.int64) -> Any:
        return onnx.numpy_helper.from_array(np.array(values, dtype=dtype), name)

    nodes = [
        onnx.helper.make_node("Split", ["state_in", "sizes"], ["norm", "held"]),
        onnx.helper.make_node("Reshape", ["spec", "flat"], ["now"]),
        onnx.helper.make_node("Concat", ["held", "now"], ["joined"], axis=0),
        onnx.helper.make_node("Slice", ["joined", "zero", "frame"], ["oldest"]),
        onnx.helper.make_node("Slice", ["joined", "frame", "end"], ["kept"]),
        onnx.helper.make_node("Abs", ["now"], ["magnitude"]),
        onnx.helper.make_node("ReduceMean", ["magnitude"], ["level"], keepdims=0),
        onnx.helper.make_node("Mul", ["norm", "slow"], ["norm_slow"]),
        onnx.helper.make_node("Add", ["norm_slow", "level"], ["norm_next"]),
        onnx.helper.make_node("ReduceMean", ["norm_next"], ["mean"], keepdims=0),
        onnx.helper.make_node("Sigmoid", ["mean"], ["gain"]),
        onnx.helper.make_node("Mul", ["oldest", "gain" if gated else "one"], ["scaled"]),
        onnx.helper.make_node("Reshape", ["scaled", "shape"], ["spec_e"]),
        onnx.helper.make_node("Concat", ["norm_next", "kept"], ["state_out"], axis=0),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [
            onnx.helper.make_tensor_value_info("spec", floats, [1, 1, BINS, 2]),
            onnx.helper.make_tensor_value_info("state_in", floats, [state]),
        ],
        [
            onnx.helper.make_tensor_value_info("spec_e", floats, [1, 1, BINS, 2]),
            onnx.helper.make_tensor_value_info("state_out", floats, [state]),
        ],
        [
            constant("sizes", [norms, state - norms]),
            constant("flat", [FRAME]),
            constant("zero", [0]),
            constant("frame", [FRAME]),
            constant("end", [(MODEL_DELAY_FRAMES + 1) * FRAME]),
            constant("shape", [1, 1, BINS, 2]),
            constant("slow", 0.9, np.float32),
            constant("one", 1.0, np.float32),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path
