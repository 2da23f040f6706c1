"""Codes against codes, tensor by tensor: how many differ, how far, and whether rounding ties explain it.

Where an integer kernel writes floats instead, those are compared in the place of codes, bit for bit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from saq_qat.quant import graph, ops
from saq_qat.quant.integer_modules import IntegerLayer, Quantize
from saq_qat_export.integer_math import Float32
from saq_qat_export.probe import Observation
from saq_qat_export.reference import StoredCodes as Stored
from saq_qat_export.reference import run_reference, tensor_name
from saq_qat_export.ties import TieWindow
from saq_qat_export.view_graph import float_results, is_integer_product, kernel_before

__all__ = [
    "FLOAT32_WINDOW",
    "Producer",
    "TensorComparison",
    "compare_evaluation",
    "compare_reference",
    "compare_view",
    "count",
    "count_floats",
    "merge",
    "producers",
]

Producer = Literal["integer", "float"]
Codes = Mapping[str, npt.NDArray[np.int32]]


FLOAT32_WINDOW = TieWindow(accumulation=2.0)
"""For floats that were summed in float32."""


@dataclass(frozen=True)
class TensorComparison:
    """One quantized tensor, or one float32 result of an integer kernel.

    Attributes:
        producer: ``integer`` if integer kernels compute everything between its codes and the codes before it.
        mismatches: codes that differ and no rounding tie explains.
        ties: codes that differ because float32 cannot tell the value from a tie.
        tie_values: how many different values those are, batch by batch; a saturated channel repeats one.
        largest_step: largest difference, in codes; of float32, in units of the last place.
    """

    name: str
    producer: Producer
    compared: int
    mismatches: int
    ties: int
    tie_values: int
    largest_step: int


def producers(view: fx.GraphModule) -> dict[str, Producer]:
    """For each compared tensor, in graph order, what computes it once deployed."""
    floats = float_results(view)
    kinds: dict[str, Producer] = {}
    for node in view.graph.nodes:
        if node in floats:
            kinds[floats[node]] = "integer"
        elif isinstance(graph.module_of(view, node), Quantize):
            is_integer = _is_integer(view, kernel_before(view, node)[0])
            kinds[tensor_name(str(node.target))] = "integer" if is_integer else "float"
    return kinds


def _is_integer(view: fx.GraphModule, source: fx.Node) -> bool:
    """Whether the value of ``source`` only ever exists inside an integer kernel, or comes from outside.

    Linear layers and products compute the same integers where they write floats for several readers.
    """
    if source.op == "placeholder" or source.target is ops.DEQUANTIZE or is_integer_product(view, source):
        return True
    if len(source.users) > 1:
        return False
    module = graph.module_of(view, source)
    if isinstance(module, IntegerLayer):
        return module.bias_scale is not None
    is_known = (
        source.target is ops.GLOBAL_AVERAGE_POOL
        or graph.is_add(view, source)
        or graph.is_max_pool(view, source)
    )
    return is_known and all(parent.target is ops.DEQUANTIZE for parent in source.all_input_nodes)


def compare_reference(
    view: fx.GraphModule, images: npt.NDArray[np.float32], engine: Observation
) -> list[TensorComparison]:
    """Integer reference against the engine, each tensor computed from the engine's codes before it; exact."""
    own = run_reference(view, images, taught=engine.codes)
    return [
        count(name, kind, own.codes[name], engine.codes[name])
        if name in own.codes
        else count_floats(name, own.values[name], engine.values[name])
        for name, kind in producers(view).items()
    ]


def count(name: str, producer: Producer, own: npt.NDArray[Any], other: npt.NDArray[Any]) -> TensorComparison:
    """Every difference between two arrays of codes is a mismatch."""
    step = np.abs(own.astype(np.int64) - other.reshape(own.shape).astype(np.int64))
    return TensorComparison(
        name, producer, own.size, int(np.count_nonzero(step)), 0, 0, int(step.max(initial=0))
    )


def count_floats(name: str, own: Float32, other: Float32) -> TensorComparison:
    """Every float32 of an integer kernel that is not the same bit for bit is a mismatch."""
    patterns = (np.ascontiguousarray(floats).view(np.int32) for floats in (own, other.reshape(own.shape)))
    return count(name, "integer", *patterns)


@torch.no_grad()
def compare_view(view: fx.GraphModule, images: Tensor, engine: Observation) -> list[TensorComparison]:
    """Deploy view, in the dtype of ``images``, against the engine, each tensor on the codes before it."""
    student = _Student(view, engine.codes, TieWindow(), values=engine.values)
    student.run(images)
    return student.comparisons


@torch.no_grad()
def compare_evaluation(
    view: fx.GraphModule, images: Tensor, taught: Stored, window: TieWindow, expected: Codes, found: Codes
) -> list[TensorComparison]:
    """Two sets of codes, both computed from ``taught`` ones, against each other.

    Args:
        view: in float64, with ``images`` of that dtype: it tells how far each value lies from a tie.
        window: within which of a tie codes may differ.
        expected, found: by tensor name, without zero points.
    """
    student = _Student(view, taught, window, pair=(expected, found))
    student.run(images)
    return student.comparisons


class _Student(fx.Interpreter):
    """Computes every code itself, notes the difference, and goes on with the taught ones.

    Args:
        pair: what to compare in place of its own codes and the taught ones.
        values: float32 results of integer kernels to compare its own with, by name.
    """

    def __init__(
        self,
        view: fx.GraphModule,
        taught: Stored,
        window: TieWindow,
        *,
        pair: tuple[Codes, Codes] | None = None,
        values: Mapping[str, Float32] | None = None,
    ) -> None:
        super().__init__(view, garbage_collect_values=False)
        self.view = view
        self.taught = taught
        self.window = window
        self.pair = pair
        self.values = values or {}
        self.named = float_results(view)
        self.kinds = producers(view)
        self.comparisons: list[TensorComparison] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if self.named.get(n) in self.values:
            self.env[n] = result
            self.comparisons.append(self._compare_floats(n, result))
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if not isinstance(module, Quantize):
            return result
        name = tensor_name(str(n.target))
        taught = torch.from_numpy(self.taught[name]).reshape(result.shape)
        own, other = result, taught
        if self.pair is not None:
            own, other = (torch.from_numpy(codes[name]).reshape(result.shape) for codes in self.pair)
        self.comparisons.append(self._compare(n, own, other))
        return taught

    def _compare_floats(self, node: fx.Node, own: Tensor) -> TensorComparison:
        """Floats farther apart than roundings explain are mismatches of one step."""
        name = self.named[node]
        other = torch.from_numpy(self.values[name]).reshape(own.shape)
        window = self.window if own.dtype == torch.float64 else FLOAT32_WINDOW
        differ = int((~window.spans(self.view, self.env, node, other)).sum())
        return TensorComparison(name, self.kinds[name], own.numel(), differ, 0, 0, int(differ > 0))

    def _compare(self, node: fx.Node, own: Tensor, other: Tensor) -> TensorComparison:
        name = tensor_name(str(node.target))
        step = (own.int() - other.int()).abs()
        differ = step > 0
        ties = differ & self.window.holds(self.view, self.env, node) if bool(differ.any()) else differ
        # To float32: equal accumulators at different places differ in the last bits of a float64 convolution.
        values = self.env[node.all_input_nodes[0]][ties].float().unique().numel()
        mismatches, tied = int((differ & ~ties).sum()), int(ties.sum())
        return TensorComparison(
            name, self.kinds[name], own.numel(), mismatches, tied, values, int(step.max())
        )


def merge(parts: Iterable[Iterable[TensorComparison]]) -> list[TensorComparison]:
    """One comparison per tensor over several batches, in the order of the first."""
    total: dict[str, TensorComparison] = {}
    for part in parts:
        for new in part:
            old = total.get(new.name)
            total[new.name] = new if old is None else _sum(old, new)
    return list(total.values())


def _sum(a: TensorComparison, b: TensorComparison) -> TensorComparison:
    return TensorComparison(
        a.name,
        a.producer,
        a.compared + b.compared,
        a.mismatches + b.mismatches,
        a.ties + b.ties,
        a.tie_values + b.tie_values,
        max(a.largest_step, b.largest_step),
    )
