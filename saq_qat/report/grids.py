"""How a network's values lie on their grids: codes in use, quantization noise, histograms.

Weights are the checkpoint's own. Activations are those of a few images, so their figures are of these alone.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace.inputs import activation_quantizers
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import Checkpoint
from saq_qat.train.forms import check_records, load_weights, network_in_form

__all__ = ["GridUse", "Grids", "golden_inputs", "grid_use", "measure_grids", "network_of"]

_BINS = 64
_MARGIN = 0.12  # of the grid's width, shown beyond each end


@dataclass(frozen=True)
class GridUse:
    """One quantizer and the values it was given.

    Attributes:
        minimum, maximum, step: of the legal codes.
        clip_level: largest value that is not clipped. scale: value of one code.
        used: how many of the ``legal`` codes occur.
        sqnr_db: 10 log10(sum x^2 / sum (x - Q(x))^2) in decibels; None where nothing was lost, or all is 0.
        clipped: share of values beyond the ends of the grid.
        histogram: counts of values in equal bins from ``low`` to ``high``, in codes; values beyond count in
            the outermost bins.
    """

    name: str
    bits: int
    minimum: int
    maximum: int
    step: int
    clip_level: float
    scale: float
    used: int
    legal: int
    sqnr_db: float | None
    clipped: float
    low: float
    high: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Grids:
    """Of every weight, and of every activation; ``images``: how many the activations were measured on."""

    weights: tuple[GridUse, ...]
    activations: tuple[GridUse, ...]
    images: int


def network_of(recipe: Recipe, checkpoint: Checkpoint, classes: int) -> fx.GraphModule:
    """The fake-quant network of a checkpoint in evaluation mode, without opening any data.

    Raises:
        ArtifactError: it was trained otherwise than its recipe says. RecipeError: it is in full precision.
    """
    network, plan = network_in_form(recipe, classes, checkpoint.form)
    check_records(network, plan, recipe, checkpoint)
    load_weights(network, checkpoint.model, str(checkpoint.folder))
    if not isinstance(network, fx.GraphModule):
        raise TypeError(f"a network in the form {checkpoint.form} has no quantizers")
    return network.eval()


def golden_inputs(bundle: Path, file: str) -> Tensor:
    """Float32 (N, C, H, W), preprocessed: the inputs of a bundle's golden samples."""
    with np.load(bundle / file, allow_pickle=False) as arrays:
        return torch.from_numpy(np.asarray(arrays["inputs"], np.float32))


@torch.no_grad()
def measure_grids(network: fx.GraphModule, images: Tensor | None) -> Grids:
    """Measure every weight, and every activation while the network computes ``images`` (N, C, H, W).

    Args:
        images: None leaves activations out.
    """
    layers = quant_layers(network, every_use=True)
    weights = tuple(
        grid_use(name, layer.weight_quantizer, layer.quantizer_input()) for name, layer in layers.items()
    )
    if images is None:
        return Grids(weights, (), 0)
    activations: dict[str, GridUse] = {}
    with _watched(activation_quantizers(network), activations):
        network(images)
    return Grids(weights, tuple(activations.values()), len(images))


@contextmanager
def _watched(quantizers: dict[str, Quantizer], found: dict[str, GridUse]) -> Iterator[None]:
    """Measure what each quantizer is given from now on."""

    def watch(name: str, quantizer: Quantizer) -> torch.utils.hooks.RemovableHandle:
        def see(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            found[name] = grid_use(name, quantizer, given[0])

        return quantizer.register_forward_pre_hook(see)

    handles = [watch(name, quantizer) for name, quantizer in quantizers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def grid_use(name: str, quantizer: Quantizer, values: Tensor) -> GridUse:
    """Measure ``values``, of any shape, on a quantizer's grid."""
    prepare = quantizer.kind.prepare
    given = (values if prepare is None else prepare(values, quantizer.alpha)).double().flatten()
    codes = quantizer.codes(values).double().flatten()
    offset, scale = quantizer.offset(values.numel()), float(quantizer.scale)
    start = 0.0 if offset is None else float(offset)
    minimum, maximum = quantizer.code_range()
    steps = ((given - start) / scale).numpy()
    low, high, histogram = _histogram(steps, minimum, maximum)
    lowest, highest = (float(bound) for bound in quantizer.clip_bounds())
    return GridUse(
        name=name,
        bits=quantizer.bits,
        minimum=minimum,
        maximum=maximum,
        step=quantizer.grid.step,
        clip_level=highest,
        scale=scale,
        used=len(np.unique(codes.numpy())),
        legal=quantizer.grid.levels,
        sqnr_db=_sqnr(given, codes * scale + start),
        clipped=float(((given < lowest) | (given > highest)).double().mean()),
        low=low,
        high=high,
        histogram=histogram,
    )


def _sqnr(given: Tensor, quantized: Tensor) -> float | None:
    signal, noise = float(given.square().sum()), float((given - quantized).square().sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def _histogram(
    steps: NDArray[np.float64], minimum: int, maximum: int
) -> tuple[float, float, tuple[int, ...]]:
    margin = _MARGIN * (maximum - minimum)
    low, high = minimum - margin, maximum + margin
    counts, _ = np.histogram(np.clip(steps, low, high), bins=_BINS, range=(low, high))
    return low, high, tuple(int(count) for count in counts)
