"""The statistics stage: BatchNorm's running statistics as means over training batches, weights at rest."""

import time
from collections.abc import Iterator
from itertools import count, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.data.batches import train_batches
from saq_qat.errors import RecipeError
from saq_qat.quant.numerics.statistics import averaged_statistics, tracking_norms
from saq_qat.recipe.schema import Recipe, StatisticsStage
from saq_qat.train.reporting import report_batch
from saq_qat.train.state import Training

__all__ = ["check_statistics", "estimate_statistics", "require_statistics"]


def require_statistics(training: Training) -> None:
    """Refuse a statistics stage of a network without BatchNorm now, rather than after hours of training.

    Raises:
        RecipeError: the recipe has one and the network keeps no running statistics.
    """
    if training.form != "deploy":
        check_statistics(training.recipe, training.network)


def check_statistics(recipe: Recipe, network: nn.Module) -> None:
    """The same of a network that no deploy stage has folded, before there is a training.

    Raises:
        RecipeError: the recipe has a statistics stage and the network keeps no running statistics.
    """
    stages = recipe.train.stages
    at = next((i for i, stage in enumerate(stages) if isinstance(stage, StatisticsStage)), None)
    if at is not None and not tracking_norms(network):
        raise RecipeError(
            f"train.stages.{at}: a statistics stage estimates BatchNorm's running statistics, and the "
            "network keeps none. Leave the stage out."
        )


@torch.no_grad()
def estimate_statistics(training: Training, stage: StatisticsStage) -> None:
    """Replace BatchNorm's running statistics by means over ``stage.batches`` training batches.

    Each micro-batch counts once, with its mean and its unbiased variance: BatchNorm then normalises by what
    it saw in training. All else is in evaluation mode, without perturbation, dropout or autocast. Processes
    see their own shares, as many of the same size each, so that the mean of their means, which closes every
    epoch, is the mean over all.

    A stop leaves the checkpoint of the stage before, from which this stage starts over with the same result.

    Raises:
        TrainingStoppedError: SIGTERM or SIGINT came.
    """
    size = training.recipe.train.micro_batch_size
    clock = time.monotonic()
    with averaged_statistics(training.network):
        for number, (images, labels) in enumerate(islice(_batches(training), stage.batches), 1):
            loss = _passes(training.network, images, labels, size).item()
            training.loss_sum += loss
            seconds, clock = time.monotonic() - clock, time.monotonic()
            report_batch(training, stage, number, loss, training.recipe.train.batch_size / seconds)
            signal = training.asked_to_stop()
            if signal:
                raise training.stopped(signal)


def _passes(network: nn.Module, images: Tensor, labels: Tensor, size: int | None) -> Tensor:
    """One forward pass for each micro-batch; their mean cross entropy, 0-dim."""
    parts = zip(*(torch.split(each, size or len(each)) for each in (images, labels)), strict=True)
    return torch.stack([F.cross_entropy(network(part), targets) for part, targets in parts]).mean()


def _batches(training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's training batches, epoch after epoch."""
    processes = training.processes
    for epoch in count(training.epochs_before):
        yield from train_batches(
            training.images,
            batch_size=training.recipe.train.batch_size,
            seed=training.recipe.seed,
            epoch=epoch,
            rank=processes.rank,
            world_size=processes.world_size,
            device=processes.device,
        )
