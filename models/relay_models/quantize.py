"""Weight-only int8: symmetric, block-wise, in the very layout that ONNX Runtime's MatMulNBits reads.

A weight [N, K] becomes `packed` [N, K/block, block] uint8 with zero point 128 and `scales` [N, K/block] float32, so
that weight = (packed - 128) * scale. Both the ONNX graph and the torch modules read these two tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

BLOCK = 64
ZERO_POINT = 128
PACKED = "packed"
SCALES = "scales"

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


def quantize(weight: FloatArray, *, block: int = BLOCK) -> tuple[ByteArray, FloatArray]:
    """A matrix [N, K] -> packed [N, K/block, block] uint8, scales [N, K/block] float32.

    The largest magnitude of a block becomes 127. Raises ValueError when `block` does not divide K.
    """
    rows, columns = weight.shape
    if columns % block:
        raise ValueError(f"blocks of {block} do not divide {columns} columns")
    blocks = weight.astype(np.float32).reshape(rows, columns // block, block)
    scales = np.abs(blocks).max(axis=2) / 127
    safe = np.where(scales == 0, 1, scales)[:, :, None]
    return (np.rint(blocks / safe) + ZERO_POINT).astype(np.uint8), scales.astype(np.float32)


def dequantize(packed: ByteArray, scales: FloatArray) -> FloatArray:
    """The matrix [N, K] float32 that `quantize` packed."""
    weight = (packed.astype(np.float32) - ZERO_POINT) * scales[:, :, None]
    return weight.reshape(packed.shape[0], -1)


def pack_weights(weights: Mapping[str, FloatArray], *, block: int = BLOCK) -> dict[str, ByteArray | FloatArray]:
    """Quantises every matrix `x.weight` into `x.packed` and `x.scales`; vectors stay as they are, in float32."""
    packed: dict[str, ByteArray | FloatArray] = {}
    for name, weight in weights.items():
        if weight.ndim == 2:
            stem = name.removesuffix("weight")
            packed[stem + PACKED], packed[stem + SCALES] = quantize(weight, block=block)
        else:
            packed[name] = weight.astype(np.float32)
    return packed


def unpack_weights(packed: Mapping[str, ByteArray | FloatArray]) -> dict[str, FloatArray]:
    """The float32 weights under their own names again."""
    weights: dict[str, FloatArray] = {}
    for name, tensor in packed.items():
        if name.endswith(PACKED):
            stem = name.removesuffix(PACKED)
            weights[stem + "weight"] = dequantize(tensor.astype(np.uint8), packed[stem + SCALES].astype(np.float32))
        elif not name.endswith(SCALES):
            weights[name] = tensor.astype(np.float32)
    return weights
