"""Bounds that bound nothing: a Relu behind values that cannot be negative."""

import numpy as np
import onnx_ir as ir

from saq_qat_runtime.operators import MOVES

__all__ = ["drop_idle_relus"]

# Operators with one input of numbers, which hand its sign on.
_KEEPS_SIGN = (MOVES - {"Concat"}) | {"DequantizeLinear", "GlobalAveragePool", "QuantizeLinear"}


def drop_idle_relus(model: ir.Model) -> None:
    """Remove every Relu that reads codes bounded below by zero, directly or through pools, in place.

    An average of codes between DequantizeLinear and QuantizeLinear may become one int8 layer; a Relu in
    between would be another.
    """
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Relu" else None
        if source is not None and _is_nonnegative(source):
            node.outputs[0].replace_all_uses_with(source)
            model.graph.remove(node, safe=True)


def _is_nonnegative(value: ir.Value) -> bool:
    """Whether a value comes from a Relu, a Softmax or a Clip at zero, and keeps its sign from there on."""
    node = value.producer()
    while node is not None and node.op_type in _KEEPS_SIGN:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    if node is None or node.op_type != "Clip":
        return node is not None and node.op_type in ("Relu", "Sigmoid", "Softmax")
    lowest = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    return lowest is not None and bool(np.all(lowest.numpy() >= 0))
