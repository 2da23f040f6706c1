"""Values moved to the side of a rounding tie that integer kernels round them to.

A quantizer divides a value by its scale and rounds. A kernel that writes codes never has the value: in
float32 it multiplies its sums by a ratio of scales and rounds (ONNX Runtime on x86 CPUs; the integer
reference of export computes the same in NumPy). Both agree but within float32's error of a tie, where one
channel may repeat the same sum in every image.
"""

import math

import torch
from torch import Tensor

__all__ = ["rounded_as_a_sum_of_codes", "rounded_as_means", "rounded_as_sums"]

_Indices = tuple[Tensor, ...]

_MARGIN = 2.0**-10
_NEAREST = 0.5 - _MARGIN


def rounded_as_sums(y: Tensor, sums: Tensor, ratio: Tensor, scale: Tensor) -> Tensor:
    """``y``, about ``sums * ratio * scale``, of which a quantizer now makes the codes ``rint(sums * ratio)``.

    Args:
        y, sums: float32, of one shape. ratio: float32, broadcasts against them.
        scale: 0-dim, of the quantizer.
    """
    near = _near_ties(y, scale)
    steps = sums.detach()[near] * ratio.expand_as(sums)[near]
    return _moved(y, near, steps, steps.round(), scale)


def rounded_as_means(y: Tensor, values: Tensor, value_scale: Tensor, scale: Tensor) -> Tensor:
    """``y``, means over height and width, of which a quantizer now makes the codes of
    QLinearGlobalAveragePool: ``rint(f32(sum of codes) * f32(s_x / f32(s_y H W)))``.

    Args:
        y: float32, of N * C elements. values: (N, C, H, W), whose means they are, on the grid of
            ``value_scale``, 0-dim. scale: 0-dim, of the quantizer.
    """
    sums = (values.detach() / value_scale).round_().sum((2, 3)).reshape(y.shape)
    area = values.shape[2] * values.shape[3]
    return rounded_as_sums(y, sums, value_scale / (scale * area), scale)


def rounded_as_a_sum_of_codes(
    y: Tensor,
    terms: tuple[Tensor, Tensor],
    scales: tuple[Tensor, Tensor, Tensor],
    zero_points: tuple[int, int, int],
    bound: float = math.inf,
) -> Tensor:
    """``y``, the sum of two terms or what a ReLU left of it, of which a quantizer now makes the codes of
    QLinearAdd, as long as the scale of the sum is not much smaller than those of the terms.

    ``rint(fma(A, r_a, fma(B, r_b, z - fma(z_a, r_a, f32(z_b r_b))))) - z`` with stored codes A and B, their
    zero points and ``r = f32(s / s_y)``.

    Args:
        y: float32. terms: of its shape, on their grids.
        scales: 0-dim, of both terms and of the sum. zero_points: of the stored codes of these.
        bound: above which there is no ``y``, as behind a ReLU6.
    """
    (s_a, s_b, scale), (z_a, z_b, z) = scales, zero_points
    near = _near_ties(y, scale)
    a, b = (term.detach()[near] for term in terms)
    ratio_a, ratio_b = s_a / scale, s_b / scale
    offset = _fused(torch.full_like(scale, z_a), ratio_a, ratio_b * z_b)
    partial = _fused((b / s_b).round_().add_(z_b), ratio_b, z - offset)
    stored = _fused((a / s_a).round_().add_(z_a), ratio_a, partial)
    return _moved(y, near, stored - z, stored.round() - z, scale, bound)


def _near_ties(y: Tensor, scale: Tensor) -> _Indices:
    """Where rounding ``y / scale`` could depend on how it was computed: one tensor of indices an axis."""
    quotient = y.detach() / scale
    return (quotient.sub_(quotient.round()).abs_() > _NEAREST).nonzero(as_tuple=True)


def _fused(x: Tensor, factor: Tensor, addend: Tensor) -> Tensor:
    """``x * factor + addend`` in float32, rounded once but where float64 has rounded to a tie of float32."""
    return torch.addcmul(addend.double(), x.double(), factor.double()).float()


def _moved(
    y: Tensor, near: _Indices, steps: Tensor, code: Tensor, scale: Tensor, bound: float = math.inf
) -> Tensor:
    """``y``, but where it is ``near`` a tie that ``y / scale`` does not round to the ``code`` of ``steps``:
    there it moves across the tie, to ``_MARGIN`` of a step behind it. The gradient of the identity.

    Args:
        steps, code: of those that are near. bound: of y.
    """
    value = y.detach()[near]
    quotient = value / scale
    inside = (steps - code).clamp_(-_NEAREST, _NEAREST).add_(code).mul_(scale).clamp_max_(bound)
    is_other = ((quotient - steps).abs() < _MARGIN) & (quotient.round() != code)
    if not is_other.any():
        return y
    return y + torch.zeros_like(y).index_put_(near, torch.where(is_other, inside - value, 0.0))
