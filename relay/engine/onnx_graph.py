"""Opens ONNX graphs for the runners on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from relay.errors import EngineUnavailable, WeightsError

TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
"""NumPy's types of a graph's inputs."""


def open_graph(path: Path, threads: int, *, of: str) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        path: The graph, its weights beside it.
        threads: Threads of one step.
        of: What the graph belongs to, for the error's message.

    Raises:
        EngineUnavailable: There is no onnxruntime.
        WeightsError: The graph or its weights are missing or damaged.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable(f"{of} needs onnxruntime: pip install 'relay-dialogue[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, one for each status
        message = " ".join(str(error).split())
        raise WeightsError(f"{path.name} of {path.parent.name} cannot be opened: {message}") from error
