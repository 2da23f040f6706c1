"""Custom operators: ONNX semantics, and what torch.library asks of an operator."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.quant.deploy.ops import (
    DEQUANTIZE,
    DEQUANTIZE_CHANNELS,
    GLOBAL_AVERAGE_POOL,
    QUANTIZE,
    QUANTIZE_INT8,
)


def test_operators_keep_the_contract_of_torch_library() -> None:
    scale = torch.tensor(0.1)
    stored = torch.tensor([0, 7, 255], dtype=torch.uint8)
    weights = torch.randint(-127, 128, (3, 2, 2, 2), dtype=torch.int8)
    for operator, arguments in [
        (QUANTIZE, (torch.randn(2, 3), scale, 128, -128, 127)),
        (QUANTIZE, (torch.randn(2, 3, dtype=torch.float64), scale.double(), 0, 0, 15)),
        (QUANTIZE_INT8, (torch.randn(2, 3), scale, -8, 7)),
        (DEQUANTIZE, (stored, scale, 128)),
        (DEQUANTIZE, (weights, scale, 0)),
        (DEQUANTIZE_CHANNELS, (weights, torch.rand(3))),
        (DEQUANTIZE_CHANNELS, (torch.tensor([2**30, -5, 1], dtype=torch.int32), torch.rand(3))),
        (GLOBAL_AVERAGE_POOL, (torch.randn(2, 3, 4, 5),)),
    ]:
        results = torch.library.opcheck(
            operator, arguments, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
        )
        assert set(results.values()) == {"SUCCESS"}, results


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.floats(2**-10, 100, width=32),
    st.sampled_from([(0, 0, 15), (128, -128, 127), (7, -7, 7), (0, 0, 127)]),
)
def test_quantize_is_quantize_linear_and_clip(
    values: list[float], scale: float, codes: tuple[int, int, int]
) -> None:
    zero_point, minimum, maximum = codes
    x = np.array(values, np.float32)
    expected = np.clip(np.rint(x / np.float32(scale)), minimum, maximum) + zero_point
    result = QUANTIZE(torch.from_numpy(x), torch.tensor(scale), zero_point, minimum, maximum)
    assert result.dtype == torch.uint8
    assert result.tolist() == expected.tolist()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), st.floats(2**-10, 100, width=32))
def test_quantize_int8_gives_the_codes_themselves(values: list[float], scale: float) -> None:
    x, step = torch.tensor(values, dtype=torch.float32), torch.tensor(scale)
    codes = QUANTIZE_INT8(x, step, -127, 127)
    assert codes.dtype == torch.int8
    assert codes.tolist() == [stored - 127 for stored in QUANTIZE(x, step, 127, -127, 127).tolist()]
    assert torch.equal(DEQUANTIZE(codes, step, 0), codes.float() * step)


def test_quantize_leaves_its_input_alone() -> None:
    x = torch.tensor([1.26])
    QUANTIZE(x, torch.tensor(1.0), 0, 0, 15)
    QUANTIZE_INT8(x, torch.tensor(1.0), -8, 7)
    assert x.item() == np.float32(1.26)


def test_dequantize_takes_the_zero_point_off_before_scaling() -> None:
    stored = torch.tensor([0, 128, 255], dtype=torch.uint8)
    assert DEQUANTIZE(stored, torch.tensor(0.5), 128).tolist() == [-64.0, 0.0, 63.5]
    assert DEQUANTIZE(stored, torch.tensor(0.5, dtype=torch.float64), 0).dtype == torch.float64


def test_channels_are_scaled_along_the_first_axis() -> None:
    weights = torch.tensor([[1, -2], [3, -4]], dtype=torch.int8)
    assert DEQUANTIZE_CHANNELS(weights, torch.tensor([0.5, 10.0])).tolist() == [[0.5, -1.0], [30.0, -40.0]]


def test_global_average_is_the_mean_over_height_and_width() -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(GLOBAL_AVERAGE_POOL(x)[..., 0, 0], x.mean((2, 3)))
