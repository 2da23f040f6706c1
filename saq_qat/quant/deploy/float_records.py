"""Records of what a network computes in float: tensors it reads, numbers and settings of its code."""

import math
from collections.abc import Iterator

from torch import Tensor, fx, nn

from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.plan.records import FloatRecord
from saq_qat.quant.trace import graph

__all__ = ["float_records", "operation_name"]

_LARGEST_LISTED = 2**16


def float_records(network: fx.GraphModule) -> Iterator[FloatRecord]:
    """Whatever computes with tensors of its own, or with numbers written in the network's code."""
    saved = network.state_dict()
    for node in network.graph.nodes:
        module = graph.module_of(network, node)
        if node.op == "get_attr":
            record = _attribute(network, node, saved)
        elif isinstance(module, (Quantizer, QuantLayer)) or graph.is_batch_norm(network, node):
            continue
        elif module is not None:
            record = _module(node, module)
        else:
            given = (node.args, node.kwargs)
            record = FloatRecord(
                node.name, operation_name(node), (), tuple(_numbers(given)), tuple(_words(given))
            )
        moves = graph.is_reshape(network, node) or graph.is_shape_arithmetic(node)
        if record is not None and (record.tensors or record.numbers or not moves) and record.op:
            yield record


def _attribute(network: fx.GraphModule, node: fx.Node, saved: dict[str, Tensor]) -> FloatRecord | None:
    """A parameter or buffer; the numbers themselves of a buffer that no checkpoint holds."""
    target = str(node.target)
    if target in saved:
        return FloatRecord(node.name, "parameter", (target,))
    path, _, name = target.rpartition(".")
    value = getattr(network.get_submodule(path), name)
    if not isinstance(value, Tensor) or value.numel() > _LARGEST_LISTED or not value.is_floating_point():
        return None
    return FloatRecord(node.name, "constant", (), tuple(float(x) for x in value.detach().flatten().tolist()))


def _module(node: fx.Node, module: nn.Module) -> FloatRecord:
    path = str(node.target)
    tensors = tuple(f"{path}.{name}" for name in module.state_dict())
    settings = [value for key, value in sorted(vars(module).items()) if not key.startswith("_")]
    numbers, words = tuple(_numbers(settings)), tuple(_words(settings))
    return FloatRecord(node.name, type(module).__name__, tensors, numbers, words)


def operation_name(node: fx.Node) -> str:
    """Of a function or method, in place or not."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return str(name).strip("_").removeprefix("i") if name in ("imul", "itruediv") else str(name).strip("_")


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, float) and not math.isfinite(value):
        yield str(value)
    elif isinstance(value, dict):
        yield from _words(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _words(entry)


def _numbers(value: object) -> Iterator[float]:
    """Finite numbers in arguments, in order."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value)
