"""How far float32 evaluations of float operations may lie from the real numbers: running error bounds.

Two libraries round LayerNorm, softmax or GELU differently, each within such a bound of the real value. Every
rule takes the bounds of what an operation reads and adds its own roundings, to first order, each counted
twice.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import ChannelAffine, along_channels
from saq_qat.quant.trace.operations import (
    AVERAGING,
    CONCATENATING,
    COPYING,
    DROPOUT,
    POOLING,
    RESHAPING,
)
from saq_qat_export.proof.float_operation import FUNCTION, ROUNDING, FloatOperation, accumulated
from saq_qat_export.proof.row_errors import layer_norm_error, softmax_error

__all__ = ["float_error"]

Rule = Callable[[FloatOperation], Any]


def _name(operation: FloatOperation) -> str:
    """The same for module, function and method; empty if it is none of torch's."""
    if operation.node.op == "call_method":
        return str(operation.node.target).replace("_", "")
    target: Any = operation.node.target if operation.module is None else type(operation.module)
    home, name = str(getattr(target, "__module__", None)), getattr(target, "__name__", "")
    return name.replace("_", "").lower() if home.split(".")[0] in ("None", "torch", "_operator") else ""


def float_error(operation: FloatOperation) -> Any:
    """Bound of the error of each element, as the result is shaped.

    Infinite for an operation without a rule: whatever torch computes may stand between codes.
    """
    module = operation.module
    if isinstance(module, ChannelAffine):
        return _affine(operation, module)
    if operation.node.target is ops.GLOBAL_AVERAGE_POOL:
        return _mean(operation)
    return _RULES.get(_name(operation), FloatOperation.unknown)(operation)


def _moved(operation: FloatOperation) -> Any:
    """Elements go elsewhere, or the largest of some is taken."""
    return operation.replay(_with_constants(operation))


def _clipped(operation: FloatOperation) -> Tensor:
    return operation.operands[0][1]


def _with_constants(operation: FloatOperation) -> dict[fx.Node, Any]:
    """Bounds of everything that is read; constants have bound 0."""
    constants = {
        node: torch.zeros_like(operation.values[node])
        for node in operation.node.all_input_nodes
        if node not in operation.bounds and isinstance(operation.values[node], Tensor)
    }
    return {**constants, **operation.bounds}


def _sum(operation: FloatOperation) -> Any:
    if len(operation.operands) != 2 or operation.node.kwargs:
        return operation.unknown()
    (_, a), (_, b) = operation.operands
    return a + b + ROUNDING * operation.result.abs()


def _scaled(operation: FloatOperation) -> Any:
    """Multiplied by a tensor or number."""
    if len(operation.operands) != 2:
        return operation.unknown()
    (a, error_a), (b, error_b) = operation.operands
    return a.abs() * error_b + b.abs() * error_a + ROUNDING * operation.result.abs()


def _divided(operation: FloatOperation) -> Any:
    if len(operation.operands) != 2 or operation.node.kwargs:
        return operation.unknown()
    (_, error_a), (b, error_b) = operation.operands
    size = operation.result.abs()
    return (error_a + size * error_b) / b.abs() + ROUNDING * size


def _product(operation: FloatOperation) -> Any:
    if len(operation.operands) != 2:
        return operation.unknown()
    (a, error_a), (b, error_b) = operation.operands
    a, b = a.abs(), b.abs()
    return a @ error_b + error_a @ b + (ROUNDING + accumulated(a.shape[-1])) * (a @ b)


def _normalised(operation: FloatOperation) -> Any:
    """Divided by its length along an axis, as ``F.normalize`` does."""
    names = ("input", "p", "dim", "eps")
    given: dict[str, Any] = {"p": 2.0, "dim": 1, "eps": 1e-12}
    given |= dict(zip(names, operation.node.args, strict=False)) | dict(operation.node.kwargs)
    if given["p"] != 2 or not isinstance(given["dim"], int) or len(operation.operands) < 1:
        return operation.unknown()
    (x, error), y, dim = operation.operands[0], operation.result.abs(), given["dim"]
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(given["eps"])
    of_length = (x.abs() * error).sum(dim, keepdim=True) / length
    return (error + y * of_length) / length + (ROUNDING + accumulated(x.shape[dim])) * y


def _affine(operation: FloatOperation, module: ChannelAffine) -> Tensor:
    ((_, error), *_) = operation.operands
    y = operation.result
    gain, shift = along_channels(module.gain, y), along_channels(module.shift, y)
    return gain.abs() * error + ROUNDING * ((y - shift).abs() + y.abs())


def _mean(operation: FloatOperation) -> Any:
    """The mean of errors, and of magnitudes that were summed."""
    source = operation.node.all_input_nodes[0]
    if source not in operation.bounds:
        return operation.unknown()
    x, error = operation.values[source], operation.bounds[source]
    is_pool = x.dim() == 4 and operation.result.dim() == 4
    terms = prod(x.shape[2:]) if is_pool else x.numel() // max(1, operation.result.numel())
    size = operation.replay({source: x.abs()})
    return operation.replay({source: error}) + (ROUNDING + accumulated(terms)) * size


def _smooth(slope: float, *, gated: bool) -> Rule:
    """A function of each element with this largest slope: x times a gate, or at most 1."""

    def rule(operation: FloatOperation) -> Tensor:
        x, error = operation.operands[0]
        return slope * error + FUNCTION * (x.abs() if gated else 1.0)

    return rule


_MOVERS = RESHAPING | COPYING | CONCATENATING | POOLING | DROPOUT

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVERS.names, _moved),
    **dict.fromkeys(AVERAGING.names, _mean),
    **dict.fromkeys(("add", "iadd", "sub"), _sum),
    **dict.fromkeys(("mul", "imul"), _scaled),
    **dict.fromkeys(("truediv", "div"), _divided),
    **dict.fromkeys(("matmul", "bmm"), _product),
    "softmax": softmax_error,
    "normalize": _normalised,
    "layernorm": layer_norm_error,
    **dict.fromkeys(("clamp", "relu", "relu6"), _clipped),
    "gelu": _smooth(1.13, gated=True),
    "silu": _smooth(1.1, gated=True),
    "mish": _smooth(1.09, gated=True),
    "hardswish": _smooth(1.5, gated=True),
    "sigmoid": _smooth(0.25, gated=False),
    "hardsigmoid": _smooth(0.17, gated=False),
    "tanh": _smooth(1.0, gated=False),
}
