"""BatchNorm folded into integer layers: per-channel scales, codes that never change, and biases on their integer grid."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.layers import QuantLayer

__all__ = ["FoldedLayer", "batch_norm_affine", "bias_codes", "bias_scale", "fold_layer", "refinement"]

_INT8_MAX = 127
_LARGEST_BIAS_CODE = 2**30
_CONSTANT_BIAS_CODE = 2**20


@dataclass(frozen=True)
class FoldedLayer:
    """A layer as integers.

    Attributes:
        codes: int8, the weight's shape; refined by a power of two, signs flipped where the BatchNorm's gain is negative.
        scale: float32 (out,), positive; value of one stored code.
        bias: float32 (out,), not rounded yet.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor


def batch_norm_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Gain and shift (float64, per channel) of a BatchNorm in evaluation: ``y = gain * x + shift``."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None or norm.running_var is None:
        raise ArtifactError(f"Only a BatchNorm with running statistics can be folded; got {norm}.")
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    gain = 1 / deviation if norm.weight is None else norm.weight.detach().double() / deviation
    shift = -norm.running_mean.double() * gain
    return gain, shift if norm.bias is None else shift + norm.bias.detach().double()


def refinement(layer: QuantLayer, *, refine: bool) -> int:
    """Power of two that stored codes are multiplied by, so that the integer bias has a finer grid at no cost.

    The largest that keeps the codes in int8: 8 for 4-bit ``saq`` codes, 32 for 2-bit ones, 1 if not ``refine``.
    """
    largest = max(layer.weight_quantizer.grid.maximum, -layer.weight_quantizer.grid.minimum)
    factor = 1
    while refine and largest * factor * 2 <= _INT8_MAX:
        factor *= 2
    return factor


@torch.no_grad()
def fold_layer(layer: QuantLayer, norm: nn.Module | None, *, refine: bool) -> FoldedLayer:
    """Weight, scale and bias of ``layer`` followed by ``norm``, without rounding any weight code.

    A channel whose gain is zero keeps its bias alone: codes 0.

    Raises:
        ArtifactError: a scale is not finite, or weight codes do not fit int8.
    """
    out = layer.weight.shape[0]
    gain, shift = (torch.ones(out, dtype=torch.float64), torch.zeros(out, dtype=torch.float64))
    if layer.channel_gain is not None:
        gain = layer.channel_gain.double()
    elif norm is not None:
        gain, shift = batch_norm_affine(norm)
    bias = shift if layer.bias is None else layer.bias.detach().double() * (1 if layer.folded else gain) + shift
    factor = refinement(layer, refine=refine)
    scale = (layer.weight_scale().double() * gain.abs()).float() / factor
    alive = scale > torch.finfo(torch.float32).tiny
    scale = torch.where(alive, scale, layer.weight_scale() / factor)
    sign = torch.where(alive, gain.sign(), torch.zeros_like(gain)).float()
    codes = layer.weight_codes() * factor * sign.reshape(-1, *[1] * (layer.weight.dim() - 1))
    if not bool(torch.isfinite(scale).all()) or not bool(torch.isfinite(bias).all()):
        raise ArtifactError("A folded scale or bias is not a finite number; the checkpoint holds NaN or infinity.")
    if float(codes.abs().max()) > _INT8_MAX + (layer.weight_quantizer.grid.minimum == -128):
        raise ArtifactError(
            f"Weight codes {layer.weight_quantizer.grid.describe()} do not fit int8. Train with quant.grid: deploy."
        )
    return FoldedLayer(codes.to(torch.int8), scale, bias.float())


def bias_scale(input_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """Scale of an integer bias, float32 (out,): the product that integer kernels use."""
    return input_scale.float() * weight_scale.float()


def bias_codes(folded: FoldedLayer, input_scale: Tensor) -> tuple[FoldedLayer, Tensor]:
    """The layer with its bias as int32 codes (out,), rounded half to even on ``bias_scale``.

    A channel whose weights are so small that its bias would overflow contributes less than a hundredth of that bias: it
    becomes a constant, with codes 0 and a scale that holds the bias.
    """
    step = bias_scale(input_scale, folded.scale).double()
    constant = folded.bias.double().abs() > step * _LARGEST_BIAS_CODE
    if bool(constant.any()):
        wide = (folded.bias.double().abs() / (_CONSTANT_BIAS_CODE * input_scale.double())).float()
        shape = (-1, *[1] * (folded.codes.dim() - 1))
        folded = FoldedLayer(
            torch.where(constant.reshape(shape), torch.zeros_like(folded.codes), folded.codes),
            torch.where(constant, wide, folded.scale),
            folded.bias,
        )
        step = bias_scale(input_scale, folded.scale).double()
    return folded, torch.round(folded.bias.double() / step).to(torch.int32)
