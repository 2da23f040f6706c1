"""The integer reference: a deploy view interpreted in NumPy, every code an int32.

Values that only exist inside an integer kernel (accumulators, sums, means) stay symbolic until a quantizer
reads them, so that nothing is rounded that a kernel does not round. Float operations run in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant import graph, ops
from saq_qat.quant.integer_modules import ChannelAffine, IntegerConv2d, IntegerLayer, IntegerLinear, Quantize
from saq_qat_export import integer_math as math
from saq_qat_export.integer_math import CodeRange, Float32
from saq_qat_export.values import Accumulator, CodeTensor, Floats, Mean, Opaque, Sum, Value, to_codes

__all__ = ["Reference", "run_reference", "tensor_name"]

StoredCodes = Mapping[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Reference:
    """What a network must give: stored codes (zero point included, uint8) by tensor name, and the logits."""

    codes: dict[str, npt.NDArray[np.uint8]]
    logits: Float32


def tensor_name(quantizer: str) -> str:
    """Name of the ONNX tensor that holds the codes of the quantizer at this module path."""
    return quantizer.removeprefix("quantizers.") + ".codes"


def run_reference(view: fx.GraphModule, images: Float32, taught: StoredCodes | None = None) -> Reference:
    """Interpret ``view`` on float32 images (N, C, H, W).

    Args:
        taught: stored codes by tensor name that later layers read in place of the reference's own (teacher
            forcing), so that one difference is counted where it arises and not again behind it.

    Raises:
        ArtifactError: an accumulator leaves int32, or a layer's input has a shape without integer arithmetic.
    """
    return _Interpreter(view, taught or {}).run(images)


class _Interpreter:
    def __init__(self, view: fx.GraphModule, taught: StoredCodes) -> None:
        self.view = view
        self.taught = taught
        self.values: dict[fx.Node, Value | Opaque] = {}
        self.codes: dict[str, npt.NDArray[np.uint8]] = {}

    def run(self, images: Float32) -> Reference:
        for node in self.view.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = Floats(images.astype(np.float32))
            elif node.op == "output":
                (result,) = node.all_input_nodes
                return Reference(self.codes, self._value(result).floats())
            else:
                self.values[node] = self._evaluate(node)
        raise ArtifactError("A deploy view needs an output node; this graph has none.")

    def _value(self, node: fx.Node) -> Value:
        value = self.values[node]
        if isinstance(value, Opaque):
            raise ArtifactError(f"{node.name}: expected a tensor of floats or codes; got {value.value!r}.")
        return value

    def _evaluate(self, node: fx.Node) -> Value | Opaque:
        module = graph.module_of(self.view, node)
        first = self.values[node.all_input_nodes[0]] if node.all_input_nodes else None
        if isinstance(module, Quantize):
            return self._quantize(str(node.target), module, self._value(node.all_input_nodes[0]))
        if node.target is ops.DEQUANTIZE and first is not None:
            return first
        if isinstance(module, ChannelAffine) and not (first is None or isinstance(first, Opaque)):
            return Floats(first.floats() * module.gain.numpy() + module.shift.numpy())
        if isinstance(first, CodeTensor):
            return self._on_codes(node, module, first)
        return self._float_call(node)

    def _on_codes(self, node: fx.Node, module: nn.Module | None, first: CodeTensor) -> Value | Opaque:
        """An operation whose input is codes: an integer kernel where there is one."""
        if isinstance(module, IntegerLayer) and module.bias_scale is not None:
            return _accumulate(str(node.target), module, first)
        if node.target is ops.GLOBAL_AVERAGE_POOL:
            return Mean(first)
        if graph.is_add(self.view, node):
            a, b = (self.values[term] for term in node.args if isinstance(term, fx.Node))
            if isinstance(a, CodeTensor) and isinstance(b, CodeTensor):
                return Sum(a, b)
        if graph.is_reshape(self.view, node):
            moved = self._torch_call(node, {node.all_input_nodes[0]: torch.from_numpy(first.codes)})
            if isinstance(moved, Tensor):
                return CodeTensor(moved.numpy(), first.scale, first.zero_point)
        return self._float_call(node)

    def _quantize(self, path: str, module: Quantize, value: Value) -> CodeTensor:
        scale = np.float32(module.scale.item())
        codes = to_codes(value, scale, module.zero_point, CodeRange(module.minimum, module.maximum))
        name = tensor_name(path)
        self.codes[name] = (codes + module.zero_point).astype(np.uint8)
        if name in self.taught:
            codes = self.taught[name].astype(np.int32) - module.zero_point
        return CodeTensor(codes, scale, module.zero_point)

    def _float_call(self, node: fx.Node) -> Floats | Opaque:
        """A float operation, by torch in float32 on the dequantized values."""
        result = self._torch_call(node, {})
        if isinstance(result, Tensor) and node.op != "get_attr":
            return Floats(result.numpy())
        return Opaque(result)

    def _torch_call(self, node: fx.Node, known: Mapping[fx.Node, Tensor]) -> Any:
        tracer = fx.Interpreter(self.view)
        arguments, keywords = fx.node.map_arg(
            (node.args, node.kwargs), lambda parent: known[parent] if parent in known else self._plain(parent)
        )
        with torch.no_grad():
            return getattr(tracer, node.op)(node.target, arguments, keywords)

    def _plain(self, node: fx.Node) -> Any:
        value = self.values[node]
        if isinstance(value, Opaque):
            return value.value
        return torch.from_numpy(np.ascontiguousarray(value.floats()))


def _accumulate(path: str, module: IntegerLayer, x: CodeTensor) -> Accumulator:
    weight, bias = module.weight.numpy(), module.bias.numpy()
    if isinstance(module, IntegerConv2d):
        window = math.Window(module.stride, module.padding, module.dilation, module.groups)
        values = math.accumulate_conv(x.codes, weight, bias, window)
    elif isinstance(module, IntegerLinear) and x.codes.ndim == 2:
        values = math.accumulate_linear(x.codes, weight, bias)
    else:
        raise ArtifactError(
            f"{path}: integer kernels take convolutions of (N, C, H, W) and linear layers of (N, features); "
            f"this {type(module).__name__} reads {x.codes.ndim} axes. Flatten before a linear layer."
        )
    return Accumulator(values, x.scale, module.weight_scale.numpy())
