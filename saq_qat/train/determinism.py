"""Randomness of a training as functions of its seed and step, and kernels that repeat their results."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["repeatable_kernels", "seed_step"]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step of one process, so that dropout needs no state in a checkpoint."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


@contextmanager
def repeatable_kernels(enabled: bool) -> Iterator[None]:
    """Inside this context, kernels whose results repeat bit for bit on one machine, if ``enabled``."""
    if not enabled:
        yield
        return
    # cuBLAS reads this when it starts; without it, torch refuses matrix products in deterministic mode.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # torch does not export it
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory finds reads of it, costs time, and changes no result that is right.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # as above
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]  # as above
        torch.backends.cudnn.benchmark = benchmark
