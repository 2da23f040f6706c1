"""What all targets share of their translations to ONNX."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from saq_qat.quant.deploy import ops

__all__ = ["Table", "TargetPatterns", "translation_table"]

Table = dict[Callable[..., Any], Callable[..., Any]]


class TargetPatterns(ABC):
    """What a target's activations become, written with a set of ONNX operators."""

    def __init__(self, operators: Any) -> None:
        self._op = operators

    @abstractmethod
    def quantize(self, x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
        """Of codes that the network stores as uint8."""

    @abstractmethod
    def quantize_int8(self, x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        """Of codes that it stores as int8."""

    @abstractmethod
    def dequantize(self, stored: Any, scale: Any, zero_point: int) -> Any:
        """Of codes of either type."""

    def dequantize_channels(self, stored: Any, scale: Any) -> Any:
        return self._op.DequantizeLinear(stored, scale, axis=0)

    def global_average_pool(self, x: Any) -> Any:
        """By name: a mean over axes would become ReduceMean, which has no integer kernel."""
        return self._op.GlobalAveragePool(x)


def translation_table(patterns: TargetPatterns) -> Table:
    """Operator overload to translation, as ``torch.onnx.export`` takes it: functions whose types tell numbers
    from tensors.
    """

    def quantize(x: Any, scale: Any, zero_point: int, minimum: int, maximum: int) -> Any:
        return patterns.quantize(x, scale, zero_point, minimum, maximum)

    def quantize_int8(x: Any, scale: Any, minimum: int, maximum: int) -> Any:
        return patterns.quantize_int8(x, scale, minimum, maximum)

    def dequantize(stored: Any, scale: Any, zero_point: int) -> Any:
        return patterns.dequantize(stored, scale, zero_point)

    def dequantize_channels(stored: Any, scale: Any) -> Any:
        return patterns.dequantize_channels(stored, scale)

    def global_average_pool(x: Any) -> Any:
        return patterns.global_average_pool(x)

    return {
        ops.QUANTIZE: quantize,
        ops.QUANTIZE_INT8: quantize_int8,
        ops.DEQUANTIZE: dequantize,
        ops.DEQUANTIZE_CHANNELS: dequantize_channels,
        ops.GLOBAL_AVERAGE_POOL: global_average_pool,
    }
