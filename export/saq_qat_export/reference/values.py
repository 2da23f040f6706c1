"""What an integer interpreter holds between two nodes: codes, or what a kernel holds before rounding."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from saq_qat_export.reference import integer_math as math
from saq_qat_export.reference.integer_math import CodeRange, Codes, Float32

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

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CodeTensor(math.Stored):
    """Codes without zero point, and how they are stored."""

    dtype: Literal["uint8", "int8"] = "uint8"

    def floats(self) -> Float32:
        return cast(Float32, self.codes.astype(np.float32) * self.scale)

    def moved(self, change: Callable[[Array], Array]) -> "CodeTensor":
        """The same codes at other places."""
        return replace(self, codes=change(self.codes))


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
    """int32 sums of an integer convolution or product, before they are scaled.

    Attributes:
        grid: float32, broadcast against the sums: the value of one unit, input scale times weight scale or
            the product of both scales.
    """

    values: Codes
    grid: Float32

    @classmethod
    def of_channels(
        cls, values: Codes, input_scale: np.float32, weight_scale: Float32, axis: int
    ) -> "Accumulator":
        """Sums whose weights have a scale (out,) along ``axis``."""
        shape = [1] * values.ndim
        shape[axis] = -1
        return cls(values, (input_scale * weight_scale).astype(np.float32).reshape(shape))

    @classmethod
    def of_product(cls, a: "CodeTensor", b: "CodeTensor") -> "Accumulator":
        """Matrix products of codes, axes before the last two broadcast."""
        return cls(math.accumulate_product(a.codes, b.codes), np.asarray(a.scale * b.scale, np.float32))

    def plus(self, values: Codes) -> "Accumulator":
        """Other sums of the same grid added."""
        return replace(self, values=self.values + values)

    def floats(self) -> Float32:
        return math.scale_accumulator(self.values, self.grid)

    def moved(self, change: Callable[[Array], Array]) -> "Accumulator":
        """The same sums at other places."""
        whole = self.grid if self.grid.ndim == 0 else change(np.broadcast_to(self.grid, self.values.shape))
        return Accumulator(change(self.values), whole)


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
        if isinstance(self.of, Bounded):
            codes = self.of.narrow(scale, codes)
        return codes.narrow(*(float(np.rint(bound / scale)) for bound in (self.minimum, self.maximum)))


Value = CodeTensor | ChannelCodes | Accumulator | Sum | Mean | Floats | Bounded


def to_codes(value: Value, scale: np.float32, zero_point: int, codes: CodeRange) -> Codes:
    """Requantize by the kernel that the value stands for."""
    match value:
        case Accumulator(values, grid):
            return math.requantize_accumulator(values, grid, scale, codes)
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
