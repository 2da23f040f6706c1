"""Quantize, dequantize and global average as operators that keep their integer meaning through torch.export.

Eager semantics are those of ONNX QuantizeLinear, DequantizeLinear and GlobalAveragePool. The built-in
``quantized_decomposed`` operators lose the clip of low-bit codes on their way to ONNX, and ``fake_quantize``
has no translation, which is why these exist.
"""

import torch
from torch import Tensor

__all__ = [
    "DEQUANTIZE",
    "GLOBAL_AVERAGE_POOL",
    "dequantize",
    "dequantize_channels",
    "global_average_pool",
    "quantize",
    "quantize_int8",
]


@torch.library.custom_op("saq_qat::quantize", mutates_args=())
def quantize(x: Tensor, scale: Tensor, zero_point: int, minimum: int, maximum: int) -> Tensor:
    """``clip(round(x / scale), minimum, maximum) + zero_point`` as uint8; ties to even.

    Args:
        x: float32 or float64, any shape.
        scale: 0-dim of x's dtype.
        minimum, maximum: bounds of the code, before the zero point is added.
    """
    code = torch.round(x / scale).clamp_(minimum, maximum)
    return code.add_(zero_point).to(torch.uint8)


@quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: int, minimum: int, maximum: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8)


@torch.library.custom_op("saq_qat::quantize_int8", mutates_args=())
def quantize_int8(x: Tensor, scale: Tensor, minimum: int, maximum: int) -> Tensor:
    """``clip(round(x / scale), minimum, maximum)`` as int8; ties to even. Arguments as of ``quantize``."""
    return torch.round(x / scale).clamp_(minimum, maximum).to(torch.int8)


@quantize_int8.register_fake
def _(x: Tensor, scale: Tensor, minimum: int, maximum: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.int8)


@torch.library.custom_op("saq_qat::dequantize", mutates_args=())
def dequantize(stored: Tensor, scale: Tensor, zero_point: int) -> Tensor:
    """``(stored - zero_point) * scale``: uint8 or int8 of any shape to scale's dtype."""
    return (stored.to(scale.dtype) - zero_point) * scale


@dequantize.register_fake
def _(stored: Tensor, scale: Tensor, zero_point: int) -> Tensor:
    return torch.empty_like(stored, dtype=scale.dtype)


@torch.library.custom_op("saq_qat::dequantize_channels", mutates_args=())
def dequantize_channels(stored: Tensor, scale: Tensor) -> Tensor:
    """``stored[c] * scale[c]`` along axis 0: int8 weights or int32 biases to scale's dtype."""
    return stored.to(scale.dtype) * scale.reshape(-1, *[1] * (stored.dim() - 1))


@dequantize_channels.register_fake
def _(stored: Tensor, scale: Tensor) -> Tensor:
    return torch.empty_like(stored, dtype=scale.dtype)


@torch.library.custom_op("saq_qat::global_average_pool", mutates_args=())
def global_average_pool(x: Tensor) -> Tensor:
    """Mean over height and width: (N, C, H, W) to (N, C, 1, 1)."""
    return x.mean((2, 3), keepdim=True)


@global_average_pool.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], 1, 1))


# What graph nodes call: the overloads, which carry a name where the decorated functions do not.
DEQUANTIZE = torch.ops.saq_qat.dequantize.default
GLOBAL_AVERAGE_POOL = torch.ops.saq_qat.global_average_pool.default
