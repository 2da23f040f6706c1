"""The compiler of training steps: whether there is one, and how it shows that it failed."""

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from saq_qat.optim.gradients import flat_norm

__all__ = ["compiler_errors", "lost_gradients", "missing_compiler"]

_NOISE = 1e-5
"""Of the length of the whole gradient, what rounding may leave of a part of it that is zero."""


def missing_compiler(device: torch.device) -> str | None:
    """What ``torch.compile`` lacks on this machine to make kernels for ``device``; None if nothing."""
    if device.type == "cuda":
        return None if find_spec("triton") else "the package triton"
    wanted = os.environ.get("CXX", "g++")
    return None if shutil.which(wanted) else f"a C++ compiler ({wanted})"


def compiler_errors() -> tuple[type[Exception], ...]:
    """What a compiled function raises where it could not be compiled, as opposed to computed."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return (TorchDynamoException, FailOnRecompileLimitHit)


@torch.no_grad()
def lost_gradients(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """How many compiled gradients are zero and should not be, in words; None if none is.

    Their directions say nothing: a low-bit network that was not trained yet turns a difference of 1e-7, which
    another order of sums makes, into another gradient altogether.

    Args:
        found, expected: compiled and eager, of pairwise equal shapes, of one batch.
    """
    negligible = _NOISE * flat_norm(expected)
    pairs = zip(found, expected, strict=True)
    lost = sum(bool(b.norm() > negligible) and not bool(a.any()) for a, b in pairs)
    return f"{lost} of {len(found)} gradients are zero and should not be" if lost else None
