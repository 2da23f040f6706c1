"""Layers of a file: weight codes, scales, biases, attributes and what they read, beside the checkpoint's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from saq_qat_export.proof.numbers.file import GraphFile, attribute
from saq_qat_export.proof.numbers.tally import Tally
from saq_qat_export.proof.numbers.trained import ExpectedLayer, Trained

__all__ = ["LayerComparison"]

Array = npt.NDArray[Any]

_OPERATORS = {"conv": "Conv", "linear": "Gemm"}
_BIAS_BITS = 22
_WEIGHT_SUFFIXES = (".values", "_packed", ".weight")


@dataclass(frozen=True)
class _Constant:
    """A weight or bias as a file has it: codes without zero point and their scale, or floats.

    Attributes:
        name: of the codes or floats. scale_name: of the scale; empty for floats.
    """

    array: Array
    name: str
    scale: Array | None = None
    scale_name: str = ""


class LayerComparison:
    """Compares every convolution and matrix product that has a weight of the checkpoint's quantized layers.

    Attributes:
        seen: layers that the file has.
    """

    def __init__(
        self,
        file: GraphFile,
        trained: Trained,
        tally: Tally,
        read_by: Callable[[onnx.NodeProto, int], str | None],
    ) -> None:
        self.file, self.trained, self.tally, self.read_by = file, trained, tally, read_by
        self.seen: set[str] = set()

    def run(self) -> None:
        """Compare all of them, each with the record that its weight, or else its own name, says."""
        for node in self.file.nodes:
            if node.op_type not in _OPERATORS.values():
                continue
            weight = self._constant(node, 1)
            name = None if weight is None else self._layer_name(node, weight)
            if weight is not None and name is not None:
                self.seen.add(name)
                self._compare(node, weight, name, self.trained.layers[name])

    def _layer_name(self, node: onnx.NodeProto, weight: _Constant) -> str | None:
        """Layers whose codes are equal may share one tensor, which then has the name of another."""
        by_weight = weight.name
        for suffix in _WEIGHT_SUFFIXES:
            by_weight = by_weight.removesuffix(suffix)
        by_node = node.name.partition(":")[2]
        for name in (by_node, by_node.rpartition("_")[0], by_weight):
            if name in self.trained.layers and name not in self.seen:
                return name
        return None

    def _constant(self, node: onnx.NodeProto, index: int) -> _Constant | None:
        name, writer = self.file.name(node, index), self.file.writer(node, index)
        if name in self.file.constants:
            array = self.file.constants[name]
            return _Constant(array, name) if array.dtype.kind == "f" else None
        if writer is None or writer.op_type != "DequantizeLinear":
            return None
        codes, scale, zero = (self.file.constants.get(self.file.name(writer, i)) for i in range(3))
        if codes is None or scale is None:
            return None
        shift = np.zeros((), np.int64) if zero is None else zero.astype(np.int64)
        codes = codes.astype(np.int64) - shift.reshape(
            shift.shape + (1,) * (codes.ndim - 1) if shift.ndim else ()
        )
        return _Constant(codes, self.file.name(writer, 0), scale, self.file.name(writer, 1))

    def _claim(self, node: onnx.NodeProto, index: int) -> None:
        """Account for a weight or bias with its scale and zero point."""
        self.file.value(node, index)
        writer = self.file.writer(node, index)
        if writer is not None and writer.op_type == "DequantizeLinear":
            for part in range(3):
                self.file.value(writer, part)
            constant = self.file.constants.get(self.file.name(writer, 1))
            if constant is not None and constant.size > 1:
                self.tally.equal(f"axis of {writer.name}", "", 0, attribute(writer, "axis", 1))

    def _compare(self, node: onnx.NodeProto, weight: _Constant, name: str, expected: ExpectedLayer) -> None:
        self._claim(node, 1)
        self._claim(node, 2)
        self._attributes(node, name, expected)
        self._input(node, name, expected)
        self._weight(weight, name, expected)
        bias = self._constant(node, 2)
        if bias is None:
            self.tally.differ(f"bias of {name}", self.file.name(node, 2), "a constant", "none")
        elif expected.bias_scale is None:
            self._float_bias(bias, name, expected)
        else:
            self._bias(bias, name, expected, expected.bias_scale)
        self._factor(node, name, expected)

    def _attributes(self, node: onnx.NodeProto, name: str, expected: ExpectedLayer) -> None:
        record = expected.record
        if node.op_type != _OPERATORS[record.op]:
            self.tally.differ(f"operator of {name}", "", _OPERATORS[record.op], node.op_type)
            return
        window = record.window
        if window is None:
            stated: dict[str, object] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
            defaults: dict[str, object] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
        else:
            stated = {
                "strides": window.stride,
                "pads": window.padding * 2,
                "dilations": window.dilation,
                "group": window.groups,
                "auto_pad": b"NOTSET",
                "kernel_shape": expected.codes.shape[2:],
            }
            ones, zeros = (1,) * len(window.stride), (0,) * 2 * len(window.stride)
            defaults = dict(stated) | {"strides": ones, "pads": zeros, "dilations": ones, "group": 1}
        for key, own in stated.items():
            found = attribute(node, key, defaults[key])
            if isinstance(own, bytes):
                if own != found:
                    self.tally.differ(f"{key} of {name}", "", own, found)
            else:
                self.tally.equal(f"{key} of {name}", "", own, found)

    def _input(self, node: onnx.NodeProto, name: str, expected: ExpectedLayer) -> None:
        """The quantizer whose codes the layer reads; with which scale is compared there."""
        found = self.read_by(node, 0)
        found = self.trained.records.repeated.get(str(found), found)
        self.tally.compared += 1
        if found != expected.record.input:
            own, theirs = expected.record.input or "floats", found or "floats"
            self.tally.differ(f"input of {name}", self.file.name(node, 0), own, theirs)

    def _weight(self, weight: _Constant, name: str, expected: ExpectedLayer) -> None:
        codes, scale = expected.codes, expected.scale.astype(np.float32)
        self.tally.constant_channels += int(expected.constant.sum())
        if weight.scale is None:
            own = _stored(codes.astype(np.float32) * _column(scale, codes.ndim), self.file.half)
            if expected.bias_scale is not None:
                self.tally.differ(f"weight of {name}", weight.name, "codes", "floats")
            else:
                self.tally.equal(f"weight of {name}", weight.name, own, weight.array)
            return
        if self.file.half:
            codes, scale = _coarsened(codes, scale, weight.array)
        self.tally.equal(f"weight code of {name}", weight.name, codes, weight.array)
        self.tally.equal(
            f"weight scale of {name}", weight.scale_name, _stored(scale, self.file.half), weight.scale
        )

    def _bias(self, bias: _Constant, name: str, expected: ExpectedLayer, unit: Array) -> None:
        """At most half a unit, or half of the 22nd bit, from the float it rounds; a file has the code or its
        float."""
        exact = expected.bias / unit.astype(np.float64)
        last_bit = np.exp2(np.maximum(np.frexp(exact)[1] - _BIAS_BITS, 0))
        if bias.array.shape != exact.shape:
            self.tally.equal(f"bias of {name}", bias.name, exact, bias.array)
            return
        if bias.scale is not None:
            self.tally.equal(f"bias scale of {name}", bias.scale_name, unit, bias.scale)
            codes, right = bias.array.astype(np.float64), np.ones(exact.shape, bool)
        elif self.file.half:
            codes, right = _codes_of_halves(bias.array, exact, unit)
        else:
            codes = np.rint(bias.array.astype(np.float64) / unit.astype(np.float64) / last_bit) * last_bit
            right = codes.astype(np.float32) * unit == bias.array
        right = right & (np.abs(codes - exact) <= expected.tolerance * last_bit)
        own = exact if bias.scale is not None else expected.bias
        self.tally.matches(f"bias of {name}", bias.name, own, bias.array, right)

    def _float_bias(self, bias: _Constant, name: str, expected: ExpectedLayer) -> None:
        own = _stored(expected.bias.astype(np.float32), self.file.half)
        if bias.scale is not None:
            self.tally.differ(f"bias of {name}", bias.name, "floats", "codes")
        else:
            self.tally.equal(f"bias of {name}", bias.name, own, bias.array)

    def _factor(self, node: onnx.NodeProto, name: str, expected: ExpectedLayer) -> None:
        """The scales hold the factor, so nothing behind the layer may multiply by it again."""
        factor = expected.record.factor
        if factor == 1:
            return
        for reader, index in self.file.uses(node.output[0]):
            number = self.file.constants.get(self.file.name(reader, 1 - index), None)
            if reader.op_type in ("Mul", "Div") and number is not None and number.size == 1:
                found = f"{reader.op_type} by {float(number.reshape(-1)[0]):g} once more"
                self.tally.differ(f"factor of {name}", reader.name, f"{factor:g}, in its scales", found)


def _column(scale: Array, dimensions: int) -> Array:
    return scale.reshape(-1, *[1] * (dimensions - 1))


def _stored(values: Array, half: bool) -> Array:
    return values.astype(np.float16).astype(np.float32) if half else values


def _coarsened(codes: Array, scale: Array, found: Array) -> tuple[Array, Array]:
    """Codes and scales where float16 could not hold the scales: a power of two moved from one to the other.

    Channels of zeros fit any scale and then have 1.
    """
    if codes.shape != found.shape or np.array_equal(codes, found):
        return codes, scale
    nonzero = found != 0
    ratios = codes[nonzero] / found[nonzero]
    factor = float(np.median(ratios)) if ratios.size else 1.0
    if factor < 2 or np.frexp(factor)[0] != 0.5 or np.any(codes % int(factor)):
        return codes, scale
    empty = ~codes.reshape(len(codes), -1).any(1)
    return codes // int(factor), np.where(empty, np.float32(1), scale * np.float32(factor))


def _codes_of_halves(found: Array, exact: Array, unit: Array) -> tuple[Array, Array]:
    """The neighbouring code whose float, rounded to float16, is what the file has; and whether one is."""
    candidates: Sequence[Array] = (np.rint(exact), np.floor(exact), np.ceil(exact))
    codes, right = candidates[0], np.zeros(exact.shape, bool)
    for candidate in candidates:
        stored = (candidate.astype(np.float32) * unit).astype(np.float16)
        fits = (stored == found) & ~right
        codes, right = np.where(fits, candidate, codes), right | fits
    return codes, right
