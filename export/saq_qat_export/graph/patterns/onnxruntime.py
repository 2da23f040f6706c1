"""What each of our operators becomes for ONNX Runtime: the patterns that it fuses into integer kernels.

A low-bit activation is QuantizeLinear to uint8, then Clip *on the uint8 tensor*, then DequantizeLinear. A
float Clip before QuantizeLinear, or a uint4 tensor, would leave the convolution before it in float.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper

from saq_qat_export.graph.patterns.shared import TargetPatterns

__all__ = ["OPSET", "OnnxRuntimePatterns"]

OPSET = 21
_UINT8_MAX = 255
_INT8 = np.iinfo(np.int8)


class OnnxRuntimePatterns(TargetPatterns):
    """Of QuantizeLinear, Clip and DequantizeLinear as the module says."""

    def _uint8(self, value: int) -> Any:
        return self._op.Constant(value=helper.make_tensor("value", TensorProto.UINT8, [], [value]))

    def _int8(self, value: int) -> Any:
        return self._op.Constant(value=helper.make_tensor("value", TensorProto.INT8, [], [value]))

    def quantize(self, x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
        """QuantizeLinear saturates at 0 and 255 by itself, so only narrower codes need the Clip."""
        stored = self._op.QuantizeLinear(x, scale, self._uint8(zero_point))
        lowest, highest = minimum + zero_point, maximum + zero_point
        if (lowest, highest) == (0, _UINT8_MAX):
            return stored
        return self._op.Clip(stored, self._uint8(lowest), self._uint8(highest))

    def quantize_int8(self, x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        stored = self._op.QuantizeLinear(x, scale, self._int8(0))
        if (minimum, maximum) == (_INT8.min, _INT8.max):
            return stored
        return self._op.Clip(stored, self._int8(minimum), self._int8(maximum))

    def dequantize(self, stored: Any, scale: Any, zero_point: int) -> Any:
        zero = self._int8(0) if stored.dtype == ir.DataType.INT8 else self._uint8(zero_point)
        return self._op.DequantizeLinear(stored, scale, zero)
