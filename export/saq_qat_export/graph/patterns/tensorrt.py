"""What each of our operators becomes for TensorRT: explicit quantization with int8 and zero point 0.

Codes are bounded in float before QuantizeLinear: TensorRT fuses that Clip or Relu into the layer before it,
and documents no Clip on int8. Scales of activations have rank 0; anything else would leave a layer in float.
"""

from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnxscript import opset19 as op

from saq_qat_export.graph.patterns.shared import Table, make_table

__all__ = ["OPSET", "translation_table"]

OPSET = 19
_UINT8 = (0, 255)
_INT8 = np.iinfo(np.int8)


def _float(value: int) -> Any:
    return op.Constant(value=helper.make_tensor("value", TensorProto.FLOAT, [], [float(value)]))


def _zero() -> Any:
    return op.Constant(value=helper.make_tensor("value", TensorProto.INT8, [], [0]))


def _quantize(x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
    """QuantizeLinear saturates at -128 and 127 by itself; narrower codes are bounded before it.

    The products of scale and bound are folded into constants afterwards. Dividing such a constant by the
    scale again is off by less than a millionth of a code, so the bound rounds to the code it stands for.
    """
    is_bounded = (minimum + zero_point, maximum + zero_point) == _UINT8
    return op.QuantizeLinear(x if is_bounded else _bounded(x, scale, minimum, maximum), scale, _zero())


def _quantize_int8(x: Any, scale: Any, minimum: int, maximum: int) -> Any:
    is_bounded = (minimum, maximum) == (_INT8.min, _INT8.max)
    return op.QuantizeLinear(x if is_bounded else _bounded(x, scale, minimum, maximum), scale, _zero())


def _bounded(x: Any, scale: Any, minimum: int, maximum: int) -> Any:
    if (minimum, maximum) == (0, _INT8.max):
        return op.Relu(x)
    return op.Clip(x, op.Mul(scale, _float(minimum)), op.Mul(scale, _float(maximum)))


def _dequantize(codes: Any, scale: Any, zero_point: int) -> Any:
    return op.DequantizeLinear(codes, scale, _zero())


def translation_table() -> Table:
    """Operator overload to translation, as ``torch.onnx.export`` takes it."""
    return make_table(op, quantize=_quantize, quantize_int8=_quantize_int8, dequantize=_dequantize)
