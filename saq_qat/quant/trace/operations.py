"""Operations by what they do to values, in each of the three ways a network can write them."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

__all__ = [
    "AVERAGING",
    "BOUNDED",
    "CLIPPING",
    "CONCATENATING",
    "COPYING",
    "DROPOUT",
    "JOINING",
    "NONNEGATIVE",
    "POOLING",
    "RESHAPING",
    "SELECTING",
    "Operations",
    "called_name",
]


def called_name(node: fx.Node) -> str:
    """The name of the function or method that a node calls; of anything else, whatever its target says."""
    return str(getattr(node.target, "__name__", node.target))


@dataclass(frozen=True)
class Operations:
    """Layers of torch.nn, functions, and names of methods of a tensor."""

    modules: tuple[type[nn.Module], ...] = ()
    functions: tuple[Callable[..., object], ...] = ()
    methods: tuple[str, ...] = ()

    def __or__(self, other: "Operations") -> "Operations":
        return Operations(
            self.modules + other.modules, self.functions + other.functions, self.methods + other.methods
        )

    @property
    def names(self) -> frozenset[str]:
        """One name for module, function and method of an operation: small letters, no underscores."""
        types = (kind.__name__ for kind in self.modules)
        functions = (function.__name__ for function in self.functions)
        return frozenset(name.replace("_", "").lower() for name in (*types, *functions, *self.methods))


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
)  # fmt: skip  # one value a line is a page
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

CONCATENATING = Operations((), (torch.cat, torch.concat, torch.stack))
"""Put tensors side by side."""

JOINING = CONCATENATING | Operations(
    (),
    (operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, torch.maximum),
    ("add", "add_", "mul", "mul_"),
)
"""Sums, products of elements and concatenations: give nothing below zero if no term is."""

POOLING = Operations((nn.MaxPool2d,), (F.max_pool2d, torch.max_pool2d))
"""Give the largest of some values."""

COPYING = Operations(
    (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
    (
        operator.getitem, torch.chunk, torch.split, torch.unbind, torch.roll, torch.flip, torch.narrow,
        torch.select, F.pad,
    ),
    ("chunk", "split", "unbind", "roll", "flip", "narrow", "select", "expand", "repeat"),
)  # fmt: skip  # one value a line is a page
"""Give some of the values they read, copies of them, or zeros beside them."""

AVERAGING = Operations(
    (nn.AvgPool2d, nn.AdaptiveAvgPool2d), (torch.mean, F.avg_pool2d, F.adaptive_avg_pool2d), ("mean",)
)
"""Give means of some values."""

SELECTING = COPYING | AVERAGING
"""Give nothing beyond the values they read, but for zeros."""
