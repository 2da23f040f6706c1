"""The probes of a bundle: codes for every tensor by itself, what they must become, and what that covers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import LOGITS, float_results
from saq_qat.quant.trace import graph as trace
from saq_qat_export.bundle.probes.coverage import LayerCoverage, cover
from saq_qat_export.bundle.probes.design import design_samples, samples_needed
from saq_qat_export.bundle.probes.groups import IMAGE, batch_groups
from saq_qat_export.bundle.probes.layers import SummedLayer, summed_layers
from saq_qat_export.graph.onnx_graph import INPUT, OnnxGraph
from saq_qat_export.proof.codes import tie_images
from saq_qat_export.proof.tensors import producers
from saq_qat_export.reference.deploy_view import Stored, StoredCodes, run_reference, tensor_name
from saq_qat_export.reference.integer_math import Float32
from saq_qat_runtime.bundle.manifest import CoverageRecord
from saq_qat_runtime.codes import CodeEngine
from saq_qat_runtime.recorded import Answers, Samples

__all__ = ["Probes", "make_probes"]

Samples16 = npt.NDArray[np.int16]
_PLAIN = 2
"""Samples of every tensor that are drawn: one without zeros, one of all codes."""
_AT_TIES = 1e-4
_LEAST_CODES = 3 << 19


@dataclass(frozen=True)
class Probes:
    """Attributes:
    layers: what golden images and samples show of each layer, in graph order.
    """

    samples: Samples
    coverage: CoverageRecord
    layers: tuple[LayerCoverage, ...]


@torch.no_grad()
def make_probes(
    view: fx.GraphModule, graph: OnnxGraph, images: Float32, golden: StoredCodes, *, designed: bool = True
) -> Probes:
    """Probes of a network, the same for the same network.

    What is designed has no more codes than twice the network's weights, or a million and a half if that is
    more.

    Args:
        view: float32 deploy view. graph: of it, for ONNX Runtime.
        images: golden images, float32 (N, C, H, W). golden: their stored codes, by tensor.
        designed: those for each channel too, and what all cover; else those that are drawn alone, and no
            weight is counted.
    """
    quantizers = {
        tensor_name(str(node.target)): module
        for node in view.graph.nodes
        if isinstance(module := trace.module_of(view, node), Quantize)
    }
    shapes = {name: (1, *golden[name].shape[1:]) for name in quantizers}
    layers = tuple(summed_layers(view, shapes)) if designed else ()
    random = np.random.Generator(np.random.PCG64(0))
    groups = batch_groups(view)
    counts, drawn = _drawn(layers, quantizers, shapes, groups, random)
    given = {
        name: (_filled(drawn[name], counts[name]) + module.zero_point)
        .reshape(-1, *shapes[name][1:])
        .astype(module.stored)
        for name, module in quantizers.items()
    }
    _, channels, height, width = images.shape
    inputs = tie_images(view, (channels, height, width), counts[IMAGE]).numpy()
    samples = _answered(view, graph, inputs, given)
    covered = tuple(
        _cover(layer, quantizers[layer.source], given[layer.source], golden[layer.source], _PLAIN)
        for layer in layers
    )
    return Probes(samples, _record(view, covered), covered)


def _drawn(
    layers: tuple[SummedLayer, ...],
    quantizers: dict[str, Quantize],
    shapes: dict[str, tuple[int, ...]],
    groups: list[frozenset[str]],
    random: np.random.Generator,
) -> tuple[dict[str, int], dict[str, Samples16]]:
    """How many samples each tensor has, and those of its own, codes without zero point: (N, elements)."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    shares, left = _shares(layers, sizes), 0
    drawn = {name: _plain(module, shapes[name], random) for name, module in quantizers.items()}
    for layer in layers:
        left += shares[layer.name]
        codes = _codes(layer, sizes)
        own = design_samples(layer, sizes[layer.source], max(left // codes, _PLAIN), random)
        left -= len(own) * codes
        drawn[layer.source] = np.concatenate([drawn[layer.source], own])
    counts = {
        name: max((len(drawn[member]) for member in group if member in drawn), default=_PLAIN)
        for group in groups
        for name in group
    }
    return counts, drawn


def _shares(layers: tuple[SummedLayer, ...], sizes: dict[str, int]) -> dict[str, int]:
    """How many codes, read and written, each layer may have designed: in proportion to what it needs."""
    needed = {layer.name: samples_needed(layer) * _codes(layer, sizes) for layer in layers}
    allowed = max(2 * sum(layer.weight.size for layer in layers), _LEAST_CODES)
    part = min(allowed / max(sum(needed.values()), 1), 1.0)
    return {name: int(codes * part) for name, codes in needed.items()}


def _codes(layer: SummedLayer, sizes: dict[str, int]) -> int:
    """Of one sample: read and written."""
    return sizes[layer.source] + sizes.get(layer.result, 0)


def _plain(module: Quantize, shape: tuple[int, ...], random: np.random.Generator) -> Samples16:
    """Codes from 1 on; then all codes, as often in one channel as in another rarely, so that means differ."""
    channels = shape[1] if len(shape) > 1 else 1
    codes = random.integers(module.minimum, module.maximum + 1, shape[1:])
    strength = random.random((channels, *[1] * (len(shape) - 2)))
    kept = np.where(random.random(shape[1:]) < 2 * strength, codes, 0)
    dense = random.integers(max(min(1, module.maximum), module.minimum), module.maximum + 1, shape[1:])
    return np.stack([dense.ravel(), np.clip(kept, module.minimum, module.maximum).ravel()]).astype(np.int16)


def _filled(samples: Samples16, count: int) -> Samples16:
    """With samples of zeros behind."""
    return np.concatenate([samples, np.zeros((count - len(samples), samples.shape[1]), np.int16)])


def _answered(view: fx.GraphModule, graph: OnnxGraph, inputs: Float32, given: dict[str, Stored]) -> Samples:
    """What the reference computes; the engine alone decides where a tie of floats falls."""
    own = run_reference(view, inputs, taught=given)
    values = {LOGITS: own.logits, **own.values}
    heads = {name: _head(values[name]) for name in float_results(view).values()}
    asked = Samples(inputs, dict(given), Answers(dict(own.codes), heads))
    with CodeEngine(graph.content, asked, exact_pairs=bool(graph.over_pair_bound)) as engine:
        seen = engine.run(INPUT, asked)
    kinds = producers(view)
    codes = {
        name: seen.codes[name] if kinds[name] == "float" and _is_near(due, seen.codes[name]) else due
        for name, due in own.codes.items()
    }
    return Samples(inputs, dict(given), Answers(dict(codes), heads))


def _is_near(due: Stored, seen: Stored) -> bool:
    """Whether ties explain what differs."""
    steps = np.abs(due.astype(np.int16) - seen.astype(np.int16))
    return int(steps.max(initial=0)) <= 1 and int((steps > 0).sum()) <= max(1, _AT_TIES * due.size)


def _head(floats: Float32) -> Float32:
    """The first rows, which are all that is recorded, in whatever shape they come."""
    return floats.reshape(-1, floats.shape[-1])[:_PLAIN].copy()


def _cover(layer: SummedLayer, module: Quantize, given: Stored, golden: Stored, plain: int) -> LayerCoverage:
    batches = [
        (stored.astype(np.int16) - module.zero_point).reshape(len(stored), -1) for stored in (given, golden)
    ]
    if layer.steps is None:  # of floats, some rows are recorded
        return cover(layer, [batches[0][:plain]], rows=plain)
    return cover(layer, batches)


def _record(view: fx.GraphModule, layers: tuple[LayerCoverage, ...]) -> CoverageRecord:
    counted = {layer.name for layer in layers}
    others = (
        module.weight.numel() + module.bias.numel()
        for name, module in view.named_modules()
        if isinstance(module, IntegerLayer) and name not in counted
    )
    return CoverageRecord(
        sum(layer.shown.size for layer in layers),
        sum(layer.found for layer in layers),
        sum(int(layer.without_effect.sum()) for layer in layers),
        sum(others),
    )
