"""Proofs that a changed number of a file changes no code that ONNX Runtime computes, whatever it is given."""

import copy
import tempfile
from collections.abc import Iterator
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import is_sum_of_codes
from saq_qat.quant.trace import graph
from saq_qat_export.bundle.probes.coverage import reachable_sums
from saq_qat_export.bundle.probes.layers import SummedLayer, summed_layers
from saq_qat_export.bundle.probes.make import Probes
from saq_qat_export.reference import integer_math as math
from saq_qat_export.reference.deploy_view import tensor_name
from saq_qat_export.reference.integer_math import CodeRange, Stored
from tests.faults.load.numbers_of_files import Change, changed, stepped

__all__ = ["Judge"]

_WITHOUT_EFFECT = {
    "storage_order": "of MaxPool: the order of its second output, which nothing reads",
    "ceil_mode": "of MaxPool: windows fit the sides of these images exactly",
    "allowzero": "of Reshape: whether a 0 means itself, and there is none",
    "saturate": "of QuantizeLinear: for float8 alone",
    "axis": "of QuantizeLinear and DequantizeLinear: ignored with a single scale",
    "block_size": "of QuantizeLinear and DequantizeLinear: for blocks of scales",
}
_IN_FLOATS = 2.0**-22


class Judge:
    """What is without effect in one network's file.

    view: its deploy view; shapes: of its codes, with a leading 1; probes: for what they prove of layers.
    """

    def __init__(
        self, content: bytes, view: fx.GraphModule, shapes: dict[str, tuple[int, ...]], probes: Probes
    ) -> None:
        self.content, self.view, self.shapes = content, view, shapes
        self.covered = {layer.name: layer for layer in probes.layers}

    def proof(self, change: Change) -> str:
        """Why no code can change; empty where nothing proves it."""
        if change.attribute in _WITHOUT_EFFECT:
            return _WITHOUT_EFFECT[change.attribute]
        if not change.attribute and self._cannot_show(change):
            return "no sum of the channel lies near enough to a rounding step"
        if not change.attribute and change.name.endswith("scale") and self._rounds_alike(change):
            return "all sums that can be round alike"
        if change.attribute and _is_same_map(self.content, changed(self.content, change), change.name):
            return (
                "the same linear map: what it reads is never more than padding, or the number is as good as 1"
            )
        if _optimized(changed(self.content, change)) == self.own:
            return "the engine never reads it"
        return ""

    @cached_property
    def own(self) -> bytes:
        return _optimized(self.content)

    def _cannot_show(self, change: Change) -> bool:
        layer, _, part = change.name.rpartition(".")
        if layer not in self.covered or part not in ("weight", "bias"):
            return False
        without = self.covered[layer].without_effect[("+1", "-1").index(change.how)]
        return bool((without[..., -2] if part == "bias" else without[..., :-2]).reshape(-1)[change.index])

    def _rounds_alike(self, change: Change) -> bool:
        """For float scales: the changed network rounds every sum, mean and product of layers as before."""
        view = copy.deepcopy(self.view)
        layer, _, part = change.name.rpartition(".")
        module = view.get_submodule(layer)
        if part == "weight_scale" and isinstance(module, IntegerLayer):
            module.weight_scale[change.index] = _new(module.weight_scale[change.index], change)
        elif part == "scale" and isinstance(module, Quantize):
            module.scale.fill_(_new(module.scale, change))
        else:
            return False
        pairs = zip(summed_layers(self.view, self.shapes), summed_layers(view, self.shapes), strict=True)
        layers = all(_same_steps(*pair) for pair in pairs)
        tables = (_tables(network, self.shapes) for network in (self.view, view))
        return layers and all(map(np.array_equal, *tables))


def _new(value: torch.Tensor, change: Change) -> float:
    return float(stepped(np.float32(value.item()), change.how))


def _same_steps(own: SummedLayer, other: SummedLayer) -> bool:
    if own.steps is None or other.steps is None:
        return bool(np.all(np.abs(own.grid - other.grid) <= _IN_FLOATS * own.grid))
    for group, channel in np.ndindex(own.weight.shape[:2]):
        least, most, unit = reachable_sums(own, group, channel)
        sums = np.arange(least, most + 1, unit or most - least + 1)
        codes, others = (
            np.searchsorted(steps[group, channel], sums, "right") for steps in (own.steps, other.steps)
        )
        if not np.array_equal(codes, others):
            return False
    return True


def _tables(view: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> Iterator[npt.NDArray[np.int32]]:
    """Codes of every two codes that are added, and of every sum whose mean is taken."""
    for node in view.graph.nodes:
        quantize = graph.module_of(view, node)
        if not isinstance(quantize, Quantize):
            continue
        kernel, codes = node.all_input_nodes[0], CodeRange(quantize.minimum, quantize.maximum)
        scale = np.float32(quantize.scale.item())
        if is_sum_of_codes(view, kernel):
            a, b = (_every(view, term) for term in kernel.all_input_nodes)
            a, b = (
                Stored(a.codes[:, None], a.scale, a.zero_point),
                Stored(b.codes[None], b.scale, b.zero_point),
            )
            yield math.requantize_sum(a, b, scale, quantize.zero_point, codes)
        elif kernel.target is ops.GLOBAL_AVERAGE_POOL:
            every = _every(view, kernel.all_input_nodes[0])
            area = prod(shapes[_source(view, kernel.all_input_nodes[0])][2:])
            sums = np.arange(every.codes[0] * area, every.codes[-1] * area + 1, dtype=np.int32)
            yield math.requantize_mean(
                sums.reshape(-1, 1, 1, 1), every.scale, np.float32(scale * area), codes
            )
        elif node.all_input_nodes[0].op == "placeholder":
            yield np.array([quantize.scale.item()], np.float32).view(np.int32)  # any float may come


def _source(view: fx.GraphModule, dequantize: fx.Node) -> str:
    return tensor_name(str(graph.value_of(view, dequantize.all_input_nodes[0]).target))


def _every(view: fx.GraphModule, dequantize: fx.Node) -> Stored:
    """Every code of a tensor."""
    source = graph.module_of(view, graph.value_of(view, dequantize.all_input_nodes[0]))
    if not isinstance(source, Quantize):
        raise TypeError(f"{dequantize.name} reads no codes of a quantizer")
    codes = np.arange(source.minimum, source.maximum + 1, dtype=np.int32)
    return Stored(codes, np.float32(source.scale.item()), source.zero_point)


def _is_same_map(content: bytes, other: bytes, name: str) -> bool:
    """Whether a Conv or Gemm with random weights gives the same of every unit vector, as equal maps do."""
    known = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
        for value in onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph.value_info
    }
    results = []
    for file in (content, other):
        graph_of = onnx.load_from_string(file).graph
        node = next(node for node in graph_of.node if node.name == name)
        if node.op_type not in ("Conv", "Gemm"):
            return False
        stored = {tensor.name: list(tensor.dims) for tensor in graph_of.initializer}
        size = prod(known[node.input[0]])
        random = np.random.default_rng(0)
        feeds = {node.input[0]: np.eye(size, dtype=np.float32).reshape(size, *known[node.input[0]])}
        for factor in node.input[1:]:
            shape = stored[factor.removesuffix(".values")]
            feeds[factor] = random.integers(1, 99, shape).astype(np.float32)
        results.append(_one_node(node, feeds))
    own, changed_to = results
    return bool(np.array_equal(own, changed_to))


def _one_node(node: onnx.NodeProto, feeds: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(a.shape)) for n, a in feeds.items()]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph([node], "one", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.float32] = session.run(None, feeds)[0]
    return found


def _optimized(content: bytes) -> bytes:
    """The graph that ONNX Runtime makes of a file; empty if it refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return (Path(folder) / "optimized.onnx").read_bytes()
