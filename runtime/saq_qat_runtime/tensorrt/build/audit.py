"""Every convolution and matrix product of a graph beside the layer of the engine that computes it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from saq_qat_runtime.bundle.onnx_file import INT8, UINT8, UNDEFINED, OnnxNode, ParsedGraph
from saq_qat_runtime.operators import MOVES, PRODUCTS, carried
from saq_qat_runtime.tensorrt.build.layers import EngineLayer, EngineLayers
from saq_qat_runtime.tensorrt.engine_record import Audit, LayerVerdict

__all__ = ["audit_layers"]

_QUANTIZERS = frozenset(("QuantizeLinear", "DequantizeLinear"))
# Parts of what the libraries call layers that multiply; "kgen" and "runtime_fusion" compute elementwise.
_PRODUCT_KINDS = ("correlation", "conv", "gemm", "matrix", "matmul", "mha", "attention")
_INT8_CODES = (INT8, UINT8, UNDEFINED)


@dataclass(frozen=True)
class _Wiring:
    """A graph's nodes by what they write, and its constants by name."""

    producers: dict[str, OnnxNode]
    constants: dict[str, int]

    def is_quantized(self, tensor: str) -> bool:
        """Whether ``tensor`` holds dequantized int8 codes alone, moved or not."""
        return all(map(self._is_dequantized, self._sources(tensor, MOVES)))

    def is_constant(self, tensor: str) -> bool:
        """Whether ``tensor`` is a constant, quantized, dequantized or moved, as weights are."""
        return all(source in self.constants for source in self._sources(tensor, MOVES | _QUANTIZERS))

    def _sources(self, tensor: str, through: frozenset[str]) -> Iterator[str]:
        """Tensors whose numbers ``tensor`` holds, back through these operators."""
        waiting, seen = [tensor], {tensor}
        while waiting:
            node = self.producers.get(name := waiting.pop())
            if name in self.constants or node is None or node.op_type not in through:
                yield name
                continue
            before = carried(node.op_type, node.inputs)
            waiting += [source for source in before if source not in seen]
            seen.update(before)

    def _is_dequantized(self, tensor: str) -> bool:
        node = self.producers.get(tensor)
        if node is None or node.op_type != "DequantizeLinear":
            return False
        return self._code_type(node) in _INT8_CODES

    def _code_type(self, node: OnnxNode) -> int:
        """Element type of the codes, UNDEFINED where neither codes nor zero point are constants."""
        types = [
            self.constants[name] for name in (node.inputs[0], *node.inputs[2:]) if name in self.constants
        ]
        return types[0] if types else UNDEFINED


def audit_layers(source: ParsedGraph, engine_layers: EngineLayers) -> Audit:
    """Find out which products of the graph are int8 layers of the engine.

    A product should be if both its factors come from DequantizeLinear. It is if the layers that compute it
    read int8 data, and int8 constants where its weight is constant, else two int8 inputs. A product of which
    no such layer is found is not.
    """
    graph = _Wiring({name: node for node in source.nodes for name in node.outputs}, source.constants)
    products = [node for node in source.nodes if node.op_type in PRODUCTS]
    names = Counter(_engine_name(node) for node in products)
    verdicts = (_verdict(node, graph, names[_engine_name(node)], engine_layers.layers) for node in products)
    return Audit(engine_layers.source, tuple(verdicts))


def _engine_name(node: OnnxNode) -> str:
    """What TensorRT's parser calls a node; one without a name is called after its first output."""
    return node.name or f"node_of_{node.outputs[0]}"


def _verdict(node: OnnxNode, graph: _Wiring, sharing: int, layers: tuple[EngineLayer, ...]) -> LayerVerdict:
    name = _engine_name(node)
    found = [layer for layer in layers if layer.comes_from(name)]
    computing = [layer for layer in found if any(kind in layer.kind.lower() for kind in _PRODUCT_KINDS)]
    expected = all(map(graph.is_quantized, node.inputs[:2]))
    reason = _reason_against(computing, found, sharing, constant_weight=graph.is_constant(node.inputs[1]))
    if not expected and reason:
        reason = f"{_unquantized(node, graph)}; {reason}"
    engine_layer = ", ".join(layer.name for layer in computing)
    return LayerVerdict(name, node.op_type, expected, not reason, engine_layer, reason)


def _unquantized(node: OnnxNode, graph: _Wiring) -> str:
    factors = [tensor for tensor in node.inputs[:2] if not graph.is_quantized(tensor)]
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
