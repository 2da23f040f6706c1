"""Quantize, dequantize and global average as operators that keep their integer meaning through torch.export.

Eager semantics are those of ONNX QuantizeLinear, DequantizeLinear and GlobalAveragePool. The built-in
``quantized_decomposed`` operators lose the clip of low-bit codes on their way to ONNX, and ``fake_quantize``
has no translation, which is why these exist.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["DEQUANTIZE", "DEQUANTIZE_CHANNELS", "GLOBAL_AVERAGE_POOL", "QUANTIZE", "QUANTIZE_INT8"]


_LIBRARY = torch.library.Library("saq_qat", "DEF")  # type: ignore[no-untyped-call]  # torch has no types here


def _define(schema: str, compute: Callable[..., Tensor], shape: Callable[..., Tensor]) -> Any:
    """An operator of our own; not by ``torch.library.custom_op``, whose first call imports the compiler.

    Args:
        shape: an empty tensor of what ``compute`` gives.
    """
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]  # as above
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]  # as above
    torch.library.register_fake(f"saq_qat::{name}", shape, lib=_LIBRARY)
    return getattr(torch.ops.saq_qat, name).default


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


QUANTIZE = _define(
    "quantize(Tensor x, Tensor scale, int zero_point, int minimum, int maximum) -> Tensor",
    _quantize,
    lambda x, *_: torch.empty_like(x, dtype=torch.uint8),
)
"""``clip(round(x / scale), minimum, maximum) + zero_point`` as uint8; ties to even.

x: float32 or float64, any shape; scale: 0-dim of x's dtype; minimum, maximum: bounds of the code, before the
zero point is added.
"""

QUANTIZE_INT8 = _define(
    "quantize_int8(Tensor x, Tensor scale, int minimum, int maximum) -> Tensor",
    _quantize_int8,
    lambda x, *_: torch.empty_like(x, dtype=torch.int8),
)
"""``clip(round(x / scale), minimum, maximum)`` as int8; ties to even. Arguments as of ``QUANTIZE``."""

DEQUANTIZE = _define(
    "dequantize(Tensor stored, Tensor scale, int zero_point) -> Tensor",
    _dequantize,
    lambda stored, scale, _: torch.empty_like(stored, dtype=scale.dtype),
)
"""``(stored - zero_point) * scale``: uint8 or int8 of any shape to scale's dtype."""

DEQUANTIZE_CHANNELS = _define(
    "dequantize_channels(Tensor stored, Tensor scale) -> Tensor",
    _dequantize_channels,
    lambda stored, scale: torch.empty_like(stored, dtype=scale.dtype),
)
"""``stored[c] * scale[c]`` along axis 0: int8 weights or int32 biases to scale's dtype."""

GLOBAL_AVERAGE_POOL = _define(
    "global_average_pool(Tensor x) -> Tensor",
    _global_average_pool,
    lambda x: x.new_empty((x.shape[0], x.shape[1], 1, 1)),
)
"""Mean over height and width: (N, C, H, W) to (N, C, 1, 1)."""
