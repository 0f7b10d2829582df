"""Where models run."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from typing import Literal

from relay.config import Device
from relay.errors import EngineUnavailable


def resolve(device: Device) -> Literal["cpu", "cuda"]:
    """The device that `auto` means here: CUDA where torch is installed and sees a GPU.

    Raises:
        EngineUnavailable: CUDA was asked for and is not there.
    """
    if device == "cpu":
        return "cpu"
    if _has_driver() and importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return "cuda"
    if device == "cuda":
        raise EngineUnavailable("--device cuda needs an NVIDIA GPU and torch: pip install 'relay-dialogue[gpu]'")
    return "cpu"


def memory_bytes() -> int:
    """GPU memory that tensors of this process take; 0 where no model runs on a GPU."""
    torch = sys.modules.get("torch")  # where nobody has imported it, nothing of it is on a GPU
    return int(torch.cuda.memory_allocated()) if torch is not None and torch.cuda.is_initialized() else 0


def _has_driver() -> bool:
    """Whether an NVIDIA driver is here; without one, importing torch to ask would cost seconds for nothing."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
