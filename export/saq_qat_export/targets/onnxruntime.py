"""What each of our operators becomes for ONNX Runtime: the patterns that it fuses into integer kernels.

A low-bit activation is QuantizeLinear to uint8, then Clip *on the uint8 tensor*, then DequantizeLinear. A
float Clip before QuantizeLinear, or a uint4 tensor, would leave the convolution before it in float.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
from onnxscript import opset21 as op

from saq_qat.quant import ops

__all__ = ["OPSET", "translation_table"]

OPSET = 21
_UINT8_MAX = 255
_INT8 = np.iinfo(np.int8)


def _uint8(value: int) -> Any:
    return op.Constant(value=helper.make_tensor("value", TensorProto.UINT8, [], [value]))


def _int8(value: int) -> Any:
    return op.Constant(value=helper.make_tensor("value", TensorProto.INT8, [], [value]))


def _quantize(x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
    """QuantizeLinear saturates at 0 and 255 by itself, so only narrower codes need the Clip."""
    stored = op.QuantizeLinear(x, scale, _uint8(zero_point))
    lowest, highest = minimum + zero_point, maximum + zero_point
    if (lowest, highest) == (0, _UINT8_MAX):
        return stored
    return op.Clip(stored, _uint8(lowest), _uint8(highest))


def _quantize_int8(x: Any, scale: Any, minimum: int, maximum: int) -> Any:
    stored = op.QuantizeLinear(x, scale, _int8(0))
    if (minimum, maximum) == (_INT8.min, _INT8.max):
        return stored
    return op.Clip(stored, _int8(minimum), _int8(maximum))


def _dequantize(stored: Any, scale: Any, zero_point: int) -> Any:
    zero = _int8(0) if stored.dtype == ir.DataType.INT8 else _uint8(zero_point)
    return op.DequantizeLinear(stored, scale, zero)


def _dequantize_channels(stored: Any, scale: Any) -> Any:
    return op.DequantizeLinear(stored, scale, axis=0)


def _global_average_pool(x: Any) -> Any:
    """By name: a mean over axes would become ReduceMean, which has no integer kernel."""
    return op.GlobalAveragePool(x)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operator overload to translation, as ``torch.onnx.export`` takes it."""
    return {
        torch.ops.saq_qat.quantize.default: _quantize,
        torch.ops.saq_qat.quantize_int8.default: _quantize_int8,
        ops.DEQUANTIZE: _dequantize,
        torch.ops.saq_qat.dequantize_channels.default: _dequantize_channels,
        ops.GLOBAL_AVERAGE_POOL: _global_average_pool,
    }
