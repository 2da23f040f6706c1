"""One forward and backward pass, and what must hold around the second of two passes over one batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from saq_qat.optim.distillation import Distillation

__all__ = [
    "MicroBatch",
    "Objective",
    "frozen_statistics",
    "random_state",
    "same_randomness",
    "undone_unless_kept",
]


@dataclass(frozen=True)
class MicroBatch:
    """Images that share one perturbation, with all that their loss is made of.

    Attributes:
        images: (n, C, H, W).
        labels: classes (n,), or a distribution over them for each image (n, classes) where labels are mixed.
        teacher_logits: (n, classes), one answer for every pass; None without a teacher.
        last: whether it ends its batch.
    """

    images: Tensor
    labels: Tensor
    teacher_logits: Tensor | None
    last: bool


@dataclass(frozen=True)
class Objective:
    """The loss that is minimised, and how it is computed.

    Attributes:
        network: maps images (N, C, H, W) to logits; may be wrapped in DistributedDataParallel.
        loss: mean loss of logits and labels, 0-dim.
        precision: ``bfloat16`` runs forward passes under autocast; quantizers, losses and perturbed passes
            stay in float32.
        micro_batch_size: images that share one pass; the whole batch if None.
        distillation: a teacher and its part in the loss, if there is one.
    """

    network: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch_size: int | None = None
    distillation: Distillation | None = None

    @property
    def distributed(self) -> bool:
        """Whether several processes share each batch."""
        return isinstance(self.network, DistributedDataParallel)

    def micro_batches(self, images: Tensor, labels: Tensor) -> list[MicroBatch]:
        """Parts of a batch with at most ``micro_batch_size`` images each.

        The teacher sees every image once, whatever the number of passes, and no more images at a time than
        a pass does, so that smaller micro-batches need less memory with a teacher too.
        """
        size = self.micro_batch_size or len(images)
        parts = list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
        return [
            MicroBatch(part, targets, self._teacher_logits(part), index == len(parts) - 1)
            for index, (part, targets) in enumerate(parts)
        ]

    def _teacher_logits(self, images: Tensor) -> Tensor | None:
        if self.distillation is None:
            return None
        with torch.no_grad():
            return self._logits(self.distillation.teacher, images)

    def _logits(self, network: nn.Module, images: Tensor, *, in_float32: bool = False) -> Tensor:
        enabled = self.precision == "bfloat16" and not in_float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            logits: Tensor = network(images)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    def _loss(self, logits: Tensor, part: MicroBatch) -> Tensor:
        label_loss = self.loss(logits, part.labels)
        if self.distillation is None or part.teacher_logits is None:
            return label_loss
        return self.distillation.combined(label_loss, logits, part.teacher_logits)

    def backward(self, part: MicroBatch, *, synchronise: bool, perturbed: bool = False) -> Tensor:
        """Add the gradient to ``.grad`` and return the loss, detached.

        A perturbed pass is in float32, whatever the precision: epsilon is smaller than the steps of bfloat16,
        which would round most of it away.

        With several processes, ``synchronise`` then replaces all of ``.grad`` by its mean over them. The
        forward pass lies inside ``no_sync`` too: outside, DistributedDataParallel would exchange gradients
        all the same.
        """
        network = self.network
        local = isinstance(network, DistributedDataParallel) and not synchronise
        with network.no_sync() if local else nullcontext():  # type: ignore[operator]  # torch: Tensor or Module
            loss = self._loss(self._logits(network, part.images, in_float32=perturbed), part)
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        return loss.detach()


@contextmanager
def undone_unless_kept(network: nn.Module, device: torch.device) -> Iterator[Callable[[], None]]:
    """Put buffers and random generators back as they were, unless what is yielded was called.

    A step that is skipped, or that fails, then leaves no trace in BatchNorm's running statistics.
    """
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    state, kept = random_state(device), []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            same_randomness(state, device)


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm, SyncBatchNorm too, normalises by the batch but leaves its running statistics alone.

    Turning tracking off is stronger than a momentum of 0, which still counts batches and fails for a
    cumulative average.
    """
    norms = [
        m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the generators that dropout and its like draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def same_randomness(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Set the generators back, so that the next pass drops what the pass after ``random_state`` dropped."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
