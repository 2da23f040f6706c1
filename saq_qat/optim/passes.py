"""One forward and backward pass, and what must hold around the second of two passes over one batch."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saq_qat.optim.compilation import compiler_errors, lost_gradients
from saq_qat.optim.distillation import Distillation
from saq_qat.optim.gradients import laid_out_as

__all__ = [
    "MicroBatch",
    "Objective",
    "Snapshot",
    "random_state",
    "running_statistics",
    "same_randomness",
    "statistics_put_back",
    "undone_unless_kept",
]

_AS_EAGER: dict[str, str | int | bool | Callable[..., object]] = {"eager_numerics.division_rounding": True}
"""Kernels for a GPU divide with an error of two units otherwise, which gives other codes."""


@dataclass(frozen=True)
class MicroBatch:
    """Images that share one perturbation, with all that their loss is made of.

    Attributes:
        images: (n, C, H, W).
        labels: classes (n,), or a distribution over them for each image (n, classes) where labels are mixed.
        teacher_logits: (n, classes), one answer for every pass; None without a teacher.
    """

    images: Tensor
    labels: Tensor
    teacher_logits: Tensor | None


@dataclass
class Objective:
    """The loss that is minimised, and how it and its gradients are computed.

    Attributes:
        network: maps images (N, C, H, W) to logits.
        loss: mean loss of logits and labels, 0-dim.
        precision: ``bfloat16`` runs forward passes under autocast; quantizers and losses stay in float32.
        micro_batch_size: images that share one pass; the whole batch if None.
        distillation: a teacher and its part in the loss, if there is one.
        compiled: passes are compiled, network and loss as one function of images of one shape. Becomes false,
            with a warning, where the compiler fails, or loses gradients.
    """

    network: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch_size: int | None = None
    distillation: Distillation | None = None
    compiled: bool = False
    _one_function: Callable[..., Tensor] = field(init=False, repr=False)
    _works: set[bool] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        self._one_function = self._loss_of
        if self.compiled:
            self._one_function = torch.compile(
                self._loss_of, fullgraph=True, dynamic=False, options=_AS_EAGER
            )

    def micro_batches(self, images: Tensor, labels: Tensor) -> list[MicroBatch]:
        """Parts of a batch with at most ``micro_batch_size`` images each.

        The teacher sees every image once, whatever the number of passes, and no more images at a time than
        a pass does, so that smaller micro-batches need less memory with a teacher too.
        """
        size = self.micro_batch_size or len(images)
        parts = zip(torch.split(images, size), torch.split(labels, size), strict=True)
        return [MicroBatch(part, targets, self._teacher_logits(part)) for part, targets in parts]

    def _teacher_logits(self, images: Tensor) -> Tensor | None:
        if self.distillation is None:
            return None
        with torch.no_grad():
            return self._logits(self.distillation.teacher, images, in_float32=False)

    def _logits(self, network: nn.Module, images: Tensor, *, in_float32: bool) -> Tensor:
        enabled = self.precision == "bfloat16" and not in_float32
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            logits: Tensor = network(images)
        return logits.float() if logits.dtype == torch.bfloat16 else logits

    def _loss_of(
        self, images: Tensor, labels: Tensor, teacher_logits: Tensor | None, in_float32: bool
    ) -> Tensor:
        logits = self._logits(self.network, images, in_float32=in_float32)
        label_loss = self.loss(logits, labels)
        if self.distillation is None or teacher_logits is None:
            return label_loss
        return self.distillation.combined(label_loss, logits, teacher_logits)

    def gradients(
        self, part: MicroBatch, inputs: Sequence[Tensor], *, in_float32: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss, 0-dim and detached, and its gradients with respect to ``inputs``, of their shapes.

        A tensor that the loss does not depend on has the gradient zero.

        Args:
            in_float32: whatever the precision. Where parameters themselves are moved by an epsilon that is
                smaller than the steps of bfloat16, these would round most of it away.
        """
        if self.compiled and in_float32 not in self._works:
            self._compile(part, inputs, in_float32)
        return self._differentiate(self._one_function, part, inputs, in_float32)

    def _compile(self, part: MicroBatch, inputs: Sequence[Tensor], in_float32: bool) -> None:
        """Try one pass, which leaves no trace: with it, both of its directions are compiled, or refused.

        They are refused too where gradients are missing that an eager pass has: compilers have lost some in
        silence.
        """
        with undone_unless_kept(Snapshot(list(self.network.buffers())), part.images.device):
            try:
                _, found = self._differentiate(self._one_function, part, inputs, in_float32)
            except compiler_errors() as error:
                message = str(error).strip().split("\n", 1)[0]
                wrong: str | None = f"{type(error).__name__}: {message}"
            else:
                _, expected = self._differentiate(self._loss_of, part, inputs, in_float32)
                wrong = lost_gradients(found, expected)
        if wrong is None:
            self._works.add(in_float32)
        else:
            self._go_on_without_compiler(wrong)

    def _differentiate(
        self, function: Callable[..., Tensor], part: MicroBatch, inputs: Sequence[Tensor], in_float32: bool
    ) -> tuple[Tensor, list[Tensor]]:
        loss = function(part.images, part.labels, part.teacher_logits, in_float32)
        found = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        return loss.detach(), laid_out_as(inputs, found)

    def _go_on_without_compiler(self, reason: str) -> None:
        self.compiled = False
        self._one_function = self._loss_of
        warnings.warn(
            f"The compiler failed on this network, so training goes on without it, which takes longer "
            f"({reason}). Set train.compile: off to train without it from the start.",
            stacklevel=2,
        )


class Snapshot:
    """Copies of tensors, to go back to; the memory is taken once."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._copies = [torch.empty_like(tensor) for tensor in tensors]

    @torch.no_grad()
    def take(self) -> None:
        if self._tensors:
            torch._foreach_copy_(self._copies, self._tensors)

    @torch.no_grad()
    def put_back(self) -> None:
        if self._tensors:
            torch._foreach_copy_(self._tensors, self._copies)


def running_statistics(network: nn.Module) -> list[Tensor]:
    """The buffers of every BatchNorm, SyncBatchNorm too, that the second of two passes must not move."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


@contextmanager
def undone_unless_kept(buffers: Snapshot, device: torch.device) -> Iterator[Callable[[], None]]:
    """Put buffers and random generators back as they were, unless what is yielded was called.

    A step that is skipped, or that fails, then leaves no trace in BatchNorm's running statistics.
    """
    buffers.take()
    state, kept = random_state(device), []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            buffers.put_back()
            same_randomness(state, device)


@contextmanager
def statistics_put_back(statistics: Snapshot) -> Iterator[None]:
    """Running statistics, of which ``statistics`` has copies, end this context as they began it.

    BatchNorm computes as in any other pass and is put back, rather than told not to track: it stays the same
    program for a compiler, and a momentum of 0 would still count batches.
    """
    statistics.take()
    try:
        yield
    finally:
        statistics.put_back()


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the generators that dropout and its like draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def same_randomness(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Set the generators back, so that the next pass drops what the pass after ``random_state`` dropped."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
