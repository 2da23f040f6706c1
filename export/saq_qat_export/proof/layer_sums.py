"""Sums of every layer on given codes: as an engine makes them of a written graph, and the deploy view.

Cut at its codes, a graph's layers are independent of each other, and what they write is one float32 scale
times an integer: the sum itself comes back, in whatever kernel it was made.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from saq_qat.quant.deploy.integer_modules import IntegerConv2d, IntegerLayer, Quantize
from saq_qat.quant.trace import graph
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.tensors import TensorComparison
from saq_qat_export.reference.deploy_view import Stored, tensor_name
from saq_qat_export.reference.integer_math import Float32
from saq_qat_export.reference.qdq_graph import QdqGraph
from saq_qat_runtime.operators import RESHAPES

__all__ = [
    "codes_given_as",
    "compare_sums",
    "cut_at_codes",
    "layer_results",
    "repeated_codes",
    "summed_codes",
]


_GIVEN, _VALUES, _AGAIN = ".given", ".given.values", ".again"
_LAYERS = frozenset({"Conv", "Gemm"})
_BOUNDING = frozenset({"Abs", "Clip", "QuantizeLinear", "Relu"})
# Between a sum and the float32 that is read back: at most eight roundings of relative size 2^-24, of the sum
# and of the bias that was added.
_ROUNDINGS = 8 * 2.0**-24
_HALF = 0.5


def layer_results(graph: OnnxGraph) -> tuple[str, ...]:
    """What convolutions and linear layers on codes write, in graph order."""
    wiring = QdqGraph(onnx.load_from_string(graph.content).graph)
    return tuple(
        node.output[0]
        for node in wiring.nodes
        if node.op_type in _LAYERS
        and wiring.reads_activation_codes(node.input[0])
        and wiring.dequantizer_before(node.input[1]) is not None
    )


def repeated_codes(graph: OnnxGraph) -> frozenset[str]:
    """Codes that are maxima of codes on the same grid, so that rounding them again changes nothing."""
    wiring, found = QdqGraph(onnx.load_from_string(graph.content).graph), set[str]()
    for name in graph.code_tensors:
        quantize = wiring.quantizers.get(name)
        pool = None if quantize is None else wiring.producers.get(quantize.source)
        if quantize is not None and pool is not None and pool.op_type == "MaxPool":
            before = wiring.dequantizer_before(pool.input[0], RESHAPES)
            if before is not None and before.scale is not None and quantize.scale is not None:
                found.update([name] if np.array_equal(before.scale, quantize.scale) else [])
    return frozenset(found)


def summed_codes(graph: OnnxGraph) -> tuple[str, ...]:
    """Codes of sums to which a convolution hands one term and codes are the other, in graph order."""
    wiring = QdqGraph(onnx.load_from_string(graph.content).graph)
    found = []
    for name in graph.code_tensors:
        node = wiring.producers.get(name)
        while node is not None and node.op_type in _BOUNDING:
            node = wiring.producers.get(node.input[0])
        terms = [wiring.producers.get(v) for v in node.input] if node and node.op_type == "Add" else []
        if {"Conv", "DequantizeLinear"} <= {term.op_type for term in terms if term is not None}:
            found.append(name)
    return tuple(found)


def _back_to_codes(
    codes: Collection[str], wiring: QdqGraph, results: Sequence[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """What ``results`` are computed from: values in between, themselves included, and those of ``codes``."""
    between, read = set[str](), set[str]()
    wanted = [*results]
    while wanted:
        name = wanted.pop()
        if name in codes and name not in results:
            read.add(name)
        elif name in wiring.producers and name not in between:
            between.add(name)
            inputs = wiring.producers[name].input
            read.update(value for value in inputs if value in codes)
            wanted += [value for value in inputs if value not in codes]
    return frozenset(between), frozenset(read)


def cut_at_codes(graph: OnnxGraph, results: tuple[str, ...], at: Collection[str] | None = None) -> bytes:
    """The serialised part of a graph that computes ``results`` from codes, which are its inputs.

    An input is named as the codes are, with ``.given`` behind; see ``codes_given_as``. Its values are
    quantized once more, which changes none: OpenVINO takes integer kernels only where a graph quantizes.

    Args:
        at: the codes to cut at; all of them unless given. Images stay an input where others are computed.
    """
    model = onnx.load_from_string(graph.content)
    types = {entry.name: entry.type.tensor_type for entry in model.graph.value_info}
    wiring = QdqGraph(model.graph)
    needed, read = _back_to_codes(graph.code_tensors if at is None else at, wiring, results)
    nodes = [node for node in model.graph.node if needed.intersection(node.output)]
    for node in nodes:
        node.input[:] = [name + _AGAIN if name in read else name for name in node.input]
    nodes = [*(node for name in sorted(read) for node in _quantized_again(wiring, name)), *nodes]
    given = [_entry(name + _GIVEN, types[name].elem_type, types[name]) for name in sorted(read)]
    made = [_entry(n, types[n].elem_type if n in types else onnx.TensorProto.FLOAT, None) for n in results]
    names = {name for node in nodes for name in node.input}
    given += [entry for entry in model.graph.input if entry.name in names]
    constants = [tensor for tensor in model.graph.initializer if tensor.name in names]
    part = onnx.helper.make_graph(nodes, model.graph.name, given, made, constants)
    model.graph.CopyFrom(part)
    return bytes(model.SerializeToString())


def codes_given_as(name: str) -> str:
    """The codes that an input of a cut graph stands for; OpenVINO may call it as what is made of it first."""
    return name.removesuffix(_GIVEN).removesuffix(_AGAIN)


def _quantized_again(wiring: QdqGraph, codes: str) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    grid = wiring.quantizers[codes].node.input[1:3]
    values = codes + _VALUES
    return (
        onnx.helper.make_node("DequantizeLinear", [codes + _GIVEN, *grid], [values]),
        onnx.helper.make_node("QuantizeLinear", [values, *grid], [codes + _AGAIN]),
    )


def _entry(name: str, dtype: int, like: onnx.TypeProto.Tensor | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, dtype, None if like is None else _shape(like))


def _shape(kind: onnx.TypeProto.Tensor) -> list[int | None] | None:
    """Sizes as far as the file tells; a batch has none."""
    if not kind.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]


@torch.no_grad()
def compare_sums(
    wide: fx.GraphModule, images: Tensor, codes: Mapping[str, Stored], found: Mapping[str, Float32]
) -> list[TensorComparison]:
    """The sums of every layer against the deploy view's, both from ``codes``, in units of the sum.

    Args:
        wide: deploy view in float64.
        images: float64 (N, C, H, W).
        found: what the engine's layers write, in graph order.
    """
    sums = _Sums(wide, codes)
    sums.run(images)
    return [
        _compare(name, layer, own, floats)
        for (layer, own), (name, floats) in zip(sums.found, found.items(), strict=True)
    ]


def _compare(name: str, layer: IntegerLayer, own: Tensor, found: Float32) -> TensorComparison:
    """Sums differ where they lie more than half a unit, and what roundings explain, apart."""
    axes = own.dim() - 2 if isinstance(layer, IntegerConv2d) else 0
    unit, bias = (
        numbers.reshape(-1, *[1] * axes) for numbers in (torch.as_tensor(layer.bias_scale), layer.bias)
    )
    exact, other = own / unit, torch.from_numpy(found).reshape(own.shape) / unit
    width = _HALF + _ROUNDINGS * (exact.abs() + bias.abs())
    differ = int((~torch.le((exact - other).abs(), width)).sum())
    return TensorComparison(name, "integer", own.numel(), differ, 0, 0, int(differ > 0))


class _Sums(fx.Interpreter):
    """What layers on codes compute, each from given codes.

    Attributes:
        found: those layers and their results, in the order of their calls.
    """

    def __init__(self, view: fx.GraphModule, codes: Mapping[str, Stored]) -> None:
        super().__init__(view)
        self.view, self.codes = view, codes
        self.found: list[tuple[IntegerLayer, Tensor]] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        module = graph.module_of(self.view, n)
        if isinstance(module, Quantize):
            return torch.from_numpy(np.asarray(self.codes[tensor_name(str(n.target))])).reshape(result.shape)
        if isinstance(module, IntegerLayer) and module.bias_scale is not None:
            self.found.append((module, result.clone()))  # an activation may work in place
        return result
