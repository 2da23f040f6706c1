"""Scales of codes in an ONNX file, beside those that its manifest states."""

import struct
from collections.abc import Iterable

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_file import OnnxNode, ParsedGraph
from saq_qat_runtime.bundle.records import TensorRecord

__all__ = ["check_scales"]

_FIX = "One of the two was changed: copy the bundle or export it again."


def check_scales(graph: ParsedGraph, tensors: Iterable[TensorRecord]) -> None:
    """Raise ModelError naming the first tensor whose scale, where a node writes or reads codes, is another.

    A change of one unit of the last place mostly turns no code, so that codes alone do not show it.
    """
    scales = {tensor.name: tensor.numbers for tensor in graph.initializers if tensor.shape in ((), (1,))}
    writers = {node.outputs[0]: node for node in graph.nodes if node.outputs}
    readers: dict[str, list[OnnxNode]] = {}
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and node.inputs:
            readers.setdefault(node.inputs[0], []).append(node)
    for tensor in tensors:
        name = tensor.code_tensor
        stated = struct.unpack("<f", struct.pack("<f", tensor.scale))[0]
        for node in [*_quantizer(writers, name), *readers.get(name, [])]:
            found = scales.get(node.inputs[1]) if len(node.inputs) > 1 else None
            where = f"{node.op_type} {node.name!r}"
            rule = f"the scale of {name} is {stated!r} in the manifest, but {found and found[0]!r} in {where}"
            require(found is None or found[0] == stated, f"{rule}. {_FIX}")


def _quantizer(writers: dict[str, OnnxNode], name: str) -> list[OnnxNode]:
    """The QuantizeLinear that writes codes, through the Clip that bounds them."""
    node = writers.get(name)
    if node is not None and node.op_type == "Clip" and node.inputs:
        node = writers.get(node.inputs[0])
    return [node] if node is not None and node.op_type == "QuantizeLinear" else []
