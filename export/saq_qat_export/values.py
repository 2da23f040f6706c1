"""What an integer interpreter holds between two nodes: codes, or what a kernel holds before rounding."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from saq_qat_export import integer_math as math
from saq_qat_export.integer_math import CodeRange, Codes, Float32

__all__ = [
    "Accumulator",
    "Bounded",
    "ChannelCodes",
    "CodeTensor",
    "Floats",
    "Mean",
    "Opaque",
    "Sum",
    "Value",
    "to_codes",
]


@dataclass(frozen=True)
class CodeTensor(math.Stored):
    """Codes without zero point, and how they are stored."""

    def floats(self) -> Float32:
        return cast(Float32, self.codes.astype(np.float32) * self.scale)


@dataclass(frozen=True)
class ChannelCodes:
    """Constant codes, zero point taken off: weights or biases with a float32 scale per index of ``axis``.

    ``scale`` is (channels,), or (1,) for all of them.
    """

    codes: Codes
    scale: Float32
    axis: int

    def floats(self) -> Float32:
        shape = [1] * self.codes.ndim
        if shape:
            shape[self.axis] = -1
        return self.codes.astype(np.float32) * self.scale.reshape(shape)

    def channel_scale(self, channels: int) -> Float32:
        return np.broadcast_to(self.scale, (channels,))


@dataclass(frozen=True)
class Accumulator:
    """int32 sums of an integer convolution or product, (N, out, ...), before they are scaled."""

    values: Codes
    input_scale: np.float32
    weight_scale: Float32

    def floats(self) -> Float32:
        scale = (self.input_scale * self.weight_scale).astype(np.float32)
        return self.values.astype(np.float32) * scale.reshape((1, -1) + (1,) * (self.values.ndim - 2))


@dataclass(frozen=True)
class Sum:
    """A residual sum."""

    a: CodeTensor
    b: CodeTensor

    def floats(self) -> Float32:
        return self.a.floats() + self.b.floats()


@dataclass(frozen=True)
class Mean:
    """The mean of codes (N, C, H, W) over height and width."""

    of: CodeTensor

    def floats(self) -> Float32:
        return cast(Float32, self.of.floats().mean(axis=(2, 3), keepdims=True, dtype=np.float32))


@dataclass(frozen=True)
class Floats:
    """Result of a float operation."""

    values: Float32

    def floats(self) -> Float32:
        return self.values


@dataclass(frozen=True)
class Opaque:
    """Anything but one float tensor: a size, a tuple of chunks, a constant of the model."""

    value: Any


@dataclass(frozen=True)
class Bounded:
    """A value clipped in float before it is quantized: ReLU, ReLU6, Clip."""

    of: "Value"
    minimum: np.float32
    maximum: np.float32

    def floats(self) -> Float32:
        return np.clip(self.of.floats(), self.minimum, self.maximum)

    def narrow(self, scale: np.float32, codes: CodeRange) -> CodeRange:
        """``codes`` within the bounds; rounding is monotone, so clipping before or after it is the same."""
        return codes.narrow(*(float(np.rint(bound / scale)) for bound in (self.minimum, self.maximum)))


Value = CodeTensor | ChannelCodes | Accumulator | Sum | Mean | Floats | Bounded


def to_codes(value: Value, scale: np.float32, zero_point: int, codes: CodeRange) -> Codes:
    """Requantize by the kernel that the value stands for."""
    match value:
        case Accumulator(values, input_scale, weight_scale):
            return math.requantize_accumulator(values, input_scale, weight_scale, scale, codes)
        case Sum(a, b):
            return math.requantize_sum(a, b, scale, zero_point, codes)
        case Mean(of):
            return math.requantize_mean(of.codes, of.scale, scale, codes)
        case CodeTensor(stored, input_scale, _):
            return math.requantize_codes(stored, input_scale, scale, codes)
        case Bounded(of):
            return to_codes(of, scale, zero_point, value.narrow(scale, codes))
        case Floats() | ChannelCodes():
            return math.quantize_float(value.floats(), scale, codes)
