"""Running error bounds of softmax and LayerNorm, whose every element depends on all of a row."""

from dataclasses import dataclass
from inspect import signature
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat_export.proof.float_operation import FUNCTION, ROUNDING, FloatOperation, accumulated

__all__ = ["layer_norm_error", "softmax_error"]


def softmax_error(operation: FloatOperation) -> Any:
    """Exponents less the largest; each power off by its own share, and by that of the sum of all."""
    (x, error), *_ = operation.operands
    module, node = operation.module, operation.node
    axis = module.dim if isinstance(module, nn.Softmax) else node.kwargs.get("dim", node.args[-1])
    if not isinstance(axis, int):
        return operation.unknown()
    y = operation.result
    own = error + ROUNDING * (x.amax(axis, keepdim=True) - x) + FUNCTION
    shared = (y * own).sum(axis, keepdim=True) + accumulated(x.shape[axis]) + 2 * ROUNDING
    return y * (own + shared)


@dataclass(frozen=True)
class _Norm:
    """Settings of a LayerNorm, however it was called."""

    shape: tuple[int, ...]
    epsilon: float
    gain: Tensor

    @classmethod
    def of(cls, operation: FloatOperation) -> "_Norm":
        module = operation.module
        if isinstance(module, nn.LayerNorm):
            return cls(module.normalized_shape, module.eps, _or_one(module.weight))
        given = signature(F.layer_norm).bind(*operation.node.args, **operation.node.kwargs)
        given.apply_defaults()
        shape, weight, epsilon = (given.arguments[name] for name in ("normalized_shape", "weight", "eps"))
        return cls(tuple(shape), epsilon, _or_one(None if weight is None else operation.values[weight]))


def _or_one(weight: Tensor | None) -> Tensor:
    return torch.ones(()) if weight is None else weight


def layer_norm_error(operation: FloatOperation) -> Tensor:
    """The variance as ONNX Runtime computes it, mean square less squared mean, which cancels most."""
    (x, error), *_ = operation.operands
    norm = _Norm.of(operation)
    axes = tuple(range(-len(norm.shape), 0))
    summed = accumulated(prod(norm.shape)) + ROUNDING

    def mean(values: Tensor) -> Tensor:
        return values.mean(axes, keepdim=True)

    centre, size = mean(x), mean(x.abs())
    centred = x - centre
    variance = mean(centred**2) + norm.epsilon
    of_centre = mean(error) + summed * size
    of_variance = 2 * mean(centred.abs() * error) + summed * (mean(x**2) + 2 * centre.abs() * size)
    normal = centred / variance.sqrt()
    of_normal = (error + of_centre + ROUNDING * centred.abs()) / variance.sqrt()
    of_normal = of_normal + normal.abs() * (of_variance / (2 * variance) + 3 * ROUNDING)
    return norm.gain.abs() * of_normal + ROUNDING * operation.result.abs()
