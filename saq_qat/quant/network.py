"""From a float model to a quantized network: trace, plan, judge, insert, calibrate."""

import copy
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from saq_qat.errors import DataError, LegalityError
from saq_qat.quant.numerics.kinds.table import KINDS
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer, QuantLinear, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer, observing
from saq_qat.quant.numerics.statistics import averaged_statistics
from saq_qat.quant.plan.legality import judge
from saq_qat.quant.plan.placement import place
from saq_qat.quant.plan.plan import LayerPlan, Plan, TensorPlan
from saq_qat.quant.trace.graph import is_carrier, module_of
from saq_qat.quant.trace.inputs import activation_quantizers, hand_quantizer
from saq_qat.quant.trace.sizes import ImageShape
from saq_qat.quant.trace.tracer import trace
from saq_qat.recipe.schema import Cpu, Quant

__all__ = ["WeightsTooLargeError", "calibrate", "insert_quantizers", "plan_network", "quantize"]

_OUT_OF_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}


def plan_network(
    model: nn.Module,
    quant: Quant,
    targets: tuple[str, ...],
    *,
    cpu: Cpu = "any",
    image: ImageShape | None = None,
) -> tuple[fx.GraphModule, Plan]:
    """The traced float network and its judged plan; nothing is changed and no finding raises.

    Args:
        image: (C, H, W) of the images it is for, which makes sizes known; see ``trace``.
        cpu: as ``deploy.onnxruntime.cpu`` of the recipe.

    Raises:
        LegalityError: the model cannot be traced, or the policy cannot be applied to it.
    """
    network = trace(model, image)
    return network, judge(place(network, quant, targets, cpu=cpu), network, targets, cpu=cpu)


def quantize(
    model: nn.Module,
    quant: Quant,
    targets: tuple[str, ...],
    *,
    cpu: Cpu = "any",
    image: ImageShape | None = None,
    initialise: bool = True,
) -> tuple[fx.GraphModule, Plan]:
    """A quantized network that shares ``model``'s parameters, weights initialised, activations not yet
    calibrated; arguments as of ``plan_network``.

    Args:
        initialise: not where the clip levels of a checkpoint take their place.

    Raises:
        LegalityError: a target cannot run what the plan asks for; the message lists every error.
    """
    network, plan = plan_network(model, quant, targets, cpu=cpu, image=image)
    if plan.errors:
        raise LegalityError("The targets cannot run this plan:\n" + "\n".join(f"  {e}" for e in plan.errors))
    insert_quantizers(network, plan)
    for name, layer in quant_layers(network).items() if initialise else ():
        layer.weight_quantizer.initialise(layer.quantizer_input().detach())
        _check_scale(name, layer)
    return network, plan


class WeightsTooLargeError(LegalityError):
    """Weights whose scale float32 cannot hold."""


def _check_scale(name: str, layer: QuantLayer) -> None:
    largest = float(layer.weight.detach().abs().max())
    if not bool(torch.isfinite(torch.stack([layer.weight_quantizer.alpha, layer.weight_deviation()])).all()):
        raise WeightsTooLargeError(
            f"A scale must be a finite float32; the weights of {name} reach {largest:.3g}, and their clip "
            "level or deviation overflows. Initialise the layer, or take pretrained weights, within 1e18."
        )


def insert_quantizers(network: fx.GraphModule, plan: Plan) -> None:
    """Replace every planned layer and put every planned quantizer behind its node, in place."""
    _quantize_layers(network, plan)
    network.add_submodule("quantizers", nn.ModuleDict())
    nodes = {node.name: node for node in network.graph.nodes}
    value = dict(nodes)
    for tensor in plan.tensors:
        path = f"quantizers.{tensor.name}"
        network.add_submodule(path, _activation_quantizer(tensor))
        source = value[tensor.after]
        with network.graph.inserting_after(source):
            quantized = network.graph.call_module(path, (source,))
        if tensor.shared:
            source.replace_all_uses_with(quantized, delete_user_cb=lambda user, q=quantized: user is not q)
            value[tensor.after] = quantized
        else:
            for consumer in tensor.consumers:
                nodes[consumer].replace_input_with(source, quantized)
        for reader in list(_readers(network, quantized)):
            _read_only(network, reader)
    for tensor in plan.tensors:
        if tensor.counts_from_zero:
            _tell_padding(network, [nodes[consumer] for consumer in tensor.consumers])
    network.graph.lint()
    network.recompile()


def _quantize_layers(network: fx.GraphModule, plan: Plan) -> None:
    """A layer used twice stays one layer, and a parameter of two layers has one quantizer."""
    made: dict[nn.Module, QuantLayer] = {}
    quantizers: dict[Tensor, Quantizer] = {}
    for layer in plan.layers:
        module = network.get_submodule(layer.name)
        if module not in made:
            made[module] = _quant_layer(module, layer)
            weight = made[module].weight
            made[module].weight_quantizer = quantizers.setdefault(weight, made[module].weight_quantizer)
        network.set_submodule(layer.name, made[module])


def _tell_padding(network: fx.GraphModule, readers: Iterable[fx.Node]) -> None:
    """Hand the quantizer to those that pad its codes with zeros, whose value it knows."""
    for reader in readers:
        module = module_of(network, reader)
        if isinstance(module, QuantConv2d) and module.pads:
            hand_quantizer(network, reader)


def _readers(network: fx.GraphModule, node: fx.Node) -> Iterator[fx.Node]:
    """Who reads a tensor, or a view of it."""
    for user in node.users:
        yield user
        if is_carrier(network, user):
            yield from _readers(network, user)


def _read_only(network: fx.GraphModule, reader: fx.Node) -> None:
    """Keep a reader of codes from overwriting them in place: backward needs them."""
    module = module_of(network, reader)
    if module is not None and getattr(module, "inplace", False):
        copied: Any = copy.copy(module)
        copied.inplace = False
        network.set_submodule(str(reader.target), copied)
    if reader.kwargs.get("inplace", False):
        reader.update_kwarg("inplace", False)
    if reader.op == "call_method" and str(reader.target).endswith("_"):
        reader.target = str(reader.target).rstrip("_")
    if reader.op == "call_function" and reader.target in _OUT_OF_PLACE:
        reader.target = _OUT_OF_PLACE[reader.target]


def _quant_layer(module: nn.Module, layer: LayerPlan) -> QuantLayer:
    quantizer = Quantizer(layer.grid, bits=layer.bits, method=layer.initialise, kind=KINDS[layer.kind])
    if isinstance(module, nn.Conv2d):
        return QuantConv2d(module, quantizer, normalize=layer.normalize, rescale_std=layer.rescale_std)
    if isinstance(module, nn.Linear):
        return QuantLinear(module, quantizer, normalize=layer.normalize, rescale_std=layer.rescale_std)
    raise LegalityError(
        f"{layer.name}: a {type(module).__name__} cannot be quantized; a plan names Conv2d and Linear."
    )


def _activation_quantizer(tensor: TensorPlan) -> Quantizer:
    return Quantizer(
        tensor.grid,
        bits=tensor.bits,
        offset=tensor.offset,
        counts_from_zero=tensor.counts_from_zero,
        method=tensor.initialise,
        kind=KINDS[tensor.kind],
    )


@torch.no_grad()
def calibrate(network: fx.GraphModule, batches: Iterable[Tensor]) -> None:
    """Place every activation quantizer on sample images, and give BatchNorm the statistics of the quantized
    network.

    The statistics are re-estimated as the mean over the batches, because weight normalisation changes what
    every BatchNorm sees and would leave those of a full-precision checkpoint wrong.

    Args:
        batches: float32 images (N, C, H, W), normalised as in training.

    Raises:
        DataError: there is no batch.
        LegalityError: a quantizer was handed numbers that are not finite.
    """
    seen = 0
    with averaged_statistics(network), observing(list(activation_quantizers(network).values())):
        for batch in batches:
            network(batch)
            seen += 1
    if not seen:
        raise DataError(
            "Calibration needs at least one batch of images; the data gave none. "
            "Give more training images, or a smaller batch_size."
        )
    for name, quantizer in activation_quantizers(network).items():
        if not bool(torch.isfinite(quantizer.alpha).all()):
            raise LegalityError(
                f"What is quantized must be finite; {name} holds numbers on the first images that are not. "
                "A padding of -inf before a pooling, or a mask, is written with padding= of the pooling "
                "itself, or with a large number."
            )
