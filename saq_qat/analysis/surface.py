"""The loss as a function of what is added to the quantized weights, and its exact Hessian-vector products."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from saq_qat.errors import DataError, RecipeError, SaqError
from saq_qat.optim.perturbation import Ball, opened
from saq_qat.quant.numerics.layers import quant_layers

__all__ = ["Batches", "LossSurface", "loss_surface"]

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (n, C, H, W) and classes (n,): the same each time they are iterated."""

_NOT_TWICE = ("is not implemented", "differentiate twice")


@dataclass(frozen=True)
class LossSurface:
    """L(epsilon): the mean cross entropy of fixed images at the quantized weights Q(v) plus epsilon.

    It is the surface that the paper's Figures 1, B and C show and whose Hessian at epsilon = 0 has the
    lambda_max of its Table 4. The network is in evaluation mode: BatchNorm has its running statistics, and
    nothing is dropped.

    The Hessian is that of the network in which every activation quantizer is, on each image, the affine
    function with its value and its straight-through slope there: 1 inside the clip range, 0 outside.
    Rounding and clipping have no second derivative of their own, and gradients pass them once more as in
    training. It is symmetric. No straight-through surrogate of the weights takes part, for epsilon is added
    behind their quantizer.

    Attributes:
        names: of the weights that are moved.
        centres: Q(v) of each, of the weight's shape; the weight itself in a float network.
        slots: leaf tensors of the same shapes, zero at the trained network.
        logits: of images at the slots as they are.
        batches: the images; the loss is the mean over all of them, however they are split.
    """

    names: tuple[str, ...]
    centres: tuple[Tensor, ...]
    slots: tuple[Tensor, ...]
    logits: Callable[[Tensor], Tensor]
    batches: Batches

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(slot.numel() for slot in self.slots)

    @torch.no_grad()
    def loss_at(self, epsilon: Sequence[Tensor]) -> float:
        """L(epsilon); ``epsilon`` holds one tensor for each slot. The slots are zero again afterwards.

        Raises:
            DataError: there is no image.
        """
        try:
            torch._foreach_copy_(list(self.slots), list(epsilon))
            total, count = 0.0, 0
            for images, labels in self.batches:
                total += self._loss_sum(images, labels).double().item()
                count += len(labels)
        finally:
            torch._foreach_zero_(list(self.slots))
        return total / self._some(count)

    def hessian_product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """H v at epsilon = 0 by differentiating <dL/depsilon, v>, one batch at a time.

        Args:
            vector: one tensor for each slot, of its shape and dtype.

        Raises:
            DataError: there is no image.
            SaqError: the network has an operation without a second derivative, or a derivative is not finite.
        """
        product = [torch.zeros_like(slot) for slot in self.slots]
        count = 0
        for images, labels in self.batches:
            torch._foreach_add_(product, self._product_of(images, labels, vector))
            count += len(labels)
        torch._foreach_div_(product, self._some(count))
        if not all(bool(part.isfinite().all()) for part in product):
            raise SaqError(
                "Curvature needs finite derivatives, and a Hessian-vector product has numbers that are not. "
                "Look at the loss that saq-qat eval reports, or use --float64."
            )
        return product

    def _loss_sum(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(images), labels, reduction="sum")

    def _product_of(self, images: Tensor, labels: Tensor, vector: Sequence[Tensor]) -> list[Tensor]:
        loss = self._loss_sum(images, labels)
        try:
            gradient = torch.autograd.grad(
                loss, self.slots, create_graph=True, allow_unused=True, materialize_grads=True
            )
            along = torch.stack([(g * v).sum() for g, v in zip(gradient, vector, strict=True)]).sum()
            # Whole, and not towards the slots alone: an operation that is differentiable once leaves no path
            # to them, only an error that waits to be met.
            torch.autograd.backward(along)
        except RuntimeError as error:
            raise _not_twice(error) from error
        finally:
            found = [torch.zeros_like(slot) if slot.grad is None else slot.grad for slot in self.slots]
            for slot in self.slots:
                slot.grad = None
        return found

    @staticmethod
    def _some(count: int) -> int:
        if not count:
            raise DataError("There are no images to measure the loss on. Add images, or raise --images.")
        return count


def _not_twice(error: RuntimeError) -> Exception:
    """What to say of an error of the second pass; itself where it is about something else."""
    if not any(sign in str(error) for sign in _NOT_TWICE):
        return error
    return SaqError(
        "Curvature needs operations that can be differentiated twice, and this network has one that cannot: "
        f"{error}. Its landscape can be drawn all the same: --what landscape."
    )


@contextmanager
def loss_surface(network: nn.Module, batches: Batches) -> Iterator[LossSurface]:
    """The surface around a network's weights, for this context; the network is the same before and after.

    Args:
        network: quantized (its weights are those behind the quantizers), or float (the weights of its
            convolutions and linear layers).
        batches: on the network's device and of its dtype.

    Raises:
        RecipeError: the network has no such weights.
    """
    training = network.training
    frozen = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in frozen:  # so that no gradient but the slots' is computed
        parameter.requires_grad_(False)
    try:
        layers = quant_layers(network)
        if not layers:
            yield _float_surface(network, batches)
            return
        with torch.no_grad():
            centres = tuple(layer.projected_weight() for layer in layers.values())
        with opened(Ball(tuple(layers.values()))) as slots:
            yield LossSurface(tuple(layers), centres, tuple(slots), network, batches)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        network.train(training)


def _float_surface(network: nn.Module, batches: Batches) -> LossSurface:
    weights = dict(_float_weights(network))
    if not weights:
        raise RecipeError(
            "Sharpness is measured around the weights of convolutions and linear layers, and this network "
            "has none."
        )
    slots = {name: torch.zeros_like(weight, requires_grad=True) for name, weight in weights.items()}

    def logits(images: Tensor) -> Tensor:
        moved = {name: weight + slots[name] for name, weight in weights.items()}
        found: Tensor = functional_call(network, moved, (images,))
        return found

    centres = tuple(weight.clone() for weight in weights.values())
    return LossSurface(tuple(weights), centres, tuple(slots.values()), logits, batches)


def _float_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            name, weight = "weight", module.weight
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            name, weight = "in_proj_weight", module.in_proj_weight
        else:
            continue
        if id(weight) not in seen:
            seen.add(id(weight))
            yield f"{path}.{name}" if path else name, weight.detach()
