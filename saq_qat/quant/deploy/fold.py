"""BatchNorm folded into layers: per-channel scales, codes that never change, biases on their integer grid."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saq_qat.errors import ArtifactError
from saq_qat.quant.numerics.bias import codes_of_bias, offset_in_bias
from saq_qat.quant.numerics.grid import INT16_MAX, Grid
from saq_qat.quant.numerics.layers import QuantLayer

__all__ = [
    "FoldedLayer",
    "absorb_offset",
    "batch_norm_affine",
    "bias_codes",
    "bias_scale",
    "fold_layer",
    "refinement",
]

_INT8_MAX = 127
_LARGEST_BIAS_CODE = 2**30
_CONSTANT_BIAS_CODE = 2**20


@dataclass(frozen=True)
class FoldedLayer:
    """A layer as integers.

    Attributes:
        codes: int8, the weight's shape; refined by a power of two, signs flipped where the BatchNorm's gain
            is negative.
        scale: float32 (out,), positive; value of one stored code.
        bias: float64 (out,), not rounded yet.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor


def batch_norm_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Gain and shift (float64, per channel) of a BatchNorm in evaluation: ``y = gain * x + shift``."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        raise ArtifactError(
            f"Only a BatchNorm with running statistics can be folded; got {norm}. "
            "Build the network with track_running_stats=True and train it again."
        )
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    gain = 1 / deviation if norm.weight is None else norm.weight.detach().double() / deviation
    shift = -norm.running_mean.double() * gain
    return gain, shift if norm.bias is None else shift + norm.bias.detach().double()


def refinement(layer: QuantLayer, input_grid: Grid | None, *, refine: bool) -> int:
    """Power of two that stored codes are multiplied by, so that the integer bias has a finer grid at no cost.

    The largest that keeps codes in int8 and pairs of products in int16, which x86 kernels without VNNI
    saturate at: 8 for 4-bit ``saq`` codes, 32 for 2-bit ones, less behind 8-bit signed inputs; 1 if not
    ``refine``.

    Args:
        input_grid: of the layer's input; None where that is a float.
    """
    largest = max(layer.weight_quantizer.grid.maximum, -layer.weight_quantizer.grid.minimum)
    limit = _INT8_MAX
    if input_grid is not None:
        limit = min(limit, INT16_MAX // (2 * input_grid.largest_stored))
    factor = 1
    while refine and largest * factor * 2 <= limit:
        factor *= 2
    return factor


@torch.no_grad()
def fold_layer(layer: QuantLayer, norm: nn.Module | None, factor: int) -> FoldedLayer:
    """Weight, scale and bias of ``layer`` followed by ``norm``, without rounding any weight code.

    A channel whose gain is zero keeps its bias alone: codes 0.

    Args:
        factor: what stored codes are multiplied by (``refinement``).

    Raises:
        ArtifactError: a scale is not finite, or weight codes do not fit int8.
    """
    _check_fits_int8(layer)
    gain, bias = _gain_and_bias(layer, norm)
    codes, scale = layer.stored(gain, factor)
    if not bool(torch.isfinite(scale).all()) or not bool(torch.isfinite(bias).all()):
        raise ArtifactError(
            "The scale or bias of the folded layer is not a finite number: its checkpoint holds NaN or "
            "infinity, a variance below zero, or numbers whose products overflow. Export an earlier "
            "checkpoint, or train with a lower learning rate."
        )
    return FoldedLayer(codes.to(torch.int8), scale.float(), bias)


def absorb_offset(folded: FoldedLayer, offset: Tensor) -> FoldedLayer:
    """The layer for inputs without their offset (0-dim): ``W (x + offset) = W x + offset * sum(W)``.

    Exact where every output sums all weights, and with zero padding too if ``offset`` is the value of zero:
    then the padding is code 0, and the offset is what it stands for.
    """
    held = offset_in_bias(offset.detach(), folded.codes, folded.scale)
    return replace(folded, bias=folded.bias + held)


def _check_fits_int8(layer: QuantLayer) -> None:
    grid = layer.weight_quantizer.grid
    if max(-grid.minimum, grid.maximum) > _INT8_MAX:
        raise ArtifactError(
            f"Weight codes {grid.describe()} do not fit int8 with either sign. Train with quant.grid: deploy."
        )


def _gain_and_bias(layer: QuantLayer, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Gain and bias (float64, (out,)) of the layer with what follows it; the deploy stage holds both."""
    if layer.channel_gain is not None and layer.bias is not None:
        return layer.channel_gain.double(), layer.bias.detach().double()
    gain = torch.ones(layer.weight.shape[0], dtype=torch.float64, device=layer.weight.device)
    shift = torch.zeros_like(gain)
    if norm is not None:
        gain, shift = batch_norm_affine(norm)
    return gain, shift if layer.bias is None else layer.bias.detach().double() * gain + shift


def bias_scale(input_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """Scale of an integer bias, float32 (out,): the product that integer kernels use."""
    return input_scale.float() * weight_scale.float()


def bias_codes(folded: FoldedLayer, input_scale: Tensor) -> tuple[FoldedLayer, Tensor]:
    """The layer with its bias as int32 codes (out,) on ``bias_scale``, rounded as training rounds them.

    A channel whose bias would overflow becomes a constant: codes 0, and a scale that holds the bias to one
    part in a million. The sum of products it gives up is small beside that bias, at most K / 66,000 of it for
    K weights.
    """
    step = bias_scale(input_scale, folded.scale).double()
    constant = folded.bias.abs() > step * _LARGEST_BIAS_CODE
    if bool(constant.any()):
        wide = (folded.bias.abs() / (_CONSTANT_BIAS_CODE * input_scale.double())).float()
        shape = (-1, *[1] * (folded.codes.dim() - 1))
        folded = FoldedLayer(
            torch.where(constant.reshape(shape), torch.zeros_like(folded.codes), folded.codes),
            torch.where(constant, wide, folded.scale),
            folded.bias,
        )
        step = bias_scale(input_scale, folded.scale).double()
    return folded, codes_of_bias(folded.bias, step).to(torch.int32)
