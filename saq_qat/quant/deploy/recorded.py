"""Records of a quantized network: read off its graph and plan, then filled with what training made of it."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx
from torch.nn.modules.batchnorm import _BatchNorm

from saq_qat.quant.deploy.float_records import float_records, operation_name
from saq_qat.quant.deploy.fold import refinement
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.plan.plan import LayerPlan, Plan, TensorPlan
from saq_qat.quant.plan.records import (
    BatchNormRecord,
    CodesRecord,
    LayerRecord,
    NetworkRecords,
    QuantizerRecord,
    WindowRecord,
)
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import groups
from saq_qat.quant.trace.inputs import activation_quantizers, quantizer_before

__all__ = ["fill_records", "plan_records", "take_up_statistics"]

_PREFIX = "quantizers."


def plan_records(network: fx.GraphModule, plan: Plan, *, refine_bias: bool) -> NetworkRecords:
    """Records without numbers of a network into which ``plan`` was inserted, folded for the deploy stage or
    not.

    Args:
        refine_bias: as ``deploy.refine_bias`` of the recipe.
    """
    nodes = {str(node.target): node for node in network.graph.nodes if node.op == "call_module"}
    layers = {layer.name: layer for layer in plan.layers}
    heads = {group.head: group.batch_norm for group in groups(network)}
    folded = {norm for head, norm in heads.items() if norm is not None and _is_layer(network, head)}
    return NetworkRecords(
        quantizers=tuple(_activation(network, nodes[_PREFIX + t.name], t) for t in plan.tensors),
        layers=tuple(
            _layer(network, node, layers[str(node.target)], heads[node], refine_bias=refine_bias)
            for node in network.graph.nodes
            if _is_layer(network, node)
        ),
        batch_norms=tuple(
            _batch_norm(network, node)
            for node in network.graph.nodes
            if graph.is_batch_norm(network, node) and node not in folded
        ),
        floats=tuple(float_records(network)),
        repeated=dict(_repeated(network)),
    )


def _is_layer(network: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(graph.module_of(network, node), QuantLayer)


def _activation(network: fx.GraphModule, node: fx.Node, plan: TensorPlan) -> QuantizerRecord:
    path = str(node.target)
    bound = None
    source = node.all_input_nodes[0]
    if not plan.offset and len(source.users) == 1:
        bound = graph.activation_bound(network, source)
    grid = plan.grid
    return QuantizerRecord(
        name=plan.name,
        role=plan.role,
        kind=plan.kind,
        bits=plan.bits,
        codes=CodesRecord(grid.minimum, grid.maximum, grid.unit, grid.step),
        axis=None,
        consumers=plan.consumers,
        clip_level_name=f"{path}.alpha",
        offset_name=f"{path}.beta" if plan.offset else None,
        counts_from_zero=plan.counts_from_zero,
        zero_below=bound is not None,
        ceiling=bound if bound is not None and math.isfinite(bound) else None,
    )


def _layer(
    network: fx.GraphModule, node: fx.Node, plan: LayerPlan, norm: fx.Node | None, *, refine_bias: bool
) -> LayerRecord:
    name = str(node.target)
    layer = network.get_submodule(name)
    assert isinstance(layer, QuantLayer)
    quantizer = quantizer_before(network, node)
    source = None if quantizer is None else str(graph.source_of(network, node).target)
    grid = plan.grid
    weight = QuantizerRecord(
        name=name,
        role="weight",
        kind=plan.kind,
        bits=plan.bits,
        codes=CodesRecord(grid.minimum, grid.maximum, grid.unit, grid.step),
        axis=0,
        consumers=(name,),
        clip_level_name=f"{name}.weight_quantizer.alpha",
    )
    return LayerRecord(
        name=name,
        op=plan.op,
        weight=weight,
        weight_name=f"{name}.weight",
        bias_name=None if layer.bias is None else f"{name}.bias",
        window=_window(layer),
        normalize=layer.normalize,
        rescale_std=layer.rescale_std,
        batch_norm=None if norm is None else _batch_norm(network, norm),
        channel_gain_name=f"{name}.channel_gain" if layer.folded else None,
        input=None if source is None else source.removeprefix(_PREFIX),
        refinement=refinement(layer, None if quantizer is None else quantizer.grid, refine=refine_bias),
        factor=_factor_behind(network, node) if plan.op == "linear" else 1.0,
    )


def _window(layer: QuantLayer) -> WindowRecord | None:
    if not isinstance(layer, QuantConv2d):
        return None
    return WindowRecord(tuple(layer.stride), tuple(layer.padding), tuple(layer.dilation), layer.groups)


def _batch_norm(network: fx.GraphModule, node: fx.Node) -> BatchNormRecord:
    norm = network.get_submodule(str(node.target))
    assert isinstance(norm, _BatchNorm)
    return BatchNormRecord(str(node.target), float(norm.eps), norm.weight is not None)


def _factor_behind(network: fx.GraphModule, node: fx.Node) -> float:
    """Product of the powers of two that alone read a layer's result, through reshapes."""
    factor = 1.0
    while True:
        readers = [user for user in node.users if not graph.is_shape_query(user)]
        if len(readers) != 1:
            return factor
        (node,) = readers
        if graph.is_reshape(network, node) or graph.is_identity(network, node):
            continue
        number = _power_of_two(node)
        if number is None:
            return factor
        factor *= number


def _power_of_two(node: fx.Node) -> float | None:
    numbers = [term for term in node.args if isinstance(term, (int, float)) and not isinstance(term, bool)]
    if node.kwargs or len(node.args) != 2 or len(numbers) != 1:
        return None
    number, name = float(numbers[0]), operation_name(node)
    if number <= 0 or not math.isfinite(number) or math.frexp(number)[0] != 0.5:
        return None
    if name == "mul":
        return number
    return 1 / number if name in ("truediv", "div") and numbers[0] is node.args[1] else None


def _repeated(network: fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Max pools whose input is codes, through whatever hands codes on."""
    for node in network.graph.nodes:
        if graph.is_max_pool(network, node):
            source = graph.value_of(network, node)
            if isinstance(graph.module_of(network, source), Quantizer):
                yield node.name, str(source.target).removeprefix(_PREFIX)


@torch.no_grad()
def fill_records(records: NetworkRecords, network: fx.GraphModule) -> NetworkRecords:
    """The records with the numbers of a trained or calibrated network."""
    quantizers, layers = activation_quantizers(network), quant_layers(network, every_use=True)
    return replace(
        records,
        quantizers=tuple(_filled(record, quantizers[record.name]) for record in records.quantizers),
        layers=tuple(_filled_layer(record, layers[record.name]) for record in records.layers),
    )


def _filled(record: QuantizerRecord, quantizer: Quantizer) -> QuantizerRecord:
    offset = quantizer.offset()
    return replace(
        record,
        clip_level=float(quantizer.alpha),
        scale=float(quantizer.scale),
        offset=None if offset is None else float(offset),
    )


def _filled_layer(record: LayerRecord, layer: QuantLayer) -> LayerRecord:
    weight = _filled(record.weight, layer.weight_quantizer)
    if not layer.normalize:
        return replace(record, weight=weight)
    mean, deviation = layer.weight_statistics()
    return replace(record, weight=weight, mean=float(mean), deviation=float(deviation))


def take_up_statistics(network: fx.GraphModule, records: NetworkRecords) -> None:
    """Let normalised layers use the mean and deviation they were trained with, in place.

    Taken anew they differ in the last bit from one number of threads or device to another, and with them the
    codes of weights that lie on a rounding tie.
    """
    layers = quant_layers(network, every_use=True)
    for record in records.layers:
        if record.mean is not None and record.deviation is not None:
            layers[record.name].set_statistics(record.mean, record.deviation)
