"""The integer kernels' arithmetic in NumPy: int32 accumulators, float32 multipliers, ties to even.

The definition of a right answer. The formulas are those of ONNX Runtime's x86 kernels (QLinearConv,
QLinearAdd, QLinearGlobalAveragePool, QGemm, QLinearMatMul, MatMulIntegerToFloat), which use float32
multipliers throughout; nothing here calls torch or ONNX Runtime.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from saq_qat.errors import ArtifactError

__all__ = [
    "CodeRange",
    "Codes",
    "Float32",
    "Stored",
    "Weights",
    "Window",
    "accumulate_conv",
    "accumulate_linear",
    "accumulate_product",
    "broadcasts_innermost",
    "max_pool",
    "quantize_float",
    "requantize_accumulator",
    "requantize_codes",
    "requantize_mean",
    "requantize_sum",
    "scale_accumulator",
    "window_patches",
]

Codes = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Weights = npt.NDArray[np.int8] | Codes
_EXACT_FLOAT32 = 2**24
_INT32_MAX = 2**31 - 1
# the bits of a float64 that float32 does not have, and how they stand at a tie
_BELOW_FLOAT32, _TIE_OF_FLOAT32 = 2**29 - 1, 2**28
_SMALLEST_NORMAL = 2.0**-125


@dataclass(frozen=True)
class CodeRange:
    """Where codes may lie, without zero point."""

    minimum: int
    maximum: int

    def clip(self, code: npt.NDArray[np.float32]) -> Codes:
        rounded = np.asarray(np.rint(code))
        return np.clip(rounded, self.minimum, self.maximum, out=rounded).astype(np.int32)

    def narrow(self, low: float, high: float) -> "CodeRange":
        """Those of these codes that lie within ``low`` and ``high``; never none."""
        return CodeRange(*(int(np.clip(bound, self.minimum, self.maximum)) for bound in (low, high)))


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling window moves: pairs of height and width."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def accumulate_conv(x: Codes, weight: Weights, bias: Codes, window: Window) -> Codes:
    """int32 accumulators (N, out, H', W') of codes (N, in, H, W) and weights (out, in / groups, kH, kW).

    Sums run in a BLAS product of floats wide enough to hold every partial sum exactly: float32 below 2^24,
    else float64.

    Raises:
        ArtifactError: an accumulator could leave int32.
    """
    out, depth, height, width = weight.shape
    bound = _bound(x, weight, bias, depth * height * width)
    wide = np.float32 if bound < _EXACT_FLOAT32 else np.float64
    n, _, rows, columns = (patches := window_patches(x.astype(wide), (height, width), window)).shape[:4]
    result = np.empty((n, out, rows, columns), np.int32)
    per_group = out // window.groups
    kernels = weight.reshape(window.groups, per_group, -1).astype(wide)
    for group, kernel in enumerate(kernels):
        channels = slice(group * depth, (group + 1) * depth)
        own = slice(group * per_group, (group + 1) * per_group)
        for image, sums in zip(patches[:, channels], result[:, own], strict=True):
            taps = image.transpose(0, 3, 4, 1, 2).reshape(-1, rows * columns)
            sums[...] = (kernel @ taps).reshape(sums.shape)
    result += bias.reshape(1, -1, 1, 1)
    return result


def window_patches(x: npt.NDArray[Any], kernel: tuple[int, int], window: Window) -> npt.NDArray[Any]:
    """What each place of a kernel reads, without copying it: (N, C, H', W', kH, kW) of (N, C, H, W)."""
    padded = (
        np.pad(x, ((0, 0), (0, 0), *((pad, pad) for pad in window.padding))) if any(window.padding) else x
    )
    span = tuple((size - 1) * step + 1 for size, step in zip(kernel, window.dilation, strict=True))
    (down, right), (rows, columns) = window.stride, window.dilation
    patches = sliding_window_view(padded, span, axis=(2, 3))
    return patches[:, :, ::down, ::right, ::rows, ::columns]


def accumulate_linear(x: Codes, weight: Weights, bias: Codes) -> Codes:
    """int32 accumulators (..., out) of codes (..., in) and weights (out, in).

    Raises:
        ArtifactError: an accumulator could leave int32.
    """
    return accumulate_product(x, weight.T, bias)


def accumulate_product(a: Codes, b: Weights, bias: Codes | None = None) -> Codes:
    """int32 accumulators (..., n, m) of codes (..., n, k) and (..., k, m); axes before them broadcast.

    Raises:
        ArtifactError: an accumulator could leave int32.
    """
    offset = np.zeros((), np.int32) if bias is None else bias
    _bound(a, b, offset, a.shape[-1])
    product = a.astype(np.float64) @ b.astype(np.float64)
    return cast(Codes, product.astype(np.int32) + offset)


def _bound(x: Codes, weight: Weights, bias: Codes, depth: int) -> int:
    """Largest magnitude that a partial sum of ``depth`` products can reach, bias apart."""
    bound = depth * _largest(x) * _largest(weight)
    if bound + int(np.abs(bias.astype(np.int64)).max(initial=0)) > _INT32_MAX:
        raise ArtifactError(
            f"An accumulator may reach {bound} plus its bias, beyond int32. "
            "Use fewer bits or deploy.refine_bias: false."
        )
    return bound


def _largest(integers: Weights) -> int:
    """Magnitude."""
    return max(int(integers.max(initial=0)), -int(integers.min(initial=0)))


def max_pool(x: Codes, kernel: tuple[int, int], window: Window, round_up: bool = False) -> Codes:
    """Largest codes (N, C, H', W') of each window of (N, C, H, W); padding never wins.

    Args:
        round_up: windows may reach beyond the padding on the right and below, but start before it.
    """
    lowest = np.iinfo(np.int32).min
    span = tuple((size - 1) * step + 1 for size, step in zip(kernel, window.dilation, strict=True))
    pads = [(pad, pad) for pad in window.padding]
    if round_up:
        sides = zip(x.shape[2:], span, window.stride, window.padding, strict=True)
        pads = [(pad, pad + _overhang(size + pad, width, step, pad)) for size, width, step, pad in sides]
    padded = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=lowest)
    (rows, columns), (down, right) = window.stride, window.dilation
    patches = sliding_window_view(padded, span, axis=(2, 3))[:, :, ::rows, ::columns, ::down, ::right]
    return cast(Codes, patches.max(axis=(4, 5)))


def _overhang(before: int, span: int, step: int, pad: int) -> int:
    """How far the last window that starts within ``before`` elements reaches beyond ``pad`` behind them."""
    last = min(-(-(before + pad - span) // step), (before - 1) // step) * step
    return max(last + span - before - pad, 0)


def quantize_float(x: Float32, scale: np.float32, codes: CodeRange) -> Codes:
    """QuantizeLinear of floats: ``clip(rint(x / scale))``."""
    return codes.clip(x.astype(np.float32) / scale)


def scale_accumulator(accumulator: Codes, grid: Float32) -> Float32:
    """Accumulators as floats, where a kernel writes no codes: ``f32(f32(acc) * f32(s_a s_b))``.

    Args:
        grid: ``f32(s_a s_b)``, the value of one unit, broadcast against the accumulators.
    """
    return accumulator.astype(np.float32) * grid


def requantize_accumulator(accumulator: Codes, grid: Float32, scale: np.float32, codes: CodeRange) -> Codes:
    """Accumulators to codes: ``clip(rint(f32(acc) * f32(f32(s_a s_b) / s_y)))``; ``grid`` as above."""
    return codes.clip(accumulator.astype(np.float32) * (grid / scale))


def requantize_codes(x: Codes, input_scale: np.float32, scale: np.float32, codes: CodeRange) -> Codes:
    """Codes of one grid to codes of another, through float32: ``clip(rint(f32(code * s_x) / s_y))``."""
    return codes.clip((x.astype(np.float32) * input_scale) / scale)


@dataclass(frozen=True)
class Stored:
    """Codes with how they are stored: the kernel of a sum computes on stored values, zero point included."""

    codes: Codes
    scale: np.float32
    zero_point: int


def requantize_sum(a: Stored, b: Stored, scale: np.float32, zero_point: int, codes: CodeRange) -> Codes:
    """Codes of a sum, in the order of operations of QLinearAdd on x86 CPUs with fused multiply-add.

    ``rint(fma(a, r_a, fma(b, r_b, z - fma(z_a, r_a, f32(z_b r_b)))))`` with ``r = f32(s / s_y)``; without the
    fused steps, about one code in four million differs. Where ``a`` is a scalar to the kernel's inner loop
    and ``b`` is not (``broadcasts_innermost``), the kernel swaps them. Where pairs of codes are fewer than
    sums, each pair is added once and looked up.
    """
    if broadcasts_innermost(a.codes.shape, b.codes.shape):
        a, b = b, a
    size = np.broadcast(a.codes, b.codes).size
    (low_a, many_a), (low_b, many_b) = _span(a.codes), _span(b.codes)
    if many_a * many_b >= size:
        return _sum_codes(a, b, scale, zero_point, codes)
    every_a, every_b = low_a + np.arange(many_a, dtype=np.int32), low_b + np.arange(many_b, dtype=np.int32)
    pairs = replace(a, codes=every_a[:, None]), replace(b, codes=every_b[None])
    table = _sum_codes(*pairs, scale, zero_point, codes).ravel()
    return cast(Codes, table[(a.codes - low_a) * many_b + (b.codes - low_b)])


def _span(codes: Codes) -> tuple[int, int]:
    """The lowest code, and how many there are from it to the highest."""
    lowest = int(codes.min(initial=0))
    return lowest, int(codes.max(initial=0)) - lowest + 1


def _sum_codes(a: Stored, b: Stored, scale: np.float32, zero_point: int, codes: CodeRange) -> Codes:
    """Of every two codes, by the kernel's arithmetic."""
    ratio_a, ratio_b = np.float32(a.scale / scale), np.float32(b.scale / scale)
    offset = _fused_multiply_add(np.int32(a.zero_point), ratio_a, ratio_b * np.float32(b.zero_point))
    partial = _fused_multiply_add(b.codes + b.zero_point, ratio_b, np.float32(zero_point) - offset)
    stored = _fused_multiply_add(a.codes + a.zero_point, ratio_a, partial)
    return codes.clip(np.rint(stored) - np.float32(zero_point))


def broadcasts_innermost(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether broadcasting repeats single values of ``a`` along the innermost axis longer than 1."""
    rank = max(len(a), len(b))
    sizes = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    innermost = next((pair for pair in reversed(list(sizes)) if pair != (1, 1)), (1, 1))
    return innermost[0] == 1 and innermost[1] > 1


def _fused_multiply_add(x: Codes | np.int32, factor: np.float32, addend: Float32 | np.float32) -> Float32:
    """``f32(x * factor + addend)`` with a single rounding, the product broadcast against the addend.

    In float64 the product of a code and a float32 is exact, so only a sum that float64 has rounded to a tie
    of float32, or to one too small for its full precision, can be rounded wrongly the second time.
    """
    product = x.astype(np.float64) * np.float64(factor)
    product, wide = np.broadcast_arrays(product, np.asarray(addend, np.float64))
    total = np.asarray(product + wide)
    rounded = np.asarray(total.astype(np.float32))
    is_doubtful = (total.view(np.int64) & _BELOW_FLOAT32) == _TIE_OF_FLOAT32
    is_doubtful |= np.abs(total) < _SMALLEST_NORMAL
    if is_doubtful.any():
        terms = product[is_doubtful], wide[is_doubtful], total[is_doubtful]
        rounded[is_doubtful] = _rounded_once(*terms)
    return rounded


def _rounded_once(product: Float64, wide: Float64, total: Float64) -> Float32:
    """float32 of the exact sum of two float64, of which ``total`` is the rounded one.

    The error of the sum is known: rounded to odd (its last bit tells that something was cut off), the sum
    leaves the second rounding, to float32, that of the exact value.
    """
    virtual = total - product
    error = (product - (total - virtual)) + (wide - virtual)
    is_even = total.view(np.int64) % 2 == 0
    outward = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & is_even, np.nextafter(total, outward), total)
    return odd.astype(np.float32)


def requantize_mean(x: Codes, input_scale: np.float32, scale: np.float32, codes: CodeRange) -> Codes:
    """Mean over height and width of codes (N, C, H, W): ``clip(rint(f32(sum) * f32(s_x / (s_y H W))))``."""
    area = np.float32(x.shape[2] * x.shape[3])
    total = x.sum(axis=(2, 3), keepdims=True, dtype=np.int32)
    return codes.clip(total.astype(np.float32) * np.float32(input_scale / np.float32(scale * area)))
