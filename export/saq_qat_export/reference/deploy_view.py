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
from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import ChannelAffine, IntegerConv2d, IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import float_results, is_integer_product, quantizer_behind
from saq_qat.quant.trace import graph
from saq_qat_export.reference import integer_math as math
from saq_qat_export.reference.integer_math import CodeRange, Codes, Float32, Weights
from saq_qat_export.reference.saturating_pairs import can_saturate, conv_saturation, saturation
from saq_qat_export.reference.values import (
    Accumulator,
    Array,
    CodeTensor,
    Floats,
    Mean,
    Opaque,
    Sum,
    Value,
    to_codes,
)

__all__ = ["Reference", "Stored", "StoredCodes", "run_reference", "tensor_name"]

Stored = npt.NDArray[np.uint8] | npt.NDArray[np.int8]
StoredCodes = Mapping[str, Stored]


@dataclass(frozen=True)
class Reference:
    """What a network must give.

    Attributes:
        codes: stored codes (zero point included, uint8 or int8) by tensor name.
        values: float32 results of integer products that no quantizer follows, by layer or graph node; logits
            among them if such a product writes them.
        is_saturated: whether saturation changed any sum.
        may_saturate: whether these codes could leave int16 in some pair of products, in the worst order.
    """

    codes: dict[str, Stored]
    values: dict[str, Float32]
    logits: Float32
    is_saturated: bool = False
    may_saturate: bool = True


def tensor_name(quantizer: str) -> str:
    """Name of the ONNX tensor that holds the codes of the quantizer at this module path."""
    return quantizer.removeprefix("quantizers.") + ".codes"


def run_reference(
    view: fx.GraphModule, images: Float32, taught: StoredCodes | None = None, *, saturating: bool = False
) -> Reference:
    """Interpret ``view`` on float32 images (N, C, H, W).

    Args:
        taught: stored codes by tensor name that later layers read in place of the reference's own (teacher
            forcing), so that one difference is counted where it arises and not again behind it.
        saturating: add pairs of uint8 by int8 products as x86 CPUs without VNNI do, instead of exactly.

    Raises:
        ArtifactError: an accumulator leaves int32.
    """
    return _Interpreter(view, taught or {}, saturating=saturating).run(images)


class _Interpreter:
    def __init__(self, view: fx.GraphModule, taught: StoredCodes, *, saturating: bool) -> None:
        self.view = view
        self.taught = taught
        self.saturating = saturating
        self.values: dict[fx.Node, Value | Opaque] = {}
        self.codes: dict[str, Stored] = {}
        self.named = float_results(view)
        self.floats: dict[str, Float32] = {}
        self.is_saturated = self.may_saturate = False
        self.caller = fx.Interpreter(view, garbage_collect_values=False)

    def run(self, images: Float32) -> Reference:
        for node in self.view.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = Floats(images.astype(np.float32))
            elif node.op == "output":
                (result,) = node.all_input_nodes
                logits = self._value(result).floats()
                return Reference(self.codes, self.floats, logits, self.is_saturated, self.may_saturate)
            else:
                self.values[node] = self._evaluate(node)
        raise ArtifactError("A deploy view needs an output node; this graph has none.")

    def _value(self, node: fx.Node) -> Value:
        value = self.values[node]
        if not isinstance(value, Opaque):
            return value
        if isinstance(value.value, Tensor) and value.value.is_floating_point():
            return Floats(value.value.detach().float().numpy())
        kind = type(value.value).__name__
        raise ArtifactError(f"{node.name}: expected a tensor of floats or codes; got a value of type {kind}.")

    def _evaluate(self, node: fx.Node) -> Value | Opaque:
        module = graph.module_of(self.view, node)
        first = self.values[node.all_input_nodes[0]] if node.all_input_nodes else None
        if isinstance(module, Quantize):
            return self._quantize(str(node.target), module, self._value(node.all_input_nodes[0]))
        if node.target is ops.DEQUANTIZE and first is not None:
            return first
        if isinstance(module, ChannelAffine) and not (first is None or isinstance(first, Opaque)):
            return _affine(module, first.floats())
        if is_integer_product(self.view, node):
            return self._product(node, module)
        if isinstance(first, (CodeTensor, Accumulator)):
            return self._on_integers(node, module, first)
        return self._float_call(node)

    def _product(self, node: fx.Node, module: nn.Module | None) -> Value | Opaque:
        """Sums for the quantizer behind the kernel; floats where there is none."""
        operands = [self.values[term] for term in node.args if isinstance(term, fx.Node)]
        codes = [operand for operand in operands if isinstance(operand, CodeTensor)]
        if len(codes) != len(operands):
            return self._float_call(node)
        if isinstance(module, IntegerLayer):
            sums = self._sums(module, codes[0])
        else:
            sums = Accumulator.of_product(*codes)
            self._note_pairs(codes[0], codes[1].codes)
            if self.saturating and codes[1].dtype == "int8":
                sums = self._saturated(sums, saturation(codes[0].codes + codes[0].zero_point, codes[1].codes))
        if quantizer_behind(self.view, node) is not None:
            return sums
        if node in self.named:
            self.floats[self.named[node]] = sums.floats()
        return Floats(sums.floats())

    def _on_integers(
        self, node: fx.Node, module: nn.Module | None, first: CodeTensor | Accumulator
    ) -> Value | Opaque:
        """An operation whose input is codes, or sums on their way to codes: an integer kernel, if any."""
        if graph.is_reshape(self.view, node):
            return first.moved(lambda integers: self._moved(node, integers))
        if isinstance(first, Accumulator):
            return self._float_call(node)
        if isinstance(module, IntegerConv2d) and module.bias_scale is not None:
            return self._sums(module, first)
        if node.target is ops.GLOBAL_AVERAGE_POOL:
            return Mean(first)
        if graph.is_add(self.view, node):
            a, b = (self.values[term] for term in node.args if isinstance(term, fx.Node))
            if isinstance(a, CodeTensor) and isinstance(b, CodeTensor):
                return Sum(a, b)
        return self._float_call(node)

    def _sums(self, module: IntegerLayer, x: CodeTensor) -> Accumulator:
        """What a layer's kernel holds before it writes codes or floats."""
        weight, bias, scale = module.weight.numpy(), module.bias.numpy(), module.weight_scale.numpy()
        self._note_pairs(x, weight)
        if isinstance(module, IntegerConv2d):
            window = math.Window(module.stride, module.padding, module.dilation, module.groups)
            sums = math.accumulate_conv(x.codes, weight, bias, window)
            exact = Accumulator.of_channels(sums, x.scale, scale, axis=1)
            if not self.saturating:
                return exact
            return self._saturated(
                exact, conv_saturation(x.codes + x.zero_point, x.zero_point, weight, window)
            )
        exact = Accumulator.of_channels(
            math.accumulate_linear(x.codes, weight, bias), x.scale, scale, axis=-1
        )
        if not self.saturating:
            return exact
        stored = x.codes + x.zero_point
        rows = saturation(stored.reshape(-1, stored.shape[-1]), weight.T)
        return self._saturated(exact, rows.reshape(exact.values.shape))

    def _note_pairs(self, x: CodeTensor, weight: Weights) -> None:
        """Padding is stored as the zero point."""
        largest = np.array([x.codes.max(initial=0) + x.zero_point, x.zero_point])
        self.may_saturate |= can_saturate(largest, weight)

    def _saturated(self, exact: Accumulator, added: Codes) -> Accumulator:
        """The sums with what saturation adds to them."""
        if not added.any():
            return exact
        self.is_saturated = True
        return exact.plus(added)

    def _moved(self, node: fx.Node, integers: Array) -> Array:
        """A carrier applied to other values than those of its source."""
        source = torch.from_numpy(np.require(integers, requirements=["C", "W"]))
        moved: Tensor = self._torch_call(node, {node.all_input_nodes[0]: source})
        return moved.numpy()

    def _quantize(self, path: str, module: Quantize, value: Value) -> CodeTensor:
        scale = np.float32(module.scale.item())
        codes = to_codes(value, scale, module.zero_point, CodeRange(module.minimum, module.maximum))
        name = tensor_name(path)
        self.codes[name] = (codes + module.zero_point).astype(module.stored)
        if name in self.taught:
            # of any number of samples: probes give every tensor its own
            taught = self.taught[name].reshape(-1, *codes.shape[1:])
            codes = taught.astype(np.int32) - module.zero_point
        return CodeTensor(codes, scale, module.zero_point, module.stored)

    def _float_call(self, node: fx.Node) -> Floats | Opaque:
        """A float operation, by torch in float32 on the dequantized values."""
        result = self._torch_call(node, {})
        if isinstance(result, Tensor) and node.op != "get_attr":
            return Floats(result.numpy())
        return Opaque(result)

    def _torch_call(self, node: fx.Node, known: Mapping[fx.Node, Tensor]) -> Any:
        arguments, keywords = fx.node.map_arg(
            (node.args, node.kwargs), lambda parent: known[parent] if parent in known else self._plain(parent)
        )
        with torch.no_grad():
            return getattr(self.caller, node.op)(node.target, arguments, keywords)

    def _plain(self, node: fx.Node) -> Any:
        value = self.values[node]
        if isinstance(value, Opaque):
            return value.value
        return torch.from_numpy(np.ascontiguousarray(value.floats()))


def _affine(module: ChannelAffine, x: Float32) -> Floats:
    shape = (-1, *[1] * (x.ndim - 2))
    return Floats(x * module.gain.numpy().reshape(shape) + module.shift.numpy().reshape(shape))
