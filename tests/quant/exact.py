"""Quantized networks whose scales are exact in float32: comparisons in float64 have nothing to forgive."""

import copy

import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.fold import batch_norm_affine
from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.numerics.layers import QuantLayer, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace.inputs import quantizer_before

__all__ = ["with_exact_scales", "with_unrounded_biases"]


def few_bits(x: Tensor, bits: int = 6) -> Tensor:
    """Rounded to ``bits`` binary digits, so that products of a few such numbers are exact in float32."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def with_exact_scales(network: fx.GraphModule) -> fx.GraphModule:
    """A float64 copy whose scales and gains are short binary numbers, exact in float32 too."""
    network = copy.deepcopy(network).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Quantizer):
                module.alpha.copy_(few_bits(module.scale) * module.grid.unit)
                if module.beta is not None:
                    module.beta.copy_(few_bits(module.beta))
            if isinstance(module, nn.BatchNorm2d):
                gain, _ = batch_norm_affine(module)
                module.weight.copy_(module.weight * few_bits(gain) / gain)
            if isinstance(module, QuantLayer):
                module.normalize = module.rescale_std = False
                if module.channel_gain is not None:
                    module.channel_gain.copy_(few_bits(module.channel_gain))
    return network


def exact_bias(layer: QuantLayer, norm: nn.Module | None, quantizer: Quantizer | None) -> Tensor:
    """Bias of a layer, its BatchNorm and its input's offset in float64, rounded nowhere."""
    offset = None if quantizer is None else quantizer.offset()
    if offset is not None:
        sums = layer.quantized_weight().detach().flatten(1).sum(1) * offset.detach()
        own = exact_bias(layer, norm, None)
        gain = torch.ones_like(own) if norm is None else batch_norm_affine(norm)[0]
        return own + gain * sums
    own = (
        torch.zeros(layer.weight.shape[0], dtype=torch.float64) if layer.bias is None else layer.bias.detach()
    )
    if norm is None:
        return own
    gain, shift = batch_norm_affine(norm)
    return own * gain + shift


def batch_norm_of(network: fx.GraphModule, name: str) -> nn.Module | None:
    node = next(node for node in network.graph.nodes if node.target == name)
    reader = next(iter(node.users))
    module = network.get_submodule(str(reader.target)) if reader.op == "call_module" else None
    return module if isinstance(module, nn.BatchNorm2d) else None


def with_unrounded_biases(view: fx.GraphModule, network: fx.GraphModule) -> fx.GraphModule:
    for name, layer in quant_layers(network).items():
        integer = view.get_submodule(name)
        assert isinstance(integer, IntegerLayer)
        node = next(node for node in network.graph.nodes if node.target == name)
        bias = exact_bias(layer, batch_norm_of(network, name), quantizer_before(network, node))
        integer.bias, integer.bias_scale = bias * integer.factor, None
    return view
