"""Top-1 and top-5 accuracy, each image counted once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.data.batches import val_batches
from saq_qat.data.open import ImageData
from saq_qat.errors import DataError
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import Recipe
from saq_qat.train.distributed import Processes

__all__ = ["Accuracy", "OnLogits", "deployed_form", "evaluate", "evaluate_both", "evaluate_on"]

OnLogits = Callable[[Tensor], None]
"""Told the logits of each batch, float32 [n, classes] on the CPU, in the order of the images."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent and the mean cross entropy, over ``count`` images.

    ``top5`` counts the five likeliest classes, or all if there are fewer.
    """

    top1: float
    top5: float
    loss: float
    count: int


def _unheard(_logits: Tensor) -> None:
    """Who wants the accuracy alone."""


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    processes: Processes,
    on_logits: OnLogits = _unheard,
) -> Accuracy:
    """Accuracy of ``network`` in evaluation mode over the batches of all processes; its mode is restored.

    Sums are added up over images and processes, so that batches of any size count by their images.

    Raises:
        DataError: there is no image.
    """
    training = network.training
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    try:
        for images, labels in batches:
            logits = network(images.to(processes.device)).float().cpu()
            sums += _sums(logits, labels.cpu())
            on_logits(logits)
    finally:
        network.train(training)
    right1, right5, loss, count = processes.total(sums.tolist())
    if not count:
        raise DataError(
            "There are no validation images, so accuracy has no meaning. Add images, or raise data.val_limit."
        )
    return Accuracy(100.0 * right1 / count, 100.0 * right5 / count, loss / count, int(count))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    # Of equal logits, which integers often are, argmax takes the first, as engines' answers are read too.
    first = logits.argmax(dim=1) == labels
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    right5 = (best.any(dim=1) | first).sum()
    return torch.stack([first.sum(), right5, loss, torch.tensor(len(labels))]).double()


def evaluate_on(
    network: nn.Module,
    recipe: Recipe,
    images: ImageData,
    processes: Processes,
    on_logits: OnLogits = _unheard,
) -> Accuracy:
    """Accuracy of ``network`` on the validation images of a recipe, in batches of a process's share."""
    size = processes.share_of(recipe.train.batch_size, None)
    batches = val_batches(
        images,
        batch_size=size,
        rank=processes.rank,
        world_size=processes.world_size,
        device=processes.device,
    )
    return evaluate(network, batches, processes, on_logits)


def deployed_form(network: nn.Module, plan: Plan | None, recipe: Recipe) -> fx.GraphModule | None:
    """The deploy view of a network.

    None for a float network, and for a plan without a deploy view: codes of more than 8 bits (the paper's
    8-bit grid).
    """
    if plan is None or not plan.deployable or not isinstance(network, fx.GraphModule):
        return None
    return deploy_view(network, recipe.deploy)


def evaluate_both(
    network: nn.Module, plan: Plan | None, recipe: Recipe, images: ImageData, processes: Processes
) -> tuple[Accuracy, Accuracy | None]:
    """Accuracy of the network as it trains and of its deploy view; the latter is None if it has none."""
    accuracy = evaluate_on(network, recipe, images, processes)
    view = deployed_form(network, plan, recipe)
    return accuracy, None if view is None else evaluate_on(view, recipe, images, processes)
