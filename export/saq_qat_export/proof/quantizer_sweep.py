"""Every quantizer of a trained network against the one that ships, on values chosen to tell them apart."""

import torch
from torch import Tensor, fx

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph
from saq_qat_export.proof.tensors import TensorComparison
from saq_qat_export.reference.deploy_view import tensor_name

__all__ = ["compare_quantizers"]

_BEYOND = 3


@torch.no_grad()
def compare_quantizers(network: fx.GraphModule, view: fx.GraphModule) -> list[TensorComparison]:
    """Codes of each quantizer, as trained and as deployed, in float32 on ties, their neighbours and beyond.

    An activation whose bounds live on as bounds of codes is applied to what the trained one gets.
    """
    found = []
    shipped = {str(n.target): graph.module_of(view, n) for n in view.graph.nodes if n.op == "call_module"}
    for node in network.graph.nodes:
        quantizer, module = graph.module_of(network, node), shipped.get(str(node.target))
        if isinstance(quantizer, Quantizer) and isinstance(module, Quantize):
            found.append(_compare(network, view, node, quantizer, module))
    return found


def _compare(
    network: fx.GraphModule, view: fx.GraphModule, node: fx.Node, quantizer: Quantizer, module: Quantize
) -> TensorComparison:
    offset = quantizer.offset()
    values = _hard_values(quantizer, offset)
    trained = quantizer(_activated(network, view, node, values))
    own = module(values if offset is None else values - offset).int() - module.zero_point
    codes = (trained if offset is None else trained - offset).div(quantizer.scale).round().int()
    step = (own - codes).abs()
    wrong = int((step > 0).sum())
    return TensorComparison(
        tensor_name(str(node.target)), "integer", values.numel(), wrong, 0, 0, int(step.max())
    )


def _hard_values(quantizer: Quantizer, offset: Tensor | None) -> Tensor:
    """Float32: half-steps and whole steps over the grid and beyond it, their neighbours, zero, far ends."""
    low, high = quantizer.code_range()
    halves = torch.arange(2 * (low - _BEYOND), 2 * (high + _BEYOND) + 1, dtype=torch.float64) / 2
    values = (halves * quantizer.scale.double() + (0.0 if offset is None else offset.double())).float()
    infinity = torch.full_like(values, torch.inf)
    ends = torch.tensor([0.0, -0.0, 1e9, -1e9])
    return torch.cat([values, values.nextafter(infinity), values.nextafter(-infinity), ends])


def _activated(network: fx.GraphModule, view: fx.GraphModule, node: fx.Node, values: Tensor) -> Tensor:
    """What the trained quantizer gets where the deployed one gets ``values``."""
    source = node.all_input_nodes[0]
    bound = graph.activation_bound(network, source)
    stays = any(other.name == source.name for other in view.graph.nodes)
    return values if bound is None or stays else values.clamp(0.0, bound)
