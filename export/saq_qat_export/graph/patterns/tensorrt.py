"""What each of our operators becomes for TensorRT: explicit quantization with int8 and zero point 0.

Codes are bounded in float before QuantizeLinear: TensorRT fuses that Clip or Relu into the layer before it,
and documents no Clip on int8. Scales of activations have rank 0; anything else would leave a layer in float.
"""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from saq_qat_export.graph.patterns.shared import TargetPatterns

__all__ = ["OPSET", "TensorRtPatterns"]

OPSET = 19
_UINT8 = (0, 255)
_INT8 = np.iinfo(np.int8)


class TensorRtPatterns(TargetPatterns):
    """Of QuantizeLinear, Clip and DequantizeLinear as the module says."""

    def _float(self, value: int) -> Any:
        return self._op.Constant(value=helper.make_tensor("value", TensorProto.FLOAT, [], [float(value)]))

    def _zero(self) -> Any:
        return self._op.Constant(value=helper.make_tensor("value", TensorProto.INT8, [], [0]))

    def quantize(self, x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
        """QuantizeLinear saturates at -128 and 127 by itself; narrower codes are bounded before it.

        The products of scale and bound are folded into constants afterwards. Dividing such a constant by the
        scale again is off by less than a millionth of a code, so the bound rounds to the code it stands for.
        """
        is_bounded = (minimum + zero_point, maximum + zero_point) == _UINT8
        return self._op.QuantizeLinear(
            x if is_bounded else self._bounded(x, scale, minimum, maximum), scale, self._zero()
        )

    def quantize_int8(self, x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        is_bounded = (minimum, maximum) == (_INT8.min, _INT8.max)
        return self._op.QuantizeLinear(
            x if is_bounded else self._bounded(x, scale, minimum, maximum), scale, self._zero()
        )

    def _bounded(self, x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        if (minimum, maximum) == (0, _INT8.max):
            return self._op.Relu(x)
        return self._op.Clip(
            x, self._op.Mul(scale, self._float(minimum)), self._op.Mul(scale, self._float(maximum))
        )

    def dequantize(self, stored: Any, scale: Any, zero_point: int) -> Any:
        return self._op.DequantizeLinear(stored, scale, self._zero())
