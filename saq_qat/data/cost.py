"""What it costs to prepare batches: how long training waits for them, and how long they take alone."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saq_qat.data.batches import steps_per_epoch, train_batches
from saq_qat.data.open import ImageData, open_data
from saq_qat.recipe.schema import Recipe

__all__ = ["DataCost", "Waiting", "measure_data_cost"]

Batch = tuple[Tensor, Tensor]


class Waiting:
    """Batches, and the ``seconds`` for which whoever takes them has waited."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class DataCost:
    """How long the training batches of a recipe take, with nothing else to do.

    Attributes:
        first: seconds until the first batch; images that stay in memory are decoded, once for all epochs.
        batch: seconds of each batch behind it, the mean of ``batches``.
        epoch_batches: batches of an epoch.
    """

    first: float
    batch: float
    batches: int
    epoch_batches: int
    batch_size: int
    workers: int
    device: str

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return self.batch * self.epoch_batches

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.batch


def measure_data_cost(
    recipe: Recipe, *, batches: int = 50, on_batch: Callable[[int, int], None] = lambda _done, _total: None
) -> DataCost:
    """Time the training batches of ``recipe`` on the device that would train.

    Args:
        batches: how many are timed behind the first.
        on_batch: told how many of all are done.

    Raises:
        DataError: there are no images, too few, or damaged ones.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = open_data(recipe.data, recipe.seed)
    of_epoch = steps_per_epoch(images, recipe.train.batch_size)
    start = time.perf_counter()
    images.train.in_memory()
    prepared = _batches(recipe, images, device)
    next(prepared)
    first, start = time.perf_counter() - start, time.perf_counter()
    for done in range(batches):
        next(prepared)
        on_batch(done + 1, batches)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) / batches
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return DataCost(first, seconds, batches, of_epoch, recipe.train.batch_size, recipe.data.workers, name)


def _batches(recipe: Recipe, images: ImageData, device: torch.device) -> Iterator[Batch]:
    """Training batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from train_batches(
            images, batch_size=recipe.train.batch_size, seed=recipe.seed, epoch=epoch, device=device
        )
        epoch += 1
