"""Whether an ONNX model holds together: what must be true before any rule can be asked."""

from collections.abc import Iterable, Set
from math import ceil, prod

import onnx
import onnx_ir as ir

from saq_qat.errors import ArtifactError

__all__ = ["check_structure"]


def check_structure(model: onnx.ModelProto, where: str) -> None:
    """Every tensor is written once, before it is read, and constants have the size they claim.

    Raises:
        ArtifactError: names ``where``, the node or tensor, and what is wrong with it.
    """
    if not model.HasField("graph") or not model.opset_import:
        raise ArtifactError(
            f"{where} is no ONNX model: it has no graph or names no operator set. "
            "Export the network again, or check that the file was copied whole."
        )
    _check_graph(model.graph, frozenset(), where)


def _check_graph(graph: onnx.GraphProto, outer: Set[str], where: str) -> None:
    _check_text(graph, where)
    for tensor in graph.initializer:
        _check_size(tensor, where)
    written = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    written |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        reader = f"node {node.name or node.op_type}"
        _require_written(node.input, written | outer, reader, where)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _check_graph(inner, written | outer, where)
            if attribute.HasField("t"):
                _check_size(attribute.t, where)
        for name in node.output:
            if name and name in written:
                raise _broken(where, f"{reader} writes tensor {name}, which something else writes too")
            written.add(name)
    _require_written(
        (value.name for value in graph.output), written | outer, "the graph's output list", where
    )


def _check_text(graph: onnx.GraphProto, where: str) -> None:
    """Names with bytes that are no UTF-8 come out of the message as bytes."""
    names: list[object] = [graph.name, *(tensor.name for tensor in graph.initializer)]
    names += [value.name for value in (*graph.input, *graph.output, *graph.value_info)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    damaged = [name for name in names if not isinstance(name, str)]
    if damaged:
        raise _broken(where, f"the name {damaged[0]!r} is no text")


def _require_written(names: Iterable[str], written: Set[str], reader: str, where: str) -> None:
    for name in names:
        if name and name not in written:
            raise _broken(where, f"{reader} reads tensor {name}, which nothing before it writes")


def _check_size(tensor: onnx.TensorProto, where: str) -> None:
    known = {int(kind) for kind in ir.DataType} - {int(ir.DataType.UNDEFINED)}
    if tensor.data_type not in known or min(tensor.dims, default=0) < 0:
        raise _broken(where, f"tensor {tensor.name} has no known type or shape")
    if not tensor.HasField("raw_data") or tensor.data_type == onnx.TensorProto.STRING:
        return
    size = ceil(prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth / 8)
    if len(tensor.raw_data) != size:
        held = len(tensor.raw_data)
        raise _broken(where, f"tensor {tensor.name} holds {held} bytes where its shape and type need {size}")


def _broken(where: str, fault: str) -> ArtifactError:
    return ArtifactError(
        f"{where} is a broken ONNX model: {fault}. Export the network again, or copy the file once more; "
        "onnx.checker.check_model may tell more."
    )
