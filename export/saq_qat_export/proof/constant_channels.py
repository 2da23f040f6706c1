"""Channels that deployment turns into constants, because their biases outgrow their integers.

Most are channels that training itself switched off: a BatchNorm of almost no gain leaves them a bias. What
they lose is nothing beside what the layer's other channels compute, and they are counted only. A channel that
computed as much as others and has a huge bias is another network afterwards.
"""

import torch
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer, constant_channels
from saq_qat_export.proof.comparison import Comparison
from saq_qat_runtime.bundle.gate import CONSTANT_COMPARISON

__all__ = ["constant_comparison", "constant_count"]

_CHANNELS_NAMED = 8
# Of the largest channel's weights: a step of 8-bit codes is 2^8 times that.
_NOTHING = 2.0**-16


def constant_count(layer: IntegerLayer) -> int:
    """How many channels of a layer give their bias alone."""
    return int(constant_channels(layer).sum())


def _lost(layer: IntegerLayer) -> list[int]:
    """Constant channels whose weights were more than nothing."""
    before = layer.before_rounding
    reach = before.codes.double().abs().flatten(1).sum(1) * before.scale.double()
    return torch.nonzero(constant_channels(layer) & (reach > _NOTHING * reach.max())).flatten().tolist()


def constant_comparison(view: fx.GraphModule, allowed: int) -> Comparison:
    """Hard: at most ``allowed`` channels of a deploy view lost weights that mattered; they are named."""
    layers = {path: module for path, module in view.named_modules() if isinstance(module, IntegerLayer)}
    lost = {path: _lost(layer) for path, layer in layers.items()}
    count, idle = sum(map(len, lost.values())), sum(map(constant_count, layers.values()))
    named = "; ".join(f"{path} channel {_listed(channels)}" for path, channels in lost.items() if channels)
    reasons = [
        f"{named}: biases above 2^30 of their steps, so the weights became 0; {allowed} allowed"
    ] * bool(count)
    if idle > count:
        reasons.append(f"{idle - count} of almost no gain became constants")
    channels = sum(layer.weight.shape[0] for layer in layers.values())
    return Comparison(CONSTANT_COMPARISON, True, count <= allowed, channels, count, "; ".join(reasons))


def _listed(channels: list[int]) -> str:
    shown = ", ".join(map(str, channels[:_CHANNELS_NAMED]))
    return shown + (f" and {len(channels) - _CHANNELS_NAMED} more" if len(channels) > _CHANNELS_NAMED else "")
