"""Convolutions and products of a QuantizeLinear/DequantizeLinear graph: integer operands, accumulators."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from saq_qat.errors import ArtifactError
from saq_qat_export.reference import integer_math as math
from saq_qat_export.reference.integer_math import Codes, Float32
from saq_qat_export.reference.values import Accumulator, ChannelCodes, CodeTensor

__all__ = [
    "IntegerOperands",
    "accumulate",
    "attributes_of",
    "operands",
    "pooling_window",
    "read_bias_codes",
]

_BIAS_BITS = 22


@dataclass(frozen=True)
class IntegerOperands:
    """What an integer convolution or product reads beside its input.

    weight: codes (out, in / groups, kH, kW) or (out, in). weight_scale: float32 (out,). bias: int32 (out,) at
    input scale times weight scale.
    """

    weight: Codes
    weight_scale: Float32
    bias: Codes


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def operands(
    node: onnx.NodeProto, x: CodeTensor, weight: ChannelCodes, bias: ChannelCodes | Float32 | None
) -> IntegerOperands:
    """Operands of a Conv, Gemm or MatMul that reads codes, its weight's output channels first.

    Raises:
        ArtifactError: the weight has scales along another axis than that of its output channels, a Gemm
            scales its terms, or the bias lies beside its grid.
    """
    settings, codes, axis = attributes_of(node), weight.codes, weight.axis
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not settings.get("transB", 0)):
        codes, axis = codes.T, 1 - axis
    if weight.scale.size > 1 and axis != 0:
        raise ArtifactError(
            f"{node.name}: weights need one scale per output channel; axis {weight.axis} of "
            f"{weight.codes.shape} is not that of the output channels. Quantize along the other axis."
        )
    if settings.get("transA", 0) or {settings.get("alpha", 1.0), settings.get("beta", 1.0)} != {1.0}:
        raise ArtifactError(f"{node.name}: an integer Gemm has transA = 0 and alpha = beta = 1.")
    scale = weight.channel_scale(len(codes))
    return IntegerOperands(codes, scale, read_bias_codes(node.name, bias, x.scale, scale))


def read_bias_codes(
    layer: str, bias: ChannelCodes | Float32 | None, input_scale: np.float32, weight_scale: Float32
) -> Codes:
    """The bias as int32 codes at ``f32(input_scale * weight_scale)``.

    A float bias must be a code times that scale, rounded to float32, bit for bit. Codes of up to 22
    significant bits are the only such ones that give their float, and our files have no others; of longer
    ones, where floats are sparser than codes, the nearest is taken.

    Raises:
        ArtifactError: an integer bias has another scale, or a float bias lies beside the grid.
    """
    if bias is None:
        return np.zeros(len(weight_scale), np.int32)
    grid = (input_scale * weight_scale).astype(np.float32)
    if isinstance(bias, ChannelCodes):
        if not np.array_equal(bias.channel_scale(len(grid)), grid):
            raise ArtifactError(f"{layer}: the scale of the bias is not input scale times weight scale.")
        return bias.codes
    nearest = np.rint(bias.astype(np.float64) / grid)
    last_bit = np.exp2(np.maximum(np.frexp(nearest)[1] - _BIAS_BITS, 0))
    candidates = np.stack([np.rint(nearest / last_bit) * last_bit, nearest, nearest - 1, nearest + 1])
    exact = candidates.astype(np.float32) * grid == bias
    if not exact.any(axis=0).all() or np.abs(nearest).max(initial=0) > np.iinfo(np.int32).max:
        channel = int(np.argmin(exact.any(axis=0)))
        raise ArtifactError(
            f"{layer}: the bias {bias[channel]:.9g} of channel {channel} is no integer times input scale "
            f"times weight scale, {grid[channel]:.9g}. Round the bias to that grid, as the deploy view does."
        )
    chosen: Codes = np.take_along_axis(candidates, exact.argmax(axis=0)[None], axis=0)[0].astype(np.int32)
    return chosen


def accumulate(node: onnx.NodeProto, x: CodeTensor, layer: IntegerOperands) -> Accumulator:
    """int32 accumulators of a Conv on (N, C, H, W) or a product on (..., features).

    Raises:
        ArtifactError: other axes, padding by name, or an accumulator beyond int32.
    """
    if node.op_type != "Conv":
        values = math.accumulate_linear(x.codes, layer.weight, layer.bias)
        return Accumulator.of_channels(values, x.scale, layer.weight_scale, axis=-1)
    settings = attributes_of(node)
    if x.codes.ndim != 4 or settings.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ArtifactError(f"{node.name}: integer convolutions read (N, C, H, W), with pads in numbers.")
    top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
    padded = np.pad(x.codes, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (stride_h, stride_w), (dil_h, dil_w) = settings.get("strides", (1, 1)), settings.get("dilations", (1, 1))
    window = math.Window((stride_h, stride_w), (0, 0), (dil_h, dil_w), settings.get("group", 1))
    values = math.accumulate_conv(padded, layer.weight, layer.bias, window)
    return Accumulator.of_channels(values, x.scale, layer.weight_scale, axis=1)


def pooling_window(node: onnx.NodeProto) -> tuple[tuple[int, int], math.Window, bool] | None:
    """Kernel, window and rounding (up?) of a MaxPool over two axes; None if it pads by name or unevenly."""
    settings = attributes_of(node)
    kernel, pads = settings["kernel_shape"], list(settings.get("pads", (0, 0, 0, 0)))
    named = settings.get("auto_pad", b"NOTSET") != b"NOTSET"
    if len(kernel) != 2 or named or pads[:2] != pads[2:] or len(node.output) > 1:
        return None
    (stride_h, stride_w), (dil_h, dil_w) = settings.get("strides", (1, 1)), settings.get("dilations", (1, 1))
    window = math.Window((stride_h, stride_w), (pads[0], pads[1]), (dil_h, dil_w))
    return (kernel[0], kernel[1]), window, bool(settings.get("ceil_mode", 0))
