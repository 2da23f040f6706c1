"""Quantization-aware training of other libraries on the same network, to time beside ours.

None is a dependency: they are measured in an environment that holds them beside saq-qat.
"""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from saq_qat.errors import SetupError
from saq_qat.recipe.schema import Quant

__all__ = ["peer_networks"]


def peer_networks(network: nn.Module, quant: Quant) -> dict[str, nn.Module]:
    """Copies of ``network`` as Brevitas and torchao quantize it at the recipe's bits, by their name.

    torchao fake-quantizes linear layers alone, and is left out where a network has but one or two.

    Raises:
        SetupError: neither is installed.
    """
    found: dict[str, nn.Module] = {}
    if find_spec("brevitas"):
        found["Brevitas"] = _with_brevitas(copy.deepcopy(network), quant)
    if find_spec("torchao") and _linear_layers(network) > 2:
        found["torchao, linear layers"] = _with_torchao(copy.deepcopy(network), quant)
    if not found:
        raise SetupError(
            "--peers times Brevitas and torchao, of which this environment has none that suits the network. "
            "Install them: pip install brevitas torchao."
        )
    return found


def _linear_layers(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Linear) for module in network.modules())


def _with_brevitas(network: nn.Module, quant: Quant) -> nn.Module:
    """Every convolution and linear layer with a quantized weight and input, scales per tensor and learned by
    statistics, as Brevitas does by default."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat

    settings: dict[str, Any] = {
        "weight_quant": Int8WeightPerTensorFloat,
        "weight_bit_width": quant.weight.bits,
        "input_quant": Int8ActPerTensorFloat,
        "input_bit_width": quant.activation.bits,
    }
    for name, module in list(network.named_modules()):
        made: nn.Module
        if isinstance(module, nn.Conv2d):
            shape = (module.in_channels, module.out_channels, module.kernel_size)
            how = {"stride": module.stride, "padding": module.padding, "groups": module.groups}
            made = qnn.QuantConv2d(*shape, **how, bias=module.bias is not None, **settings)
        elif isinstance(module, nn.Linear):
            made = qnn.QuantLinear(
                module.in_features, module.out_features, bias=module.bias is not None, **settings
            )
        else:
            continue
        made.load_state_dict(module.state_dict(), strict=False)
        network.set_submodule(name, made)
    return network


def _with_torchao(network: nn.Module, quant: Quant) -> nn.Module:
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    widths = {bits: getattr(torch, f"int{bits}") for bits in (quant.weight.bits, quant.activation.bits)}
    weight = IntxFakeQuantizeConfig(widths[quant.weight.bits], "per_channel")
    activation = IntxFakeQuantizeConfig(widths[quant.activation.bits], "per_token", is_symmetric=False)
    quantize_(network, QATConfig(activation_config=activation, weight_config=weight, step="prepare"))
    return network
