"""The integer reference: a deploy view interpreted in NumPy, every code an int32.

Values that only exist inside an integer kernel (accumulators, sums, means) stay symbolic until a quantizer reads them, so
that nothing is rounded that a kernel does not round. Float operations that no kernel absorbs run in float32.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant import ops
from saq_qat.quant.integer_modules import ChannelAffine, IntegerConv2d, IntegerLayer, IntegerLinear, Quantize
from saq_qat_export import integer_math as math
from saq_qat_export.integer_math import CodeRange, Codes, Float32

__all__ = ["Reference", "run_reference"]


@dataclass(frozen=True)
class _CodeTensor(math.Stored):
    """Codes without zero point, and how they are stored."""

    def floats(self) -> Float32:
        return self.codes.astype(np.float32) * self.scale


@dataclass(frozen=True)
class _Accumulator:
    """What an integer convolution or product holds before it is scaled."""

    values: Codes
    input_scale: np.float32
    weight_scale: Float32

    def floats(self) -> Float32:
        scale = (self.input_scale * self.weight_scale).astype(np.float32)
        return self.values.astype(np.float32) * scale.reshape((1, -1) + (1,) * (self.values.ndim - 2))


@dataclass(frozen=True)
class _Sum:
    a: _CodeTensor
    b: _CodeTensor

    def floats(self) -> Float32:
        return self.a.floats() + self.b.floats()


@dataclass(frozen=True)
class _Mean:
    of: _CodeTensor

    def floats(self) -> Float32:
        return self.of.floats().mean(axis=(2, 3), keepdims=True, dtype=np.float32)


@dataclass(frozen=True)
class _Floats:
    """A value of a float operation."""

    values: Float32

    def floats(self) -> Float32:
        return self.values


_Value = _CodeTensor | _Accumulator | _Sum | _Mean | _Floats


@dataclass(frozen=True)
class Reference:
    """What a network must give: stored codes (zero point included, uint8) by tensor name, and the logits."""

    codes: dict[str, npt.NDArray[np.uint8]]
    logits: Float32


def run_reference(
    view: fx.GraphModule, images: Float32, taught: Mapping[str, npt.NDArray[np.uint8]] | None = None
) -> Reference:
    """Interpret ``view`` on float32 images (N, C, H, W).

    Args:
        taught: stored codes by tensor name that later layers read in place of the reference's own (teacher forcing), so
            that one difference is counted where it arises and not again behind it.

    Raises:
        ArtifactError: an accumulator leaves int32.
    """
    return _Interpreter(view, taught or {}).run(images)


class _Interpreter:
    def __init__(self, view: fx.GraphModule, taught: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        self.view = view
        self.taught = taught
        self.values: dict[fx.Node, _Value] = {}
        self.codes: dict[str, npt.NDArray[np.uint8]] = {}

    def run(self, images: Float32) -> Reference:
        for node in self.view.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = _Floats(images.astype(np.float32))
            elif node.op == "output":
                (result,) = node.all_input_nodes
                return Reference(self.codes, self.values[result].floats())
            elif node.op != "get_attr":
                self.values[node] = self._evaluate(node)
        raise ArtifactError("A deploy view needs an output node; this graph has none.")

    def _evaluate(self, node: fx.Node) -> _Value:
        module = self.view.get_submodule(str(node.target)) if node.op == "call_module" else None
        arguments = [self.values[parent] for parent in node.all_input_nodes if parent in self.values]
        first = arguments[0]
        if isinstance(module, Quantize):
            return self._quantize(str(node.target), module, first)
        if (
            isinstance(module, IntegerLayer)
            and isinstance(first, _CodeTensor)
            and module.bias_scale is not None
        ):
            return _accumulate(module, first)
        if isinstance(module, ChannelAffine):
            return _Floats(first.floats() * module.gain.numpy() + module.shift.numpy())
        if isinstance(module, nn.MaxPool2d) and isinstance(first, _CodeTensor):
            return _max_pool(module, first)
        if node.target is ops.DEQUANTIZE:
            return first
        if node.target is ops.GLOBAL_AVERAGE_POOL and isinstance(first, _CodeTensor):
            return _Mean(first)
        if node.target in (operator.add, operator.iadd, torch.add) and len(arguments) == 2:
            a, b = arguments
            return (
                _Sum(a, b)
                if isinstance(a, _CodeTensor) and isinstance(b, _CodeTensor)
                else _float_call(self, node)
            )
        if isinstance(first, _CodeTensor) and node.target in (
            "flatten",
            "reshape",
            "view",
            torch.flatten,
            torch.reshape,
        ):
            return self._reshape(node, first)
        if isinstance(module, nn.Flatten) and isinstance(first, _CodeTensor):
            return self._reshape(node, first)
        return _float_call(self, node)

    def _reshape(self, node: fx.Node, value: _CodeTensor) -> _CodeTensor:
        moved = _torch_call(self, node, {node.all_input_nodes[0]: torch.from_numpy(value.codes)})
        return _CodeTensor(moved.numpy(), value.scale, value.zero_point)

    def _quantize(self, path: str, module: Quantize, value: _Value) -> _CodeTensor:
        scale = np.float32(module.scale.item())
        codes = _to_codes(value, scale, module.zero_point, CodeRange(module.minimum, module.maximum))
        name = path.removeprefix("quantizers.") + ".codes"
        self.codes[name] = (codes + module.zero_point).astype(np.uint8)
        if name in self.taught:
            codes = self.taught[name].astype(np.int32) - module.zero_point
        return _CodeTensor(codes, scale, module.zero_point)


def _to_codes(value: _Value, scale: np.float32, zero_point: int, codes: CodeRange) -> Codes:
    """Requantize by the kernel that the value stands for."""
    match value:
        case _Accumulator(values, input_scale, weight_scale):
            return math.requantize_accumulator(values, input_scale, weight_scale, scale, codes)
        case _Sum(a, b):
            return math.requantize_sum(a, b, scale, zero_point, codes)
        case _Mean(of):
            return math.requantize_mean(of.codes, of.scale, scale, codes)
        case _CodeTensor(stored, input_scale, _):
            return math.requantize_codes(stored, input_scale, scale, codes)
        case _Floats(values):
            return math.quantize_float(values, scale, codes)


def _accumulate(module: IntegerLayer, x: _CodeTensor) -> _Accumulator:
    weight, bias = module.weight.numpy(), module.bias.numpy()
    if isinstance(module, IntegerConv2d):
        window = math.Window(module.stride, module.padding, module.dilation, module.groups)
        values = math.accumulate_conv(x.codes, weight, bias, window)
    elif isinstance(module, IntegerLinear):
        values = math.accumulate_linear(x.codes, weight, bias)
    else:
        raise ArtifactError(f"The integer reference has no arithmetic for {type(module).__name__}.")
    return _Accumulator(values, x.scale, module.weight_scale.numpy())


def _max_pool(module: nn.MaxPool2d, x: _CodeTensor) -> _CodeTensor:
    """On codes, where the order is the same and nothing is rounded."""
    pooled = F.max_pool2d(
        torch.from_numpy(x.codes.astype(np.float32)),
        module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode,
    )  # fmt: skip
    return _CodeTensor(pooled.numpy().astype(np.int32), x.scale, x.zero_point)


def _float_call(interpreter: _Interpreter, node: fx.Node) -> _Floats:
    """A float operation, by torch in float32 on the dequantized values."""
    known = {
        parent: torch.from_numpy(np.ascontiguousarray(interpreter.values[parent].floats()))
        for parent in node.all_input_nodes
        if parent in interpreter.values
    }
    return _Floats(_torch_call(interpreter, node, known).numpy())


def _torch_call(interpreter: _Interpreter, node: fx.Node, known: dict[fx.Node, torch.Tensor]) -> torch.Tensor:
    tracer = fx.Interpreter(interpreter.view)
    arguments, keywords = fx.node.map_arg((node.args, node.kwargs), lambda parent: known[parent])
    with torch.no_grad():
        result = getattr(tracer, node.op)(node.target, arguments, keywords)
    if not isinstance(result, torch.Tensor):
        raise ArtifactError(
            f"{node.name}: the integer reference follows tensors only; got {type(result).__name__}."
        )
    return result
