"""The trained network against its deploy view before biases are rounded: the same function, layer by layer.

Both run in float64 on the same images. The deploy view goes on, behind every quantizer and every layer, with
what the trained network has there, so that a difference is counted where it arises. Compared are what every
layer computes (with the BatchNorm folded into it), what every quantizer rounds and to which code, and the
logits: a wrong axis, order, sign, stride, bound, offset, zero point or scale of lowering shows here, where
comparisons of the view with what is exported from it see nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from saq_qat.quant.deploy.computed import computed_name
from saq_qat.quant.deploy.integer_modules import (
    ChannelAffine,
    IntegerLayer,
    IntegerLinear,
    Quantize,
    along_channels,
)
from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import groups
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.quantizer_sweep import compare_quantizers
from saq_qat_export.proof.tensors import TensorComparison, merge, producers
from saq_qat_export.proof.widened import widened_network, with_unrounded_biases
from saq_qat_export.reference.deploy_view import tensor_name

__all__ = ["FUNCTION_COMPARISON", "compare_function", "function_comparison"]

FUNCTION_COMPARISON = "fake-quant network in float64 = deploy view before biases are rounded"

_SHARE_OF_RANGE = 1e-9
"""Between layers everything is computed alike; sums in another order differ by 1e-13 of the range."""
_CONSTANTS = 2.0**-22
"""Scales and biases of folded layers are float32 numbers, each the result of up to four roundings."""
_COMPUTED = 2.0**-18
"""What parameters alone decide may pass through a few layers in float32, whose sums round."""
_ROUNDING_HALF, _BIAS_BITS = 0.5 + 1e-6, 22


@dataclass
class _Trained:
    """What the trained network computes on one batch, float64, by module path.

    Attributes:
        rounded: for each quantizer, its input, its output, and ``_offset_of`` it.
        computed: for each layer and each BatchNorm that no layer holds, its result.
    """

    rounded: dict[str, tuple[Tensor, Tensor, float, float]] = field(default_factory=dict)
    computed: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


class _Recorder(fx.Interpreter):
    """Runs the trained network and keeps what will be compared; copies, since a ReLU may write in place."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.network = network
        self.results = dict(_results(network))
        self.seen = _Trained()

    def run_node(self, n: fx.Node) -> Any:
        module = graph.module_of(self.network, n)
        before = self.env[n.all_input_nodes[0]].clone() if isinstance(module, Quantizer) else None
        result = super().run_node(n)
        if isinstance(module, Quantizer) and before is not None:
            self.seen.rounded[str(n.target)] = (before, result.clone(), *_offset_of(module))
        if n in self.results:
            self.seen.computed[self.results[n]] = result.clone()
        if n.op == "output":
            self.seen.logits = result
        return result


def _offset_of(quantizer: Quantizer) -> tuple[float, float]:
    """Value of code 0, and the size of what it is made of: float32 rounds the terms of a difference."""
    offset = quantizer.offset()
    if offset is None or quantizer.beta is None:
        return 0.0, 0.0
    zero = float(offset.detach())
    return zero, max(abs(zero), abs(float(quantizer.beta.detach())))


def _results(network: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    """Nodes whose values a deploy view computes with constants of its own, and the module that does there."""
    for group in groups(network):
        if isinstance(graph.module_of(network, group.head), QuantLayer):
            yield group.batch_norm or group.head, str(group.head.target)
        elif graph.is_batch_norm(network, group.head):
            yield group.head, str(group.head.target)


class _Comparing(fx.Interpreter):
    """Runs a deploy view on what the trained network computed, and compares each step."""

    def __init__(self, view: fx.GraphModule, trained: _Trained) -> None:
        super().__init__(view)
        self.view, self.trained = view, trained
        self.kinds = producers(view)
        self.offset = max((size for *_, size in trained.rounded.values()), default=0.0)
        self.comparisons: list[TensorComparison] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        module = graph.module_of(self.view, n)
        path = str(n.target)
        if isinstance(module, Quantize) and path in self.trained.rounded:
            return self._codes(n, module, result)
        if isinstance(module, IntegerLayer | ChannelAffine):
            return self._values(path, module, result)
        if n.op == "output":
            self._note(LOGITS, result, self.trained.logits, _floor(self.trained.logits))
        return result

    def _values(self, path: str, module: IntegerLayer | ChannelAffine, own: Tensor) -> Tensor:
        """Compared up to the rounding of constants to float32; goes on with the trained network's."""
        trained = self.trained.computed.pop(path, None)
        if trained is None or trained.shape != own.shape:
            self._note(path, own, None, own)
            return own if trained is None else trained
        if isinstance(module, IntegerLayer):
            trained = trained * module.factor
            terms = self._constant_terms(module, own)
        else:
            terms = along_channels(module.shift.abs(), own)
        self._note(path, own, trained, _CONSTANTS * (trained.abs() + 2 * terms) + _floor(trained))
        return trained

    def _constant_terms(self, layer: IntegerLayer, own: Tensor) -> Tensor:
        """Size of what each channel's bias is made of: an offset of the input may cancel the rest of it."""
        terms = layer.float_bias().abs() + self.offset * layer.float_weight().flatten(1).sum(1).abs()
        channel = own.dim() - 1 if isinstance(layer, IntegerLinear) else 1
        return terms.reshape([-1 if axis == channel else 1 for axis in range(own.dim())])

    def _codes(self, node: fx.Node, module: Quantize, own: Tensor) -> Tensor:
        """What is rounded where codes are not at their bounds, and every code but those beside a tie."""
        path = str(node.target)
        value, output, zero, size = self.trained.rounded.pop(path)
        name = tensor_name(path)
        scale = module.scale
        if value.numel() != own.numel():
            self._note(name, own, None, own)
            return (((output - zero) / scale).round() + module.zero_point).to(own.dtype)
        steps = self.env[node.all_input_nodes[0]] / scale
        trained = ((value - zero) / scale).reshape(own.shape)
        code = ((output - zero) / scale).round().reshape(own.shape)
        allowed = _SHARE_OF_RANGE * (module.maximum - module.minimum) + _CONSTANTS * size / float(scale)
        inside = (steps > module.minimum + 0.5) & (steps < module.maximum - 0.5)
        strays = inside & ~((steps - trained).abs() <= allowed)
        step = (own.double() - module.zero_point - code).abs()
        wrong, ties, largest = strays, 0, int(step.max())
        if largest:
            beside = ((steps - steps.floor()) - 0.5).abs() <= allowed
            wrong = strays | ((step > 0) & ~(beside & (step <= 1)))
            ties = int(((step > 0) & ~wrong).sum())
        self._add(name, own.numel(), int(wrong.sum()), ties, largest)
        return (code + module.zero_point).to(own.dtype)

    def _note(self, name: str, own: Tensor, trained: Tensor | None, allowed: Tensor) -> None:
        same = trained is not None and own.shape == trained.shape
        wrong = ~((own - trained).abs() <= allowed) if same and trained is not None else None
        count = own.numel() if wrong is None else int(wrong.sum())
        self._add(name, own.numel(), count, 0, int(count > 0))

    def _add(self, name: str, compared: int, wrong: int, ties: int, step: int) -> None:
        kind = self.kinds.get(name, "integer")
        self.comparisons.append(TensorComparison(name, kind, compared, wrong, ties, ties, step))


def _floor(values: Tensor) -> Tensor:
    """Roundings of float64 where terms cancel; the last term is for channels that are nothing but zeros."""
    return _SHARE_OF_RANGE * values.abs().max() * 1e-3 + 1e-30


@torch.no_grad()
def compare_function(
    network: fx.GraphModule, view: fx.GraphModule, batches: Iterable[Tensor]
) -> list[TensorComparison]:
    """Compare a trained network with its deploy view.

    Args:
        network: quantized, in float32.
        view: its deploy view in float32, as it is exported.
        batches: float32 images (N, C, H, W), normalised.

    Raises:
        GateError: the trained network computes with a weight that lies on no grid.
    """
    wide = widened_network(network)
    exact = with_unrounded_biases(view, network, wide)
    parts = [compare_quantizers(network, view), _compare_biases(view), _compare_computed(view, exact)]
    for batch in batches:
        for index in range(len(batch)):
            image = batch[index : index + 1].double()
            recorder = _Recorder(wide)
            recorder.run(image)
            comparing = _Comparing(exact, recorder.seen)
            comparing.run(image)
            parts.append(comparing.comparisons + _missing(recorder.seen))
    return merge(parts)


def _missing(trained: _Trained) -> list[TensorComparison]:
    """What the trained network computes and the deploy view has nowhere."""
    names = [*map(tensor_name, trained.rounded), *trained.computed]
    return [TensorComparison(f"{name} (not in the deploy view)", "integer", 1, 1, 0, 0, 1) for name in names]


def _compare_biases(view: fx.GraphModule) -> list[TensorComparison]:
    """Integer biases against those before rounding: at most half a unit apart, or half of their 22nd bit."""
    found = []
    for path, module in view.named_modules():
        if isinstance(module, IntegerLayer) and module.bias_scale is not None:
            units = module.before_rounding.bias * module.factor / module.bias_scale.double()
            last_bit = torch.exp2((torch.frexp(units).exponent - _BIAS_BITS).clamp_min(0).double())
            wrong = ~((units - module.bias.double()).abs() <= _ROUNDING_HALF * last_bit)
            count = int(wrong.sum())
            found.append(
                TensorComparison(f"{path}.bias", "integer", units.numel(), count, 0, 0, int(count > 0))
            )
    return found


def _compare_computed(view: fx.GraphModule, exact: fx.GraphModule) -> list[TensorComparison]:
    """What the network computes from its parameters, in float32 and in float64."""
    wide, found = dict(exact.named_buffers()), []
    for name, own in view.named_buffers():
        if name in wide and name.endswith(computed_name("")):
            allowed = _COMPUTED * wide[name].abs().max() + _floor(wide[name])
            count = int((~((own.double() - wide[name]).abs() <= allowed)).sum())
            found.append(TensorComparison(name, "float", own.numel(), count, 0, 0, int(count > 0)))
    return found


def function_comparison(
    network: fx.GraphModule, view: fx.GraphModule, batches: Iterable[Tensor]
) -> Comparison:
    """The comparison as a hard one of the proof: passed if nothing differs."""
    tensors = compare_function(network, view, batches)
    wrong = [tensor for tensor in tensors if tensor.mismatches]
    compared, differing = sum(t.compared for t in tensors), sum(t.mismatches for t in tensors)
    first = [f"first at {t.name}: {t.mismatches:,} of {t.compared:,}" for t in wrong[:1]]
    others = [f"{len(wrong)} of {len(tensors)} tensors differ: {', '.join(t.name for t in wrong)}"] * bool(
        wrong
    )
    ties = sum(t.ties for t in tensors)
    beside = [f"{ties:,} codes at a rounding tie"] if ties else []
    return Comparison(
        FUNCTION_COMPARISON,
        True,
        not wrong,
        compared,
        differing,
        "; ".join([*first, *others, *beside]),
        tuple(tensors),
    )
