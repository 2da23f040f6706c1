"""Weights and clip levels that no integers can stand for: a network that holds one is refused by its name."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer

__all__ = ["check_clip_levels", "check_weights"]

_SHOWN = 5


def check_clip_levels(network: nn.Module, run: Path) -> None:
    """A clip level or step is a finite number, and so is its scale, neither zero nor denormal.

    Training takes one below its floor for the floor, so that the file would hold another than was trained.

    Raises:
        ArtifactError: one is not; names its quantizer.
    """
    quantizers = ((name, module) for name, module in network.named_modules() if isinstance(module, Quantizer))
    wrong = [f"{name} {found}" for name, module in quantizers if (found := _unusable_level(module))]
    _refuse(run, wrong, "clip levels must be finite and neither zero nor denormal")


def check_weights(network: nn.Module, run: Path) -> None:
    """Weights, biases and statistics are finite, and a quantized layer has a weight that is not denormal.

    Raises:
        ArtifactError: one is not; names its layer.
    """
    _refuse(run, list(_unusable_weights(network)), "weights must be finite, and not all zero or denormal")


def _unusable_level(quantizer: Quantizer) -> str:
    alpha, scale = float(quantizer.alpha.detach().abs()), float(quantizer.scale)
    if all(torch.finfo(torch.float32).tiny <= number < float("inf") for number in (alpha, scale)):
        return ""
    return f"is {alpha}, its scale {scale}"


def _unusable_weights(network: nn.Module) -> Iterator[str]:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            yield f"{name} holds NaN or infinity"
    for name, layer in quant_layers(network).items():
        if _is_nothing(layer.weight.detach()):
            yield f"{name}.weight is all zero or denormal"


def _is_nothing(weight: Tensor) -> bool:
    return bool((weight.abs() < torch.finfo(torch.float32).tiny).all())


def _refuse(run: Path, wrong: list[str], rule: str) -> None:
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ArtifactError(
            f"{run}: {rule}; {', '.join(wrong[:_SHOWN])}{more}. Take another checkpoint, or train with a "
            "lower learning rate."
        )
