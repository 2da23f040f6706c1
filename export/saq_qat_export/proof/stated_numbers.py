"""The numbers a QDQ file states, beside those of the deploy view it came from: equal bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import is_never_negative, kernel_before
from saq_qat.quant.trace import graph
from saq_qat_export.reference.deploy_view import tensor_name
from saq_qat_export.reference.integer_math import CodeRange
from saq_qat_export.reference.qdq_reading import QdqReading

__all__ = ["StatedNumbers", "compare_numbers"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StatedNumbers:
    """Numbers of one kind and place: how many were compared, and how many differ."""

    name: str
    compared: int
    differing: int


def compare_numbers(view: fx.GraphModule, reading: QdqReading) -> list[StatedNumbers]:
    """Scales and bounds of every quantizer; weights, scales and biases of every layer that reads codes.

    A number that the file lacks differs, and so does a DequantizeLinear that rescales its codes.
    """
    found = [_compare(*triple) for triple in _of_tensors(view, reading)]
    found += [_compare(*triple) for triple in _of_layers(view, reading)]
    return found + [StatedNumbers(f"scale of {name}", 1, 1) for name in reading.rescaled]


def _compare(name: str, expected: Array, found: Array | None) -> StatedNumbers:
    if found is None or found.shape != expected.shape:
        return StatedNumbers(name, expected.size, expected.size)
    return StatedNumbers(name, expected.size, int(np.count_nonzero(expected != found)))


def _of_tensors(view: fx.GraphModule, reading: QdqReading) -> Iterator[tuple[str, Array, Array | None]]:
    for node in view.graph.nodes:
        module = graph.module_of(view, node)
        if not isinstance(module, Quantize):
            continue
        name = tensor_name(str(node.target))
        tensor = reading.tensors.get(name)
        yield f"scale of {name}", module.scale.numpy(), None if tensor is None else np.asarray(tensor.scale)
        if module.on_grid:
            continue
        bounds = _bounds_of(view, node, module)
        highest = None if tensor is None else tensor.range.maximum
        yield f"upper bound of {name}", *_bound(module.maximum, bounds.maximum, highest)
        if not is_never_negative(view, node.all_input_nodes[0]):
            lowest = None if tensor is None else tensor.range.minimum
            yield f"lower bound of {name}", *_bound(module.minimum, bounds.minimum, lowest)


def _bound(own: int, narrow: int, found: int | None) -> tuple[Array, Array | None]:
    """What is expected and found: a file may state the quantizer's bound or a narrower clipping's."""
    return np.array(own if found == own else narrow), None if found is None else np.array(found)


def _bounds_of(view: fx.GraphModule, quantize: fx.Node, module: Quantize) -> CodeRange:
    """Of a quantizer's codes, within those of a clipping of the network's own that it reads."""
    source, _ = kernel_before(view, quantize)
    low, high = graph.clip_limits(view, source)
    bound = graph.activation_bound(view, source)
    low, high = (low, high) if bound is None else (0.0, bound)
    codes = CodeRange(module.minimum, module.maximum)
    if low is None:
        return codes
    scale = np.float32(module.scale.item())
    return codes.narrow(*(float(np.rint(np.float32(value) / scale)) for value in (low, high)))


def _of_layers(view: fx.GraphModule, reading: QdqReading) -> Iterator[tuple[str, Array, Array | None]]:
    for path, module in view.named_modules():
        if not isinstance(module, IntegerLayer) or module.bias_scale is None:
            continue
        layer = reading.layers.get(f"{path}.weight")
        stated = (None, None, None) if layer is None else (layer.weight, layer.weight_scale, layer.bias)
        trained = (module.weight, module.weight_scale, module.bias)
        for kind, expected, found in zip(("weight", "weight scale", "bias"), trained, stated, strict=True):
            if kind == "bias" and found is not None:
                yield f"{kind} of {path}", _as_floats(expected.numpy(), module), _as_floats(found, module)
            else:
                yield f"{kind} of {path}", expected.numpy(), found


def _as_floats(codes: Array, layer: IntegerLayer) -> Array:
    """Biases as a file states them: beyond 2^23 a float32 stands for more than one code."""
    return codes.astype(np.float32) * np.asarray(layer.bias_scale, np.float32)
