"""The compiler of training steps: whether there is one, and how it says that it failed."""

import os
import shutil
from importlib.util import find_spec

import torch

__all__ = ["compiler_errors", "missing_compiler"]


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
