import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relay_models.quantize import dequantize, pack_weights, quantize, unpack_weights


@given(hnp.arrays(np.float32, (3, 32), elements=st.floats(-100, 100, width=32)))
def test_no_weight_is_off_by_more_than_half_a_step(weight: np.ndarray) -> None:
    packed, scales = quantize(weight, block=16)
    assert packed.shape == (3, 2, 16)
    assert packed.dtype == np.uint8
    assert scales.shape == (3, 2)
    step = np.repeat(scales, 16, axis=1)
    assert np.all(np.abs(dequantize(packed, scales) - weight) <= step * 0.5001 + 1e-30)


def test_zeros_stay_zeros() -> None:
    packed, scales = quantize(np.zeros((2, 16), np.float32), block=16)
    assert not dequantize(packed, scales).any()


def test_blocks_must_divide() -> None:
    with pytest.raises(ValueError, match="blocks of 16"):
        quantize(np.zeros((2, 24), np.float32), block=16)


def test_names_come_back_and_vectors_are_untouched() -> None:
    generator = np.random.default_rng(0)
    weights = {
        "a.weight": generator.normal(size=(4, 64)).astype(np.float32),
        "a.bias": generator.normal(size=4).astype(np.float32),
        "norm.weight": generator.normal(size=64).astype(np.float32),
    }
    packed = pack_weights(weights)
    assert set(packed) == {"a.packed", "a.scales", "a.bias", "norm.weight"}
    again = unpack_weights(packed)
    assert set(again) == set(weights)
    np.testing.assert_array_equal(again["a.bias"], weights["a.bias"])
    np.testing.assert_array_equal(again["norm.weight"], weights["norm.weight"])
    np.testing.assert_allclose(again["a.weight"], weights["a.weight"], atol=0.02)
