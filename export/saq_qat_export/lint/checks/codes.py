"""Codes: their type, their zero point, and what may touch them between Q and DQ."""

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx_ir as ir

from saq_qat_export.lint.checks.operators import is_integer_operator
from saq_qat_export.lint.nodes import dimensions, is_standard, moves
from saq_qat_export.lint.quantization import QUANTIZED_TYPES, QuantizationNode, data_type
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.trace import downstream
from saq_qat_export.lint.view import GraphView, Violation, keeps_scale

__all__ = [
    "bias_dequantizers",
    "code_type",
    "four_bit",
    "narrow_weights",
    "nothing_between",
    "scalar_data",
    "zero_point",
]

_BLOCKS = (32, 64, 128)
_NARROWEST = -127
_SYMMETRIC = (
    "Quantize symmetrically to int8 with zero point 0 (onnxruntime.quantization: activation_type and "
    "weight_type QInt8, extra_options ActivationSymmetric and WeightSymmetric)."
)


def code_type(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT002: codes are int8, int4, float8 e4m3 or float4, said by a zero point or by output_dtype."""
    biases = {id(bias.node) for bias in bias_dequantizers(view)}
    for found in view.quantization.values():
        follows = not found.quantizes and view.source_of(found) is not None
        if follows or id(found.node) in biases or found.stored is None or found.stored in QUANTIZED_TYPES:
            continue
        if (
            found.quantizes
            and found.zero_point is None
            and data_type(found.output) in (None, ir.DataType.UINT8)
        ):
            message = (
                "has neither zero point nor output_dtype: by the rules of ONNX its codes are uint8, and "
                "TensorRT would take them for int8."
            )
        else:
            message = f"codes are {found.stored}; TensorRT would reject them or take them for int8."
        yield Violation(found.node, message, _SYMMETRIC)


def zero_point(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT003: a zero point is constant, all 0, of the codes' type, and has as many numbers as the scale."""
    for found in view.quantization.values():
        source = None if found.quantizes else view.source_of(found)
        if found.zero_point is None or (source is not None and source.zero_point is found.zero_point):
            continue
        fault = _zero_point_fault(view, found)
        if fault:
            yield Violation(found.node, f"zero point {fault}.", _SYMMETRIC)


def _zero_point_fault(view: GraphView, found: QuantizationNode) -> str:
    if found.zero_point not in view.constants:
        return "is not a constant"
    kind, shape, scale = data_type(found.zero_point), dimensions(found.zero_point), found.scale_shape
    if kind is not None and found.stored is not None and kind != found.stored:
        return f"is {kind} where the codes are {found.stored}"
    numbers = view.array(found.zero_point)
    if numbers is not None and np.any(numbers.astype(np.float32) != 0):
        return "is not 0, and TensorRT adds none"
    if shape is None or scale is None or None in shape or None in scale:
        return ""
    counts = prod(size or 0 for size in shape), prod(size or 0 for size in scale)
    return f"has {counts[0]} numbers where the scale has {counts[1]}" if counts[0] != counts[1] else ""


def nothing_between(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT013: nothing stands between a QuantizeLinear and its DequantizeLinear.

    Error for operators that compute; a warning for those that only move or clip codes, which some versions
    of TensorRT accept.
    """
    reported: set[ir.Node] = set()
    for found in view.quantizers:
        for node in downstream(found.output, keeps_scale):
            read = view.written_by(node)
            if node in reported or is_integer_operator(node) or (read is not None and not read.quantizes):
                continue
            reported.add(node)
            accepted = moves(node) or is_standard(node, "Clip", "Relu")
            yield Violation(
                node,
                f"{node.op_type} works on the codes between QuantizeLinear and DequantizeLinear.",
                "Put it before the QuantizeLinear, or after the DequantizeLinear if it only moves numbers."
                if accepted
                else "Put it after the DequantizeLinear; codes have no scale of their own.",
                "warning" if accepted else None,
            )


def four_bit(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT014: int4 only as weights of MatMul or Gemm in blocks of 32, 64 or 128, beside float data."""
    users = {
        id(item.path.dequantize.node): item for item in view.weighted if item.path.dequantize is not None
    }
    for found in view.quantization.values():
        if found.stored != ir.DataType.INT4 or (found.quantizes and not view.is_activation(found)):
            continue
        user, fault = users.get(id(found.node)), ""
        if view.is_activation(found):
            fault = "activations have no int4 kernels"
        elif user is not None and user.is_convolution:
            fault = "convolutions have no int4 kernels"
        elif user is not None and user.origin.quantized:
            fault = "int4 weights are for float data, and this data is quantized"
        elif _block(found) not in _BLOCKS:
            fault = f"int4 weights need blocks of {', '.join(map(str, _BLOCKS))}"
        elif prod(size or 0 for size in dimensions(found.data) or (0,)) % 2:
            fault = "int4 codes are stored in pairs, and their number is odd"
        if fault:
            yield Violation(found.node, f"{fault}.", "Store these codes as int8, which every layer can use.")


def _block(found: QuantizationNode) -> int:
    if found.block_size:
        return found.block_size
    sizes, scales = dimensions(found.data), found.scale_shape
    if sizes is None or scales is None or len(sizes) != len(scales):
        return 0
    return max(
        (size // scale for size, scale in zip(sizes, scales, strict=True) if size and scale), default=0
    )


def scalar_data(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT015: what is quantized or dequantized has at least one dimension.

    Error for stored codes, which the builder refuses as scalars, and for activations; a warning for constants
    that are quantized in the graph, which parsers of today reshape.
    """
    for found in view.quantization.values():
        if dimensions(found.data) == () and (found.quantizes or view.source_of(found) is None):
            reshaped = found.quantizes and not view.is_activation(found)
            fix = "Give it a dimension, or leave it in float."
            yield Violation(found.node, "its data is a scalar.", fix, "warning" if reshaped else None)


def narrow_weights(view: GraphView, settings: LintSettings) -> Iterator[Violation]:
    """TRT020: stored int8 weights stay above -128 where the settings promise it."""
    if not settings.narrow_weights:
        return
    for item in view.weighted:
        codes = view.array(item.path.root) if item.path.dequantize and not item.path.quantize else None
        if codes is not None and codes.dtype == np.int8 and codes.size and codes.min() < _NARROWEST:
            name = item.path.root.name or "weights"
            message = f"weight codes reach {codes.min()}; the recipe's grids end at {_NARROWEST}."
            yield Violation(
                item.node, f"{name}: {message}", "Export the run again; these codes are not its own."
            )


def bias_dequantizers(view: GraphView) -> tuple[QuantizationNode, ...]:
    """DequantizeLinear nodes that write the bias of a weighted node."""
    origins = (view.origin(item.bias) for item in view.weighted if item.bias is not None)
    return tuple(found for origin in origins for found in origin.dequantized)
