"""Gradients shared among the processes that train together on their parts of a batch."""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["distributed", "share_gradients"]

_BUCKET = 25 * 2**20
"""Numbers that travel together: few enough to need little memory, many enough to use the line."""


def distributed() -> bool:
    """Whether several processes share each batch."""
    return dist.is_initialized() and dist.get_world_size() > 1


def share_gradients(gradients: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over the processes, in place; one process has nothing to share.

    Gradients leave a compiled pass all at once, so there is no backward pass left to hide the exchange
    behind, which is what DistributedDataParallel is for; and the gradients that place epsilon must not be
    exchanged at all.
    """
    if not distributed():
        return
    for bucket in _buckets(gradients):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = torch.split(flat, [tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype, in their order, at most ``_BUCKET`` numbers or one tensor at a time."""
    bucket: list[Tensor] = []
    for tensor in gradients:
        full = sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
