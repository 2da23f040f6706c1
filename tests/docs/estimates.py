"""Hours and memory of a recipe on H200s, from what was measured of two networks there: a paper estimate.

README.md of configs/imagenet tells the reasoning; this computes the figures that stand in it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saq_qat.analysis.study.arms import passes_per_step
from saq_qat.recipe.schema import CalibrationStage, DeployStage, Recipe, StatisticsStage

__all__ = ["Estimate", "Network", "estimate"]

_STEPS = Path(__file__).parents[1] / "gpu" / "results" / "h200" / "steps.json"
_MEASURED: dict[str, Any] = json.loads(_STEPS.read_text(encoding="utf-8"))["measured"]
_COST = _MEASURED["resnet18 fp32 eager"]["cost"]
_IMAGES = 128
"""Of the steps that were measured."""

_RESNET20_LAYERS = 22
_BYTES = 4


@dataclass(frozen=True)
class Network:
    """One forward pass of an image of 224 pixels.

    Attributes:
        multiply_adds: of convolutions, linear layers and products of two activations.
        inputs: elements that these read, weights left out: what quantizers work on.
        layers: how many these are.
        parameters: of the network.
    """

    multiply_adds: float
    inputs: float
    layers: int
    parameters: float


@dataclass(frozen=True)
class Estimate:
    """``hours`` from and to, and ``gigabytes`` on each GPU."""

    hours: tuple[float, float]
    gigabytes: float

    @property
    def hours_text(self) -> str:
        """As documents have it."""
        low, high = (f"{hours:.1f}" if hours < 10 else f"{hours:.0f}" for hours in self.hours)
        return low if low == high else f"{low} to {high}"

    @property
    def gigabytes_text(self) -> str:
        """As documents have it."""
        return f"{self.gigabytes:.1f}" if self.gigabytes < 10 else f"{self.gigabytes:.0f}"


def estimate(recipe: Recipe, images: int, gpus: int, networks: dict[str, Network]) -> Estimate:
    """Of the recipe's stages that move weights before deployment, on ``images`` training images.

    Args:
        networks: by ``model.name``, the teacher's too; ``resnet18`` is the one that was measured.
    """
    network, measured = networks[recipe.model.name], networks["resnet18"]
    share = recipe.train.batch_size / gpus / _IMAGES
    compute = network.multiply_adds / measured.multiply_adds
    traffic = network.inputs / measured.inputs
    seconds = [0.0, 0.0]
    for stage in recipe.train.stages:
        if isinstance(stage, StatisticsStage | CalibrationStage | DeployStage):
            continue
        quantized = stage.kind == "quantized"
        passes = _passes(stage.method, quantized=quantized)
        steps = stage.epochs * (images // recipe.train.batch_size)
        full, extra = _COST["full_precision"]["seconds"], _extra() if quantized else 0.0
        ratios = sorted((compute, traffic))
        low, high = (share * passes * (full * ratio + extra * traffic) for ratio in ratios)
        launched = passes * network.layers * _launch("quantized" if quantized else "full_precision")
        taught = _teaching(recipe, share, networks)
        seconds[0] += steps * (low + taught)
        seconds[1] += steps * (max(high, launched) + taught)
    return Estimate((seconds[0] / 3600, seconds[1] / 3600), _gigabytes(recipe, gpus, networks))


def _extra() -> float:
    """Seconds that quantizers add to a plain step of ResNet-18."""
    return float(_COST["quantized"]["seconds"] - _COST["full_precision"]["seconds"])


def _passes(method: object, *, quantized: bool) -> float:
    """Plain steps that a step takes the time of: measured where it could be."""
    exact = passes_per_step(method)
    if not quantized or exact == 1:
        return exact
    key = "saq" if exact == 2 else "efficient"
    return float(_COST[key]["seconds"] / _COST["quantized"]["seconds"])


def _launch(key: str) -> float:
    """Seconds to launch the kernels of a layer for a step: those of ResNet-20 at 32 pixels are too small to
    take longer."""
    return float(_MEASURED["resnet20 fp32 eager"]["cost"][key]["seconds"] / _RESNET20_LAYERS)


def _teaching(recipe: Recipe, share: float, networks: dict[str, Network]) -> float:
    """Seconds of the teacher's forward pass, a third of a step in full precision."""
    teacher = recipe.train.teacher
    if teacher is None or teacher.model is None:
        return 0.0
    ratio = networks[teacher.model.name].multiply_adds / networks["resnet18"].multiply_adds
    return float(share * ratio * _COST["full_precision"]["seconds"] / 3)


def _gigabytes(recipe: Recipe, gpus: int, networks: dict[str, Network]) -> float:
    """Activations as those of ResNet-18, whose step's parameters are taken off; then the network's own.

    A teacher adds its parameters alone: it has answered before the passes begin, and keeps no activations.
    """
    network, measured = networks[recipe.model.name], networks["resnet18"]
    train = recipe.train
    cost = _COST["efficient" if recipe.quant is not None else "full_precision"]
    copies = 6 if train.optimizer.kind == "sgd" else 7
    activations = cost["peak_bytes"] - 6 * _BYTES * measured.parameters
    at_a_time = min(train.batch_size / gpus, train.micro_batch_size or train.batch_size)
    ratio = at_a_time / _IMAGES * network.inputs / measured.inputs
    parameters = copies * network.parameters
    if train.teacher is not None and train.teacher.model is not None:
        parameters += networks[train.teacher.model.name].parameters
    return float(activations * ratio + _BYTES * parameters) / 1e9
