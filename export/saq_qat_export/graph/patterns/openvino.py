"""What each of our operators becomes for OpenVINO: codes as uint8, bounded in float before QuantizeLinear.

Its CPU plugin runs such a Clip and QuantizeLinear with the convolution, sum or activation before them; a Clip
on uint8 behind a QuantizeLinear that it cannot fuse would be an operation of its own. Scales of activations
have rank 0.
"""

from typing import Any

import onnx_ir as ir
from onnx import TensorProto, helper

from saq_qat_export.graph.patterns.shared import TargetPatterns

__all__ = ["OPSET", "OpenVinoPatterns"]

OPSET = 21
_UINT8, _INT8 = (0, 255), (-128, 127)


class OpenVinoPatterns(TargetPatterns):
    """Of QuantizeLinear, Clip and DequantizeLinear as the module says."""

    def _float(self, value: int) -> Any:
        return self._op.Constant(value=helper.make_tensor("value", TensorProto.FLOAT, [], [float(value)]))

    def _zero_point(self, value: int, dtype: int) -> Any:
        return self._op.Constant(value=helper.make_tensor("value", dtype, [], [value]))

    def quantize(self, x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
        """QuantizeLinear saturates at the ends of its type by itself; narrower codes are bounded first."""
        ends = (minimum + zero_point, maximum + zero_point)
        bounded = x if ends == _UINT8 else self._bounded(x, scale, minimum, maximum)
        return self._op.QuantizeLinear(bounded, scale, self._zero_point(zero_point, TensorProto.UINT8))

    def quantize_int8(self, x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        bounded = x if (minimum, maximum) == _INT8 else self._bounded(x, scale, minimum, maximum)
        return self._op.QuantizeLinear(bounded, scale, self._zero_point(0, TensorProto.INT8))

    def _bounded(self, x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        """Products of scale and bound are folded into constants, and round to the codes they stand for."""
        low, high = (self._op.Mul(scale, self._float(bound)) for bound in (minimum, maximum))
        return self._op.Clip(x, low, high)

    def dequantize(self, stored: Any, scale: Any, zero_point: int) -> Any:
        is_int8 = stored.dtype == ir.DataType.INT8
        dtype = TensorProto.INT8 if is_int8 else TensorProto.UINT8
        return self._op.DequantizeLinear(stored, scale, self._zero_point(0 if is_int8 else zero_point, dtype))
