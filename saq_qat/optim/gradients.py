"""Gradients of all trainable parameters as one flat vector, held as a list of tensors, never concatenated."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "GradientSum",
    "along_vertical",
    "cosine",
    "flat_norm",
    "inner_product",
    "laid_out_as",
    "vertical_component",
]

_NEGLIGIBLE = 1e-12


def inner_product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """<a, b> over the flat vectors, 0-dim; ``a`` and ``b`` hold tensors of pairwise equal shapes."""
    return torch.stack([_dot(x, y) for x, y in zip(a, b, strict=True)]).sum()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """In the order in which both lie in memory, without copying them."""
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))


def flat_norm(vector: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of the flat vector, 0-dim."""
    return torch.nn.utils.get_total_norm(list(vector))


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Cosine of the angle between two flat vectors, 0-dim; 0 if one of them is zero."""
    lengths = flat_norm(a) * flat_norm(b)
    return torch.where(lengths > 0, inner_product(a, b) / lengths, torch.zeros_like(lengths))


def vertical_component(g_s: list[Tensor], g: list[Tensor]) -> list[Tensor]:
    """g_v = g_s - (<g_s, g> / <g, g>) g, the part of g_s at right angles to g (Algorithm 1, lines 7 and 8).

    One inner product over the flat vector: per tensor, the g_v of a one-element clip level is rounding noise.

    Returns:
        New tensors; all zero if g is zero, or if the remainder is no longer than 1e-12 of g_s.
    """
    squared = inner_product(g, g)
    along = torch.where(squared > 0, inner_product(g_s, g) / squared, torch.zeros_like(squared))
    vertical = list(torch._foreach_mul(g, along))
    torch._foreach_neg_(vertical)
    torch._foreach_add_(vertical, g_s)
    meaningful = (squared > 0) & (flat_norm(vertical) > _NEGLIGIBLE * flat_norm(g_s))
    torch._foreach_mul_(vertical, meaningful.to(squared.dtype))
    return vertical


def along_vertical(g: list[Tensor], g_v: list[Tensor], beta: float) -> list[Tensor]:
    """beta ||g|| g_v / ||g_v||, added to g in place of a second pass (Algorithm 1, line 10); 0 if g_v is."""
    length = flat_norm(g_v)
    factor = torch.where(length > 0, beta * flat_norm(g) / length, torch.zeros_like(length))
    return list(torch._foreach_mul(g_v, factor))


class GradientSum:
    """A gradient summed over micro-batches; the first is held as it is, not copied."""

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def add(self, gradients: list[Tensor]) -> None:
        if self._held:
            torch._foreach_add_(self._held, gradients)
        else:
            self._held = gradients

    def mean(self, count: int) -> list[Tensor]:
        """The sum divided by ``count``, in place."""
        if count > 1:
            torch._foreach_div_(self._held, count)
        return self._held


def laid_out_as(inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """``gradients`` of ``inputs``, each in memory of its own that is laid out as its input's.

    Where one tensor is the gradient of two inputs, or a view, what is later written into it must not be seen
    twice; and sums over a gradient must not depend on which kernel made it.
    """
    seen: set[int] = set()
    own = []
    for tensor, gradient in zip(inputs, gradients, strict=True):
        shared = gradient.data_ptr() in seen
        seen.add(gradient.data_ptr())
        alike = gradient.stride() == tensor.stride()
        own.append(gradient if alike and not shared else torch.empty_like(tensor).copy_(gradient))
    return own
