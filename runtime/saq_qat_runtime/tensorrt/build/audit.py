"""Every convolution and matrix product of a graph beside the layer of the engine that computes it."""

from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from saq_qat_runtime.tensorrt.build.layers import EngineLayer, EngineLayers
from saq_qat_runtime.tensorrt.engine_record import Audit, LayerVerdict

__all__ = ["audit_layers"]

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# These pass numbers on unchanged: TensorRT moves them before the DequantizeLinear.
_CARRIERS = frozenset(
    (
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
_QUANTIZERS = frozenset(("QuantizeLinear", "DequantizeLinear"))
# Parts of what the libraries call layers that multiply; "kgen" and "runtime_fusion" compute elementwise.
_PRODUCT_KINDS = ("correlation", "conv", "gemm", "matrix", "matmul", "mha", "attention")
_INT8_CODES = (TensorProto.INT8, TensorProto.UINT8, TensorProto.UNDEFINED)


@dataclass(frozen=True)
class _Graph:
    """A graph's nodes by what they write, and its constants by name."""

    producers: dict[str, onnx.NodeProto]
    constants: dict[str, int]

    def dequantizer(self, tensor: str) -> onnx.NodeProto | None:
        """The DequantizeLinear to int8 codes that ``tensor`` comes from, None if there is none."""
        node = self.producers.get(tensor)
        while node is not None and node.op_type in _CARRIERS:
            node = self.producers.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return node if self._code_type(node) in _INT8_CODES else None

    def _code_type(self, node: onnx.NodeProto) -> int:
        """Element type of the codes, UNDEFINED where neither codes nor zero point are constants."""
        types = [self.constants[name] for name in (node.input[0], *node.input[2:]) if name in self.constants]
        return types[0] if types else TensorProto.UNDEFINED

    def is_constant(self, tensor: str) -> bool:
        """Whether ``tensor`` is a constant, quantized, dequantized or carried, as weights are."""
        while tensor not in self.constants:
            node = self.producers.get(tensor)
            if node is None or node.op_type not in _CARRIERS | _QUANTIZERS:
                return False
            tensor = node.input[0]
        return True


def audit_layers(model: onnx.ModelProto, engine_layers: EngineLayers) -> Audit:
    """Find out which products of the graph are int8 layers of the engine.

    A product should be if both its factors come from DequantizeLinear. It is if the layers that compute it
    read int8 data, and int8 constants where its weight is constant, else two int8 inputs. A product of which
    no such layer is found is not.
    """
    graph = _graph_of(model)
    products = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    names = Counter(_engine_name(node) for node in products)
    verdicts = (_verdict(node, graph, names[_engine_name(node)], engine_layers.layers) for node in products)
    return Audit(engine_layers.source, tuple(verdicts))


def _graph_of(model: onnx.ModelProto) -> _Graph:
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            types = [attribute.t.data_type for attribute in node.attribute if attribute.name == "value"]
            constants[node.output[0]] = types[0] if types else TensorProto.UNDEFINED
    return _Graph({name: node for node in model.graph.node for name in node.output}, constants)


def _engine_name(node: onnx.NodeProto) -> str:
    """What TensorRT's parser calls a node; one without a name is called after its first output."""
    return node.name or f"node_of_{node.output[0]}"


def _verdict(
    node: onnx.NodeProto, graph: _Graph, sharing: int, layers: tuple[EngineLayer, ...]
) -> LayerVerdict:
    name = _engine_name(node)
    found = [layer for layer in layers if layer.comes_from(name)]
    computing = [layer for layer in found if any(kind in layer.kind.lower() for kind in _PRODUCT_KINDS)]
    expected = all(graph.dequantizer(tensor) is not None for tensor in node.input[:2])
    reason = _reason_against(computing, found, sharing, constant_weight=graph.is_constant(node.input[1]))
    if not expected and reason:
        reason = f"{_unquantized(node, graph)}; {reason}"
    engine_layer = ", ".join(layer.name for layer in computing)
    return LayerVerdict(name, node.op_type, expected, not reason, engine_layer, reason)


def _unquantized(node: onnx.NodeProto, graph: _Graph) -> str:
    factors = [tensor for tensor in node.input[:2] if graph.dequantizer(tensor) is None]
    return f"not quantized: {', '.join(factors)}"


def _reason_against(
    computing: list[EngineLayer], found: list[EngineLayer], sharing: int, constant_weight: bool
) -> str:
    """Why a product is not an int8 layer, empty if it is.

    sharing: how many nodes have its name. All of their layers must then be int8: nothing tells them apart.
    """
    if not computing:
        kinds = ", ".join(sorted({layer.kind for layer in found}))
        inside = f"; its name stands at layers of kind {kinds}" if kinds else ""
        return f"no layer of the engine is known to compute it{inside}"
    if len(computing) < sharing:
        return f"{sharing} nodes share its name, but only {len(computing)} layers: names must differ"
    for layer in computing:
        if layer.inputs[:1] != ("Int8",):
            return f"the engine reads {_types(layer.inputs)} data"
        if constant_weight and "Int8" not in layer.constants:
            return f"the engine's constants are {_types(layer.constants)}"
        if not constant_weight and layer.inputs[1:2] != ("Int8",):
            return f"the engine reads {_types(layer.inputs[1:])} as the second factor"
    return ""


def _types(types: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(types)) or "no"
