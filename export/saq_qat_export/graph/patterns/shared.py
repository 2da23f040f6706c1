"""What all targets share of their translations to ONNX."""

from collections.abc import Callable
from typing import Any

import torch

from saq_qat.quant.deploy import ops

__all__ = ["Table", "Translation", "make_table"]

Translation = Callable[..., Any]
Table = dict[Callable[..., Any], Translation]


def make_table(
    operators: Any, *, quantize: Translation, quantize_int8: Translation, dequantize: Translation
) -> Table:
    """Operator overload to translation, as ``torch.onnx.export`` takes it.

    Args:
        operators: the target's operator set, of onnxscript.
    """

    def dequantize_channels(stored: Any, scale: Any) -> Any:
        return operators.DequantizeLinear(stored, scale, axis=0)

    def global_average_pool(x: Any) -> Any:
        """By name: a mean over axes would become ReduceMean, which has no integer kernel."""
        return operators.GlobalAveragePool(x)

    return {
        torch.ops.saq_qat.quantize.default: quantize,
        torch.ops.saq_qat.quantize_int8.default: quantize_int8,
        ops.DEQUANTIZE: dequantize,
        torch.ops.saq_qat.dequantize_channels.default: dequantize_channels,
        ops.GLOBAL_AVERAGE_POOL: global_average_pool,
    }
