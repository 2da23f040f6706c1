"""Gradients of all trainable parameters as one flat vector, held as a list of tensors, never concatenated."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = [
    "GradientSum",
    "along_vertical",
    "cosine",
    "flat_norm",
    "inner_product",
    "vertical_component",
]

_NEGLIGIBLE = 1e-12


def inner_product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """<a, b> over the flat vectors, 0-dim; ``a`` and ``b`` hold tensors of pairwise equal shapes."""
    return torch.stack([torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)]).sum()


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
    """A gradient of ``parameters`` summed over backward passes, while other sums use the same ``.grad``."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._held: list[Tensor | None] = [None] * len(parameters)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """In this context, ``.grad`` of the parameters is this sum; after it None. Nothing is copied."""
        for parameter, gradient in zip(self._parameters, self._held, strict=True):
            parameter.grad = gradient
        try:
            yield
        finally:
            self._held = [parameter.grad for parameter in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def mean(self, count: int) -> list[Tensor]:
        """The sum divided by ``count``, in place; zeros for parameters that no pass has reached."""
        pairs = zip(self._parameters, self._held, strict=True)
        gradients = [torch.zeros_like(p) if gradient is None else gradient for p, gradient in pairs]
        if count > 1:
            torch._foreach_div_(gradients, count)
        return gradients
