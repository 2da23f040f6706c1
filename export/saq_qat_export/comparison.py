"""Codes against codes, tensor by tensor: how many differ, how far, and whether rounding ties explain it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from saq_qat.quant import graph, ops
from saq_qat.quant.integer_modules import IntegerLayer, Quantize
from saq_qat_export.reference import run_reference, tensor_name
from saq_qat_export.ties import TieWindow

__all__ = [
    "Producer",
    "TensorComparison",
    "compare_evaluation",
    "compare_reference",
    "compare_view",
    "count",
    "merge",
    "producers",
]

Producer = Literal["integer", "float"]
Stored = Mapping[str, npt.NDArray[np.uint8]]
Codes = Mapping[str, npt.NDArray[np.int32]]


@dataclass(frozen=True)
class TensorComparison:
    """One quantized tensor.

    Attributes:
        producer: ``integer`` if integer kernels compute everything between its codes and the codes before it.
        mismatches: codes that differ and no rounding tie explains.
        ties: codes that differ because float32 cannot tell the value from a tie.
        tie_values: how many different values those are, batch by batch; a saturated channel repeats one.
        largest_step: largest difference, in codes.
    """

    name: str
    producer: Producer
    compared: int
    mismatches: int
    ties: int
    tie_values: int
    largest_step: int


def producers(view: fx.GraphModule) -> dict[str, Producer]:
    """For each code tensor, what computes it once deployed."""
    return {
        tensor_name(str(node.target)): "integer" if _is_integer(view, node.all_input_nodes[0]) else "float"
        for node in view.graph.nodes
        if isinstance(graph.module_of(view, node), Quantize)
    }


def _is_integer(view: fx.GraphModule, source: fx.Node) -> bool:
    """Whether the value of ``source`` only ever exists inside an integer kernel, or comes from outside."""
    if source.op == "placeholder" or source.target is ops.DEQUANTIZE:
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
    view: fx.GraphModule, images: npt.NDArray[np.float32], engine: Stored
) -> list[TensorComparison]:
    """Integer reference against the engine's codes, each tensor on the engine's codes before it; exact."""
    kinds = producers(view)
    own = run_reference(view, images, taught=engine).codes
    return [count(name, kinds[name], codes, engine[name]) for name, codes in own.items()]


def count(name: str, producer: Producer, own: npt.NDArray[Any], other: npt.NDArray[Any]) -> TensorComparison:
    """Every difference between two arrays of codes is a mismatch."""
    step = np.abs(own.astype(np.int64) - other.reshape(own.shape).astype(np.int64))
    return TensorComparison(
        name, producer, own.size, int(np.count_nonzero(step)), 0, 0, int(step.max(initial=0))
    )


@torch.no_grad()
def compare_view(view: fx.GraphModule, images: Tensor, engine: Stored) -> list[TensorComparison]:
    """Deploy view, in the dtype of ``images``, against the engine's codes, each tensor on those before it."""
    student = _Student(view, engine, TieWindow())
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
    student = _Student(view, taught, window, (expected, found))
    student.run(images)
    return student.comparisons


class _Student(fx.Interpreter):
    """Computes every code itself, notes the difference, and goes on with the taught ones.

    Args:
        pair: what to compare in place of its own codes and the taught ones.
    """

    def __init__(
        self,
        view: fx.GraphModule,
        taught: Stored,
        window: TieWindow,
        pair: tuple[Codes, Codes] | None = None,
    ) -> None:
        super().__init__(view, garbage_collect_values=False)
        self.view = view
        self.taught = taught
        self.window = window
        self.pair = pair
        self.kinds = producers(view)
        self.comparisons: list[TensorComparison] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
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
