"""The compiler of training steps: whether there is one, and how it shows that it failed."""

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from saq_qat.optim.gradients import cosine, flat_norm

__all__ = ["compiler_errors", "missing_compiler", "wrong_gradients"]

_LEAST_COSINE = 0.5
"""Far below what rounding makes of a gradient, in bfloat16 too: that is what a wrong program is known by."""

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
def wrong_gradients(found: Sequence[Tensor], expected: Sequence[Tensor], *, random: bool) -> str | None:
    """How compiled gradients show that they are not those of the network; None if they may be.

    Args:
        found, expected: compiled and eager, of pairwise equal shapes, of one batch.
        random: the network draws random numbers, others in each: then their directions say nothing.
    """
    length = flat_norm(expected)
    pairs = zip(found, expected, strict=True)
    dead = sum(bool(b.norm() > _NOISE * length) and not bool(a.any()) for a, b in pairs)
    if dead:
        return f"{dead} of {len(found)} gradients are zero and should not be"
    likeness = float(cosine(found, expected))
    if not random and float(length) > 0 and likeness < _LEAST_COSINE:
        return f"the cosine of the angle between its gradient and the one without it is {likeness:.2f}"
    return None
