"""Scales: constant, positive, one per activation, and the same on both sides of a pair."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import onnx_ir as ir

from saq_qat_export.lint.constants import Array
from saq_qat_export.lint.nodes import is_standard, operand
from saq_qat_export.lint.quantization import HALF_TYPES, HIGH_PRECISION, QuantizationNode, data_type
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.view import GraphView, Violation

__all__ = [
    "constant_scale",
    "one_number",
    "one_precision",
    "per_channel_weights_only",
    "same_scale",
    "several_scales",
    "usable_scale",
]


def constant_scale(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT004: scales are constants, or computed from constants."""
    for found in view.quantization.values():
        if found.scale not in view.constants:
            missing = found.scale is None
            message = "it has no scale." if missing else "its scale depends on the data."
            yield Violation(
                found.node,
                f"{message} An engine's scales are fixed when it is built; the builder crashes on others.",
                "Calibrate, then store the scale as an initializer.",
            )


def usable_scale(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT005: scales are finite, positive and no denormal numbers of their type."""
    for found in _scaled_once(view):
        numbers = view.array(found.scale)
        fault = _scale_fault(numbers) if numbers is not None else ""
        if fault:
            yield Violation(
                found.node,
                f"scale {fault}.",
                "Calibrate again; give a channel or tensor that is all zero a scale such as 1.0.",
            )


def _scale_fault(numbers: Array) -> str:
    if not numbers.size:
        return "is empty"
    try:
        smallest = float(ml_dtypes.finfo(numbers.dtype).tiny)  # type: ignore[no-untyped-call]  # no stubs
    except (TypeError, ValueError):
        return f"is {numbers.dtype}, not a float"
    values = numbers.astype(np.float64)
    if not np.all(np.isfinite(values)):
        return "is not a finite number"
    if np.any(values <= 0):
        return f"is {values.min():g}, not positive"
    return f"is {values.min():g}, a denormal number of its type" if values.min() < smallest else ""


def _scaled_once(view: GraphView) -> Iterator[QuantizationNode]:
    """Every Q and DQ node, but none that has the scale of the Q it reads."""
    for found in view.quantization.values():
        source = None if found.quantizes else view.source_of(found)
        same = source is not None and source.scale_shape == found.scale_shape
        if source is None or not same or view.agree(source.scale, found.scale) is not True:
            yield found


def one_number(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT006: the scale of an activation has no dimension; shape [1] makes the layer float."""
    for found in _scaled_once(view):
        shape = found.scale_shape
        if view.is_activation(found) and shape is not None and shape and all(size == 1 for size in shape):
            yield Violation(
                found.node,
                f"the activation's scale has shape {list(shape)}; with it, TensorRT runs the layer in float.",
                "Store the scale (and its zero point) as a scalar, shape [].",
            )


def per_channel_weights_only(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT007: scales of several numbers belong to constants, or to blocks of 4- or 8-bit floats."""
    for found in _scaled_once(view):
        shape = found.scale_shape
        floats = found.stored in (ir.DataType.FLOAT4E2M1, ir.DataType.FLOAT8E4M3FN) and found.blocked
        if view.is_activation(found) and shape and any(size != 1 for size in shape) and not floats:
            yield Violation(
                found.node,
                "an activation has one scale per channel; TensorRT quantizes activations per tensor.",
                "Quantize this activation with one scale; keep per-channel scales for weights.",
            )


def one_precision(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT018: scales have the float type of the layers around them, without casts.

    Error, but a warning for a cast before a QuantizeLinear.
    """
    for found in view.quantizers:
        yield from _quantizer_precision(found)
    for item in view.weighted:
        weight_nodes = item.path.after if item.path.dequantize is not None else ()
        data_nodes = item.origin.through if item.origin.quantized else ()
        for node in (*data_nodes, *weight_nodes):
            if is_standard(node, "Cast"):
                yield Violation(
                    node,
                    f"a Cast stands between DequantizeLinear and {item.node.op_type}: it may stay float.",
                    "Store the scale in the layer's float type, so that DequantizeLinear writes that type.",
                )


def _quantizer_precision(found: QuantizationNode) -> Iterator[Violation]:
    data, scale = data_type(found.data), data_type(found.scale)
    if data in HIGH_PRECISION and scale in HIGH_PRECISION and data != scale:
        yield Violation(
            found.node,
            f"{data} data is quantized with a {scale} scale.",
            f"Store the scale as {data}.",
        )
    cast = found.data.producer()
    source = operand(cast, 0) if cast is not None and is_standard(cast, "Cast") else None
    if cast is not None and data_type(source) in HALF_TYPES and data == ir.DataType.FLOAT:
        yield Violation(
            cast,
            f"{data_type(source)} data is cast to {data} only to be quantized.",
            f"Remove the Cast and store the scale as {data_type(source)} (opset 19 or newer).",
            "warning",
        )


def same_scale(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT105: DequantizeLinear has the very scale of its QuantizeLinear."""
    for found in view.quantizers:
        for reader in view.dequantizers_of(found.output):
            if view.agree(found.scale, reader.scale) is False:
                yield Violation(
                    reader.node,
                    "its scale is not that of the QuantizeLinear whose codes it reads.",
                    "Use the same scale tensor for both.",
                )


def several_scales(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT106: one tensor is quantized with one scale."""
    seen: set[ir.Value] = set()
    for found in view.quantizers:
        if found.data in seen or not view.is_activation(found):
            continue
        seen.add(found.data)
        others = [other for other in view.quantizers_of(found.data) if other.node.graph is found.node.graph]
        if any(view.agree(others[0].scale, other.scale) is False for other in others[1:]):
            yield Violation(
                found.node,
                f"{found.data.name} is quantized {len(others)} times with different scales; each costs a "
                "kernel, and its readers see different numbers.",
                "Let all readers share one QuantizeLinear.",
            )
