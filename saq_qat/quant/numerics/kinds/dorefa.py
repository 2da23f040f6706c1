"""DoReFa: weights squashed by tanh onto a grid that is as wide as the largest of them; nothing is learned.

Source: S. Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
Gradients", arXiv 1606.06160, Eq. 9: ``2 quantize_b(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1``. A row of Table 2
of the SAQ paper. ``alpha`` multiplies it: 1 with ``initialise: ones``, as published, else the width that the
weights have at first, which a layer without a BatchNorm behind it needs; it stays what it is.
"""

import torch
from torch import Tensor

from saq_qat.quant.numerics.kinds.kind import Kind
from saq_qat.quant.numerics.kinds.saq import odd_grid

__all__ = ["DOREFA", "squash"]


def squash(weight: Tensor, alpha: Tensor) -> Tensor:
    """``alpha * tanh(w) / max|tanh(w)|``, the weight's shape; gradients pass through all of it but alpha.

    tanh is computed in float64 and rounded once, so that every library gives the same float32.
    """
    squashed = torch.tanh(weight.double()).to(weight.dtype)
    width = squashed.abs().amax()
    return squashed.div(torch.where(width > 0, width, torch.ones_like(width))).mul(alpha.detach())


DOREFA = Kind("dorefa", weight_grid=odd_grid, learns="nothing", normalizes=False, prepare=squash)
