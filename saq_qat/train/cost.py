"""What a training step costs: full precision, quantization-aware, SAQ, and SAQ with efficient training."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from statistics import fmean, median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.data.batches import train_batches
from saq_qat.data.open import ImageData, open_data
from saq_qat.errors import RecipeError
from saq_qat.models.build import build_model
from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.passes import Objective
from saq_qat.optim.update import TrainingStep
from saq_qat.recipe.schema import EfficientTraining, Plain, Recipe, Saq, StatisticsStage
from saq_qat.train.determinism import repeatable_kernels
from saq_qat.train.forms import next_form

__all__ = ["TrainingCost", "measure_training_cost"]

_LEARNING_RATE = 1e-4
_Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of one step, as medians over interleaved rounds, and their ratios.

    ``efficient_step`` is the mean over a cycle of tau steps, of the median of each place in the cycle.
    """

    float_step: float
    qat_step: float
    saq_step: float
    efficient_step: float
    tau: int
    batch_size: int
    rounds: int
    device: str

    @property
    def qat_to_float(self) -> float:
        return self.qat_step / self.float_step

    @property
    def saq_to_qat(self) -> float:
        return self.saq_step / self.qat_step

    @property
    def efficient_to_qat(self) -> float:
        return self.efficient_step / self.qat_step


def measure_training_cost(
    recipe: Recipe, *, rounds: int = 6, on_round: Callable[[int, int], None] = lambda _done, _total: None
) -> TrainingCost:
    """Time the four steps of ``recipe`` on its own network, batches and optimizer, side by side.

    A round is one cycle of tau batches. On every batch all four take a step, in a rotating order; batches
    are prepared outside the clock. SAQ is the recipe's own, or Case 3 with rho 0.3; tau its own, or 4. A
    teacher is left out: it adds one forward pass of its own to every step alike.

    Args:
        on_round: told how many of all rounds are done; one more than ``rounds`` warms up.

    Raises:
        RecipeError: the recipe quantizes nothing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = open_data(recipe.data, recipe.seed)
    saq = _method_of(recipe)
    tau = (saq.efficient or EfficientTraining()).tau
    with repeatable_kernels(recipe.train.deterministic):
        steps = _four_steps(recipe, images, saq, device)
        batches = _batches(recipe, images, device)
        measured = []
        for done in range(rounds + 1):
            measured.append(_round(steps, islice(batches, tau), device))
            on_round(done + 1, rounds + 1)
    return _summary(measured[1:], tau, recipe.train.batch_size, device)


def _method_of(recipe: Recipe) -> Saq:
    stages = [stage for stage in recipe.train.stages if not isinstance(stage, StatisticsStage)]
    return next((s.method for s in stages if isinstance(s.method, Saq)), Saq(kind="saq", rho=0.3))


def _round(
    steps: Sequence[TrainingStep], batches: Iterator[_Batch], device: torch.device
) -> list[list[float]]:
    """Seconds of each step on each batch."""
    seconds: list[list[float]] = [[] for _ in steps]
    for index, (images, labels) in enumerate(batches):
        for turn in range(len(steps)):
            which = (turn + index) % len(steps)
            start = time.perf_counter()
            steps[which].step(images, labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[which].append(time.perf_counter() - start)
    return seconds


def _summary(
    rounds: list[list[list[float]]], tau: int, batch_size: int, device: torch.device
) -> TrainingCost:
    in_float, qat, saq, efficient = zip(*rounds, strict=True)
    every = [median(chain.from_iterable(kind)) for kind in (in_float, qat, saq)]
    cycle = [median(place) for place in zip(*efficient, strict=True)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return TrainingCost(every[0], every[1], every[2], fmean(cycle), tau, batch_size, len(rounds), name)


def _four_steps(recipe: Recipe, images: ImageData, saq: Saq, device: torch.device) -> list[TrainingStep]:
    """Float, plain quantized, SAQ, SAQ with efficient training; each with a network of its own."""
    if recipe.quant is None:
        raise RecipeError("The cost of quantized training needs a recipe with the section quant.")
    torch.manual_seed(recipe.seed)
    network = build_model(recipe.model, len(images.classes)).to(device)

    def calibration() -> Iterator[Tensor]:
        return (batch for batch, _ in islice(_batches(recipe, images, device), 1))

    quantized, _ = next_form(copy.deepcopy(network), None, recipe, "float", "quantized", calibration)
    always = saq.model_copy(update={"efficient": None})
    sometimes = saq.model_copy(update={"efficient": saq.efficient or EfficientTraining()})
    plain = Plain(kind="plain")
    return [
        _step(recipe, network, plain),
        *(
            _step(recipe, copy.deepcopy(quantized).to(device), method)
            for method in (plain, always, sometimes)
        ),
    ]


def _step(recipe: Recipe, network: nn.Module, method: Plain | Saq) -> TrainingStep:
    optimizer = build_optimizer(network, recipe.train.optimizer)
    set_learning_rate(optimizer, _LEARNING_RATE)
    loss = partial(F.cross_entropy, label_smoothing=recipe.train.label_smoothing)
    objective = Objective(network.train(), loss, recipe.train.precision, recipe.train.micro_batch_size)
    return build_step(objective, optimizer, method, max_norm=recipe.train.optimizer.max_norm)


def _batches(recipe: Recipe, images: ImageData, device: torch.device) -> Iterator[_Batch]:
    """Training batches without end."""
    for epoch in count():
        batches = train_batches(images, batch_size=recipe.train.batch_size, seed=recipe.seed, epoch=epoch)
        for inputs, labels in batches:
            yield inputs.to(device), labels.to(device)
