"""What a training step costs: full precision, quantization-aware, SAQ, and SAQ with efficient training."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice
from statistics import fmean, quantiles

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from saq_qat.data.batches import train_batches
from saq_qat.data.open import ImageData, open_data
from saq_qat.errors import RecipeError
from saq_qat.models.build import build_model
from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.compilation import missing_compiler
from saq_qat.optim.passes import Objective
from saq_qat.optim.update import TrainingStep
from saq_qat.recipe.schema import DescentStage, EfficientTraining, Plain, Recipe, Saq
from saq_qat.train.determinism import repeatable_kernels
from saq_qat.train.forms import next_form
from saq_qat.train.memory import held_bytes, peak_bytes
from saq_qat.train.peers import peer_networks

__all__ = ["StepCost", "TrainingCost", "measure_training_cost"]

_LEARNING_RATE = 1e-4
_WARM_UP = 2
_FLOAT, _FLOAT_COMPILED, _QUANTIZED, _SAQ, _EFFICIENT = (
    "float",
    "float, compiled",
    "plain",
    "saq",
    "efficient",
)
_Batch = tuple[Tensor, Tensor]
_Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class StepCost:
    """Seconds of one step, and memory.

    Attributes:
        seconds: median over the batches; with efficient training the mean, over the places in its cycle, of
            the median of each.
        low, high: quartiles of what ``seconds`` is a median of.
        peak_bytes: largest memory that tensors take at once: what lasts (parameters, buffers, states of
            optimizer and method) and what a step takes beside it.
        weight_bytes: one copy of the parameters.
    """

    seconds: float
    low: float
    high: float
    peak_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class TrainingCost:
    """Steps of one recipe side by side, from the same batches and in the same run.

    ``full_precision`` is not compiled, the unit of every ratio; the others are compiled if ``compiled``.
    ``peers`` are plain steps of the same network as other libraries quantize it, by their name, not compiled.
    """

    full_precision: StepCost
    full_precision_compiled: StepCost | None
    quantized: StepCost
    saq: StepCost
    efficient: StepCost
    tau: int
    batch_size: int
    rounds: int
    threads: int
    device: str
    capability: str
    compiled: bool
    memory_format: str
    peers: dict[str, StepCost] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """The comparisons that a goal is set for, by name; memory beyond two more copies of the weights."""
        one, plain = self.full_precision.seconds, self.quantized
        found = {
            "quantized_to_full_precision": plain.seconds / one,
            "saq_to_full_precision": self.saq.seconds / one,
            "saq_to_quantized": self.saq.seconds / plain.seconds,
            "efficient_to_quantized": self.efficient.seconds / plain.seconds,
            "saq_memory_to_quantized": (self.saq.peak_bytes - 2 * plain.weight_bytes) / plain.peak_bytes,
        }
        if self.full_precision_compiled is not None:
            found["quantized_to_compiled"] = plain.seconds / self.full_precision_compiled.seconds
        return found


def measure_training_cost(
    recipe: Recipe,
    *,
    rounds: int = 6,
    peers: bool = False,
    on_round: _Advance = lambda _done, _total: None,
) -> TrainingCost:
    """Time the steps of ``recipe`` on its own network, batches and optimizer, side by side.

    A round is one cycle of tau batches. On every batch all take a step, in a rotating order; batches are
    prepared outside the clock. SAQ is the recipe's own, or Case 3 with rho 0.3; tau its own, or 4. Passes are
    compiled unless ``train.compile`` is off or there is no compiler. Weights are drawn, not loaded: they
    change no time. A teacher is left out: it adds one forward pass of its own to every step alike.

    Args:
        peers: time other libraries' quantized training beside it, see ``peer_networks``.
        on_round: told how many of all rounds are done; two more than ``rounds`` compile and warm up.

    Raises:
        RecipeError: the recipe quantizes nothing.
        SetupError: ``peers`` is asked for, and none is installed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"pretrained": None})})
    images = open_data(recipe.data, recipe.seed)
    saq = _method_of(recipe)
    tau = (saq.efficient or EfficientTraining()).tau
    compiled = recipe.train.compile != "off" and missing_compiler(device) is None
    with repeatable_kernels(recipe.train.deterministic):
        contenders = _contenders(recipe, images, saq, device, compiled=compiled, peers=peers)
        batches = _batches(recipe, images, device)
        measured: list[list[list[float]]] = []
        for done in range(rounds + _WARM_UP):
            measured.append(_round(list(contenders.values()), islice(batches, tau), device))
            on_round(done + 1, rounds + _WARM_UP)
        costs = _costs(contenders, measured[_WARM_UP:], next(batches))
    return TrainingCost(
        full_precision=costs.pop(_FLOAT),
        full_precision_compiled=costs.pop(_FLOAT_COMPILED, None),
        quantized=costs.pop(_QUANTIZED),
        saq=costs.pop(_SAQ),
        efficient=costs.pop(_EFFICIENT),
        peers=costs,
        tau=tau,
        batch_size=recipe.train.batch_size,
        rounds=rounds,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        capability=torch.backends.cpu.get_cpu_capability(),
        compiled=compiled,
        memory_format=_layout_name(recipe),
    )


def _method_of(recipe: Recipe) -> Saq:
    stages = [stage for stage in recipe.train.stages if isinstance(stage, DescentStage)]
    return next((s.method for s in stages if isinstance(s.method, Saq)), Saq(kind="saq", rho=0.3))


def _layout_name(recipe: Recipe) -> str:
    """One for all, so that ratios are of steps and not of layouts: the faster where the recipe leaves it."""
    return "contiguous" if recipe.train.memory_format == "contiguous" else "channels_last"


def _layout(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if _layout_name(recipe) == "channels_last" else torch.contiguous_format


@dataclass(frozen=True)
class _Contender:
    network: nn.Module
    optimizer: Optimizer
    step: TrainingStep


def _round(
    contenders: Sequence[_Contender], batches: Iterator[_Batch], device: torch.device
) -> list[list[float]]:
    """Seconds of each step on each batch."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for index, (images, labels) in enumerate(batches):
        for turn in range(len(contenders)):
            which = (turn + index) % len(contenders)
            start = time.perf_counter()
            contenders[which].step.step(images, labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[which].append(time.perf_counter() - start)
    return seconds


def _costs(
    contenders: Mapping[str, _Contender], rounds: list[list[list[float]]], batch: _Batch
) -> dict[str, StepCost]:
    """Of each contender; steps with efficient training differ by their place in the cycle."""
    found = {}
    for (name, contender), measured in zip(contenders.items(), zip(*rounds, strict=True), strict=True):
        in_cycle = list(zip(*measured, strict=True))
        places = in_cycle if name == _EFFICIENT else [list(chain.from_iterable(measured))]
        low, middle, high = (fmean(quartile) for quartile in zip(*map(_quartiles, places), strict=True))
        held = held_bytes(contender.network, contender.optimizer, contender.step)
        # the second pass of a cycle is its first step, which comes next after whole cycles
        taken = peak_bytes(partial(contender.step.step, *batch), batch[0].device)
        weights = sum(p.numel() * p.element_size() for p in contender.network.parameters())
        found[name] = StepCost(middle, low, high, held + taken, weights)
    return found


def _quartiles(seconds: Sequence[float]) -> list[float]:
    return quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3


def _contenders(
    recipe: Recipe, images: ImageData, saq: Saq, device: torch.device, *, compiled: bool, peers: bool
) -> dict[str, _Contender]:
    """Each with a network of its own."""
    if recipe.quant is None:
        raise RecipeError("The cost of quantized training needs a recipe with the section quant.")
    torch.manual_seed(recipe.seed)
    network = build_model(recipe.model, len(images.classes)).to(device)

    def calibration() -> Iterator[Tensor]:
        return (batch for batch, _ in islice(_batches(recipe, images, device), 1))

    quantized, _ = next_form(copy.deepcopy(network), None, recipe, "float", "quantized", calibration)
    plain = Plain(kind="plain")
    always = saq.model_copy(update={"efficient": None})
    sometimes = saq.model_copy(update={"efficient": saq.efficient or EfficientTraining()})
    found = {_FLOAT: _contender(recipe, copy.deepcopy(network), plain, compiled=False)}
    if compiled:
        found[_FLOAT_COMPILED] = _contender(recipe, copy.deepcopy(network), plain, compiled=True)
    for name, method in ((_QUANTIZED, plain), (_SAQ, always), (_EFFICIENT, sometimes)):
        found[name] = _contender(recipe, copy.deepcopy(quantized).to(device), method, compiled=compiled)
    for name, of_peer in peer_networks(network, recipe.quant).items() if peers else ():
        found[name] = _contender(recipe, of_peer.to(device), plain, compiled=False)
    return found


def _contender(recipe: Recipe, network: nn.Module, method: Plain | Saq, *, compiled: bool) -> _Contender:
    network = network.train().to(memory_format=_layout(recipe))
    optimizer = build_optimizer(network, recipe.train.optimizer)
    set_learning_rate(optimizer, _LEARNING_RATE)
    loss = partial(F.cross_entropy, label_smoothing=recipe.train.label_smoothing)
    train = recipe.train
    objective = Objective(network, loss, train.precision, train.micro_batch_size, None, compiled)
    step = build_step(objective, optimizer, method, max_norm=train.optimizer.max_norm)
    return _Contender(network, optimizer, step)


def _batches(recipe: Recipe, images: ImageData, device: torch.device) -> Iterator[_Batch]:
    """Training batches without end."""
    layout = _layout(recipe)
    for epoch in count():
        batches = train_batches(images, batch_size=recipe.train.batch_size, seed=recipe.seed, epoch=epoch)
        for inputs, labels in batches:
            yield inputs.to(device, memory_format=layout), labels.to(device)
