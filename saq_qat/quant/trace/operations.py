"""Operations by what they do to values, in each of the three ways a network can write them."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    "BOUNDED",
    "CLIPPING",
    "DROPOUT",
    "JOINING",
    "NONNEGATIVE",
    "RESHAPING",
    "SELECTING",
    "Operations",
]


@dataclass(frozen=True)
class Operations:
    """Layers of torch.nn, functions, and names of methods of a tensor."""

    modules: tuple[type[nn.Module], ...] = ()
    functions: tuple[Callable[..., object], ...] = ()
    methods: tuple[str, ...] = ()


RESHAPING = Operations(
    (nn.Flatten, nn.Unflatten),
    (
        torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.swapaxes, torch.movedim,
        torch.squeeze, torch.unsqueeze,
    ),
    (
        "contiguous", "flatten", "movedim", "permute", "reshape", "squeeze", "swapaxes", "transpose",
        "unflatten", "unsqueeze", "view",
    ),
)  # fmt: skip
"""Reorder values."""

DROPOUT = Operations(
    (
        nn.Identity,
        nn.Dropout,
        nn.Dropout1d,
        nn.Dropout2d,
        nn.Dropout3d,
        nn.AlphaDropout,
        nn.FeatureAlphaDropout,
    )
)
"""Pass values on in evaluation."""

CLIPPING = Operations((nn.Hardtanh,), (F.hardtanh, torch.clamp, torch.clip), ("clamp", "clamp_", "clip"))
"""Put values between two bounds."""

BOUNDED = Operations(
    (nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.ELU, nn.CELU, nn.SELU),
    (F.gelu, F.silu, F.hardswish, F.mish, F.elu, F.celu, F.selu),
)
"""Keep values above some small negative number."""

NONNEGATIVE = Operations(
    (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softmax2d, nn.Softplus),
    (torch.sigmoid, F.sigmoid, F.hardsigmoid, torch.softmax, F.softmax, F.softplus, torch.exp, torch.square),
    ("sigmoid", "softmax", "exp", "square"),
)
"""Give nothing below zero, whatever they read."""

JOINING = Operations(
    (),
    (
        operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul,
        torch.cat, torch.concat, torch.stack, torch.maximum,
    ),
    ("add", "add_", "mul", "mul_"),
)  # fmt: skip
"""Sums, products of elements and concatenations: give nothing below zero if no term is."""

SELECTING = Operations(
    (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
    (
        operator.getitem, torch.chunk, torch.split, torch.unbind, torch.mean, torch.roll, F.avg_pool2d,
        F.adaptive_avg_pool2d, F.pad,
    ),
    ("chunk", "split", "unbind", "mean", "roll", "expand", "repeat"),
)  # fmt: skip
"""Give some of the values they read, means or copies of them, or zeros beside them."""
