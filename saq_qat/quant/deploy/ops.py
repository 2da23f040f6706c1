"""Quantize, dequantize and global average as operators that keep their integer meaning through torch.export.

Eager semantics are those of ONNX QuantizeLinear, DequantizeLinear and GlobalAveragePool. The built-in
``quantized_decomposed`` operators lose the clip of low-bit codes on their way to ONNX, and ``fake_quantize``
has no translation, which is why these exist.
"""

import torch
from torch import Tensor

from saq_qat.quant.numerics.operators import define_operator

__all__ = ["DEQUANTIZE", "DEQUANTIZE_CHANNELS", "GLOBAL_AVERAGE_POOL", "QUANTIZE", "QUANTIZE_INT8"]


def _quantize(x: Tensor, scale: Tensor, zero_point: int, minimum: int, maximum: int) -> Tensor:
    code = (x / scale).round_().clamp_(minimum, maximum)
    return code.add_(zero_point).to(torch.uint8)


def _quantize_int8(x: Tensor, scale: Tensor, minimum: int, maximum: int) -> Tensor:
    return (x / scale).round_().clamp_(minimum, maximum).to(torch.int8)


def _dequantize(stored: Tensor, scale: Tensor, zero_point: int) -> Tensor:
    floats = stored.to(scale.dtype, copy=True)
    return floats.sub_(zero_point).mul_(scale)


def _dequantize_channels(stored: Tensor, scale: Tensor) -> Tensor:
    return stored.to(scale.dtype) * scale.reshape(-1, *[1] * (stored.dim() - 1))


def _global_average_pool(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


QUANTIZE = define_operator(
    "quantize(Tensor x, Tensor scale, int zero_point, int minimum, int maximum) -> Tensor",
    _quantize,
    lambda x, *_: torch.empty_like(x, dtype=torch.uint8),
)
"""``clip(round(x / scale), minimum, maximum) + zero_point`` as uint8; ties to even.

x: float32 or float64, any shape; scale: 0-dim of x's dtype; minimum, maximum: bounds of the code, before the
zero point is added.
"""

QUANTIZE_INT8 = define_operator(
    "quantize_int8(Tensor x, Tensor scale, int minimum, int maximum) -> Tensor",
    _quantize_int8,
    lambda x, *_: torch.empty_like(x, dtype=torch.int8),
)
"""``clip(round(x / scale), minimum, maximum)`` as int8; ties to even. Arguments as of ``QUANTIZE``."""

DEQUANTIZE = define_operator(
    "dequantize(Tensor stored, Tensor scale, int zero_point) -> Tensor",
    _dequantize,
    lambda stored, scale, _: torch.empty_like(stored, dtype=scale.dtype),
)
"""``(stored - zero_point) * scale``: uint8 or int8 of any shape to scale's dtype."""

DEQUANTIZE_CHANNELS = define_operator(
    "dequantize_channels(Tensor stored, Tensor scale) -> Tensor",
    _dequantize_channels,
    lambda stored, scale: torch.empty_like(stored, dtype=scale.dtype),
)
"""``stored[c] * scale[c]`` along axis 0: int8 weights or int32 biases to scale's dtype."""

GLOBAL_AVERAGE_POOL = define_operator(
    "global_average_pool(Tensor x) -> Tensor",
    _global_average_pool,
    lambda x: x.new_empty((x.shape[0], x.shape[1], 1, 1)),
)
"""Mean over height and width: (N, C, H, W) to (N, C, 1, 1)."""
