"""From the training graph to the deploy stage and the deploy view: the same network with its integers."""

import torch
from torch import fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.fold import batch_norm_affine, refinement
from saq_qat.quant.deploy.kernel_readers import hand_readers
from saq_qat.quant.deploy.lowering import lower
from saq_qat.quant.numerics.layers import QuantLayer, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import Group, groups
from saq_qat.quant.trace.inputs import hand_quantizer, quantizer_before
from saq_qat.recipe.schema import Deploy

__all__ = ["deploy_view", "fold_batch_norm"]


def fold_batch_norm(network: fx.GraphModule, *, refine_bias: bool = True) -> fx.GraphModule:
    """Training graph of the deploy stage, in place: BatchNorm frozen and folded, biases rounded
    straight-through.

    Every integer layer gains a learned bias on the grid that deployment gives it; weights, clip levels and
    biases go on learning, the BatchNorms are gone. Folding twice is folding once.

    Args:
        refine_bias: as ``deploy.refine_bias`` of the recipe, so that training rounds biases as deployment
            does.
    """
    _part_uses(network)
    for group in list(groups(network)):
        layer = graph.module_of(network, group.head)
        if isinstance(layer, QuantLayer) and not layer.folded:
            _fold_group(network, group, layer, refine_bias=refine_bias)
    hand_readers(network)
    network.graph.lint()
    network.recompile()
    return network


def _part_uses(network: fx.GraphModule) -> None:
    """Give every use of a layer a bias and a gain of its own; weight and weight quantizer stay shared."""
    seen: set[nn.Module] = set()
    for path, layer in quant_layers(network, every_use=True).items():
        if layer in seen:
            network.set_submodule(path, layer.another_use())
        seen.add(layer)


def _fold_group(network: fx.GraphModule, group: Group, layer: QuantLayer, *, refine_bias: bool) -> None:
    norm = None if group.batch_norm is None else graph.module_of(network, group.batch_norm)
    quantizer = quantizer_before(network, group.head)
    factor = refinement(layer, None if quantizer is None else quantizer.grid, refine=refine_bias)
    _fold_into(layer, norm, factor)
    if group.batch_norm is not None:
        path = str(group.batch_norm.target)
        group.batch_norm.replace_all_uses_with(group.head)
        network.graph.erase_node(group.batch_norm)
        if all(node.target != path for node in network.graph.nodes):
            network.delete_submodule(path)
    hand_quantizer(network, group.head)


@torch.no_grad()
def _fold_into(layer: QuantLayer, norm: nn.Module | None, factor: int) -> None:
    out = layer.weight.shape[0]
    gain, shift = layer.weight.new_ones(out), layer.weight.new_zeros(out)
    if norm is not None:
        gain, shift = batch_norm_affine(norm)
    bias = shift if layer.bias is None else layer.bias.double() * gain + shift
    layer.fold(gain, bias, factor)


def deploy_view(network: fx.GraphModule, deploy: Deploy) -> fx.GraphModule:
    """A float32 module in evaluation mode that computes with the integers export will write.

    Works from the training graph as well as from the deploy stage, and shares no tensor with it.
    ``.double()`` turns it into the float64 reference.

    Raises:
        ArtifactError: a quantizer was never initialised, or an integer does not fit its type.
    """
    for name, module in network.named_modules():
        if isinstance(module, Quantizer) and not bool(module.initialised):
            raise ArtifactError(
                f"Quantizer {name!r} was never initialised, so its scale means nothing. "
                "Calibrate or train the network first."
            )
    return lower(network, refine=deploy.refine_bias)
