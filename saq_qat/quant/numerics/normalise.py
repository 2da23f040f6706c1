"""Mean and deviation of a weight, by which APoT's normalisation divides."""

import torch
from torch import Tensor

from saq_qat.quant.numerics.operators import define_operator

__all__ = ["mean_and_deviation"]

_DEVIATION_FLOOR = 1e-5


def mean_and_deviation(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and unbiased standard deviation, 0-dim, without gradient; the latter 1 for a constant weight.

    Row by row first: one float32 sum over millions of squares would be off by more than the proof allows. It
    takes a tenth of the time of ``Tensor.std``.

    A compiler would add up in another order, and a weight that lies on a tie would get another code than in
    evaluation; it calls the same kernels instead.
    """
    weight = weight.detach()
    if not torch.compiler.is_compiling():
        return _computed(weight)
    mean, deviation = _MEAN_AND_DEVIATION(weight)
    return mean, deviation


def _computed(weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = weight.mean()
    if weight.numel() < 2:
        return mean, torch.ones_like(mean)
    centred = weight - mean
    rows = torch.linalg.vector_norm(centred.flatten(1), dim=1) if centred.dim() > 1 else centred
    deviation = torch.linalg.vector_norm(rows) / (centred.numel() - 1) ** 0.5
    return mean, torch.where(deviation < _DEVIATION_FLOOR, torch.ones_like(deviation), deviation)


_MEAN_AND_DEVIATION = define_operator(
    "mean_and_deviation(Tensor weight) -> (Tensor, Tensor)",
    _computed,
    lambda weight: (weight.new_empty(()), weight.new_empty(())),
)
