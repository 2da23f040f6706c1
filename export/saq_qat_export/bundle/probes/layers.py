"""Convolutions and linear layers as rows of weights over cells of the codes that they read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import IntegerConv2d, IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import float_results, is_integer_product, quantizer_behind
from saq_qat.quant.trace import graph
from saq_qat_export.bundle.probes.steps import Integers, rounding_steps
from saq_qat_export.reference.deploy_view import tensor_name
from saq_qat_export.reference.integer_math import CodeRange, Window, window_patches

__all__ = ["ONE_IN", "SummedLayer", "summed_layers"]

Cells = npt.NDArray[np.int32]
ONE_IN = 10_000
"""Of a scale, the smallest change that is to show: weights and biases change by one."""


@dataclass(frozen=True)
class SummedLayer:
    """A layer of integer codes.

    Attributes:
        source, result: tensor of codes that it reads; tensor of codes, or of floats, that it writes.
        cells: int32 (positions, groups, taps): which element of a sample of ``source`` each tap reads, from 1
            on; 0 is padding.
        weight: (groups, out / groups, taps). bias: (groups, out / groups).
        steps: (groups, out / groups, codes above the lowest); None where floats are written.
        moved: (2, ...) the same if the channel's scale were one in ``ONE_IN`` larger, and smaller.
        grid: float32 (groups, out / groups), the value of one unit of the sums.
        highest, lowest: codes of ``source``, without zero point.
    """

    name: str
    source: str
    result: str
    cells: Cells
    weight: Integers
    bias: Integers
    steps: Integers | None
    moved: Integers | None
    grid: npt.NDArray[np.float32]
    lowest: int
    highest: int

    def inputs(self, samples: npt.NDArray[np.int16], group: int) -> npt.NDArray[np.int16]:
        """What the taps of a group read: (N, positions, taps) of samples (N, elements)."""
        padded = np.concatenate([np.zeros((len(samples), 1), np.int16), samples], axis=1)
        return padded[:, self.cells[:, group]]


def summed_layers(view: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> Iterator[SummedLayer]:
    """Every layer whose sums become codes by one rounding, or floats that are read back, in graph order.

    Args:
        shapes: of one sample of each tensor of codes, with a leading 1.
    """
    floats = float_results(view)
    for node in view.graph.nodes:
        module = graph.module_of(view, node)
        if not isinstance(module, IntegerLayer) or module.bias_scale is None:
            continue
        behind = quantizer_behind(view, node)
        found = _source(view, node, shapes)
        if found is None or not (behind is not None or (is_integer_product(view, node) and node in floats)):
            continue
        source, places = found
        result = floats[node] if behind is None else tensor_name(str(behind.target))
        quantize = None if behind is None else graph.module_of(view, behind)
        yield _layer(view, node, module, source, places, result, quantize)


def _source(
    view: fx.GraphModule, node: fx.Node, shapes: dict[str, tuple[int, ...]]
) -> tuple[fx.Node, npt.NDArray[Any]] | None:
    """The quantizer whose codes a layer reads, and their places, from 1 on, as the layer reads them.

    None where anything but reshapes with fixed sizes stands between.
    """
    moves, source = [], node.all_input_nodes[0]
    while graph.is_reshape(view, source) or source.target is ops.DEQUANTIZE:
        if source.target is not ops.DEQUANTIZE:
            if len(source.all_input_nodes) != 1:
                return None
            moves.append(source)
        source = source.all_input_nodes[0]
    if not isinstance(graph.module_of(view, source), Quantize):
        return None
    shape = shapes[tensor_name(str(source.target))]
    places = torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float64).reshape(shape)
    for move in reversed(moves):
        places = _moved(view, move, places)
    return source, places.numpy()


def _moved(view: fx.GraphModule, node: fx.Node, places: torch.Tensor) -> torch.Tensor:
    arguments, keywords = fx.node.map_arg((node.args, node.kwargs), lambda _: places)
    caller = fx.Interpreter(view, garbage_collect_values=False)
    result: torch.Tensor = getattr(caller, node.op)(node.target, arguments, keywords)
    return result


def _layer(
    view: fx.GraphModule,
    node: fx.Node,
    module: IntegerLayer,
    source: fx.Node,
    places: npt.NDArray[Any],
    result: str,
    quantize: object,
) -> SummedLayer:
    read = graph.module_of(view, source)
    groups = module.groups if isinstance(module, IntegerConv2d) else 1
    per_group = len(module.weight) // groups
    if not isinstance(read, Quantize):
        raise TypeError(f"{node.name} reads no codes of a quantizer")
    grid = (np.float32(read.scale.item()) * module.weight_scale.numpy()).astype(np.float32)
    steps = moved = None
    if isinstance(quantize, Quantize):
        codes = CodeRange(quantize.minimum, quantize.maximum)
        scale = np.float32(quantize.scale.item())
        steps, *others = (
            rounding_steps((grid * factor).astype(np.float32), scale, codes).reshape(groups, per_group, -1)
            for factor in (np.float32(1), np.float32(1 + 1 / ONE_IN), np.float32(1 - 1 / ONE_IN))
        )
        moved = np.stack(others)
    return SummedLayer(
        str(node.target),
        tensor_name(str(source.target)),
        result,
        _cells(module, places, groups),
        module.weight.numpy().astype(np.int64).reshape(groups, per_group, -1),
        module.bias.numpy().astype(np.int64).reshape(groups, per_group),
        steps,
        moved,
        grid.reshape(groups, per_group),
        read.minimum,
        read.maximum,
    )


def _cells(module: IntegerLayer, places: npt.NDArray[Any], groups: int) -> Cells:
    """(positions, groups, taps) of places (1, C, H, W), or (1, ..., in) of a linear layer."""
    if not isinstance(module, IntegerConv2d):
        return places.reshape(-1, 1, places.shape[-1]).astype(np.int32)
    window = Window(module.stride, module.padding, module.dilation, module.groups)
    height, width = module.weight.shape[2:]
    read = window_patches(places.astype(np.int32), (height, width), window)[0]
    positions = read.shape[1] * read.shape[2]
    cells: Cells = read.transpose(1, 2, 0, 3, 4).reshape(positions, groups, -1)
    return cells
