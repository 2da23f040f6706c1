"""What each of our operators becomes for OpenVINO: codes as uint8, bounded in float before QuantizeLinear.

Its CPU plugin runs such a Clip and QuantizeLinear with the convolution, sum or activation before them; a Clip
on uint8 behind a QuantizeLinear that it cannot fuse would be an operation of its own. Scales of activations
have rank 0.
"""

from typing import Any

import onnx_ir as ir
from onnx import TensorProto, helper
from onnxscript import opset21 as op

from saq_qat_export.graph.patterns.shared import Table, make_table

__all__ = ["OPSET", "translation_table"]

OPSET = 21
_UINT8, _INT8 = (0, 255), (-128, 127)


def _float(value: int) -> Any:
    return op.Constant(value=helper.make_tensor("value", TensorProto.FLOAT, [], [float(value)]))


def _zero_point(value: int, dtype: int) -> Any:
    return op.Constant(value=helper.make_tensor("value", dtype, [], [value]))


def _quantize(x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
    """QuantizeLinear saturates at the ends of its type by itself; narrower codes are bounded before it."""
    ends = (minimum + zero_point, maximum + zero_point)
    bounded = x if ends == _UINT8 else _bounded(x, scale, minimum, maximum)
    return op.QuantizeLinear(bounded, scale, _zero_point(zero_point, TensorProto.UINT8))


def _quantize_int8(x: Any, scale: Any, minimum: int, maximum: int) -> Any:
    bounded = x if (minimum, maximum) == _INT8 else _bounded(x, scale, minimum, maximum)
    return op.QuantizeLinear(bounded, scale, _zero_point(0, TensorProto.INT8))


def _bounded(x: Any, scale: Any, minimum: int, maximum: int) -> Any:
    """The products of scale and bound are folded into constants, and round to the codes they stand for."""
    return op.Clip(x, op.Mul(scale, _float(minimum)), op.Mul(scale, _float(maximum)))


def _dequantize(stored: Any, scale: Any, zero_point: int) -> Any:
    is_int8 = stored.dtype == ir.DataType.INT8
    zero = _zero_point(0, TensorProto.INT8) if is_int8 else _zero_point(zero_point, TensorProto.UINT8)
    return op.DequantizeLinear(stored, scale, zero)


def translation_table() -> Table:
    """Operator overload to translation, as ``torch.onnx.export`` takes it."""
    return make_table(op, quantize=_quantize, quantize_int8=_quantize_int8, dequantize=_dequantize)
