"""Top-1 and top-5 accuracy, each image counted once."""

from collections.abc import Iterable
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

__all__ = ["Accuracy", "evaluate", "evaluate_both", "evaluate_on"]


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent and the mean cross entropy, over ``count`` images.

    ``top5`` counts the five likeliest classes, or all if there are fewer.
    """

    top1: float
    top5: float
    loss: float
    count: int


@torch.no_grad()
def evaluate(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes) -> Accuracy:
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
    finally:
        network.train(training)
    right1, right5, loss, count = processes.total(sums.tolist())
    if not count:
        raise DataError(
            "There are no validation images, so accuracy has no meaning. Add images, or raise data.val_limit."
        )
    return Accuracy(100.0 * right1 / count, 100.0 * right5 / count, loss / count, int(count))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([best[:, 0].sum(), best.sum(), loss, torch.tensor(len(labels))]).double()


def evaluate_on(network: nn.Module, recipe: Recipe, images: ImageData, processes: Processes) -> Accuracy:
    """Accuracy of ``network`` on the validation images of a recipe, in batches of a process's share."""
    size = processes.share_of(recipe.train.batch_size, None)
    batches = val_batches(
        images,
        batch_size=size,
        rank=processes.rank,
        world_size=processes.world_size,
        device=processes.device,
    )
    return evaluate(network, batches, processes)


def evaluate_both(
    network: nn.Module, plan: Plan | None, recipe: Recipe, images: ImageData, processes: Processes
) -> tuple[Accuracy, Accuracy | None]:
    """Accuracy of the network as it trains and of its deploy view.

    The latter is None for a float network, and for a plan without a deploy view: codes of more than 8 bits
    (the paper's 8-bit grid).
    """
    accuracy = evaluate_on(network, recipe, images, processes)
    if plan is None or not plan.deployable or not isinstance(network, fx.GraphModule):
        return accuracy, None
    return accuracy, evaluate_on(deploy_view(network, recipe.deploy), recipe, images, processes)
