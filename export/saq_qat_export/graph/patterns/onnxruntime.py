"""What each of our operators becomes for ONNX Runtime: the patterns that it fuses into integer kernels.

A low-bit activation is QuantizeLinear to uint8, then Clip *on the uint8 tensor*, then DequantizeLinear. A
float Clip before QuantizeLinear, or a uint4 tensor, would leave the convolution before it in float.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper
from onnxscript import opset21 as op

from saq_qat_export.graph.patterns.shared import Table, make_table

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


def translation_table() -> Table:
    """Operator overload to translation, as ``torch.onnx.export`` takes it."""
    return make_table(op, quantize=_quantize, quantize_int8=_quantize_int8, dequantize=_dequantize)
