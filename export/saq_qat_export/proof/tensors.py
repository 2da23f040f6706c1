"""Codes against codes, tensor by tensor: how many differ, how far, and whether rounding ties explain it.

Where an integer kernel writes floats instead, those are compared in the place of codes, bit for bit.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.deploy.kernels import LOGITS, float_results, is_integer_kernel, kernel_before
from saq_qat.quant.trace import graph
from saq_qat_export.proof.probe import Observation
from saq_qat_export.proof.ties import IN_FLOATS, ONNX_RUNTIME, ErrorBounds, Rounding
from saq_qat_export.reference.deploy_view import Reference, run_reference, tensor_name
from saq_qat_export.reference.deploy_view import StoredCodes as Stored
from saq_qat_export.reference.integer_math import Float32

__all__ = [
    "Producer",
    "TensorComparison",
    "compare_computed",
    "compare_evaluation",
    "compare_pairs",
    "compare_reference",
    "compare_view",
    "count",
    "count_floats",
    "explain",
    "merge",
    "producers",
]

Producer = Literal["integer", "float"]
Codes = Mapping[str, npt.NDArray[Any]]
Floats = Mapping[str, Float32]


@dataclass(frozen=True)
class TensorComparison:
    """One quantized tensor, or one float32 result of an integer kernel.

    Attributes:
        producer: ``integer`` if integer kernels compute everything between its codes and the codes before it.
        mismatches: codes that differ although no rounding error of float32 can turn the one into the other.
        ties: codes that differ because the real value lies as near a tie as such an error is large.
        tie_values: how many different values those are, batch by batch; a saturated channel repeats one.
        largest_step: largest difference, in codes; of float32, in units of the last place.
        steps: between its lowest and its highest code; 0 where no ties were looked for.
    """

    name: str
    producer: Producer
    compared: int
    mismatches: int
    ties: int
    tie_values: int
    largest_step: int
    steps: int = 0


def producers(view: fx.GraphModule) -> dict[str, Producer]:
    """For each compared tensor, in graph order, what computes it once deployed."""
    floats = float_results(view)
    kinds: dict[str, Producer] = {}
    for node in view.graph.nodes:
        if node in floats:
            kinds[floats[node]] = "integer"
        elif isinstance(graph.module_of(view, node), Quantize):
            kernel, _ = kernel_before(view, node)
            comes_as_it_is = kernel.op == "placeholder" or kernel.target is ops.DEQUANTIZE
            is_integer = comes_as_it_is or is_integer_kernel(view, kernel)
            kinds[tensor_name(str(node.target))] = "integer" if is_integer else "float"
    return kinds


def compare_reference(
    view: fx.GraphModule, images: npt.NDArray[np.float32], engine: Observation
) -> list[TensorComparison]:
    """Integer reference against the engine, each tensor computed from the engine's codes before it.

    Exact, but for codes behind float operations: those may part at rounding ties.
    """
    return compare_computed(view, images, run_reference(view, images, taught=engine.codes), engine)


def compare_computed(
    view: fx.GraphModule, images: npt.NDArray[np.float32], own: Reference, engine: Observation
) -> list[TensorComparison]:
    """As ``compare_reference``, which has computed ``own`` from the engine's codes."""
    own_floats, floats = ({LOGITS: seen.logits, **seen.values} for seen in (own, engine))
    found = [
        count(name, kind, own.codes[name], engine.codes[name])
        if name in own.codes
        else count_floats(name, own_floats[name], floats[name])
        for name, kind in producers(view).items()
    ]
    return explain(found, view, torch.from_numpy(images), engine.codes, own.codes, engine.codes)


def compare_pairs(
    view: fx.GraphModule, images: npt.NDArray[np.float32], known: Reference | None = None
) -> list[TensorComparison]:
    """Codes by exact sums against codes by sums of saturating pairs, each from its own codes before it.

    What differs is what plain sessions on x86 CPUs without VNNI get wrong.

    Args:
        known: by exact sums, each from its own codes, where that was computed already.
    """
    if known is not None and not known.may_saturate:
        paired = exact = known
    else:
        paired = run_reference(view, images, saturating=True)
        # Where no sum was changed, the exact sums are these.
        exact = run_reference(view, images) if paired.is_saturated else paired
    return [
        count(name, kind, exact.codes[name], paired.codes[name])
        if name in exact.codes
        else count_floats(name, exact.values[name], paired.values[name])
        for name, kind in producers(view).items()
    ]


def explain(
    comparisons: list[TensorComparison],
    view: fx.GraphModule,
    images: Tensor,
    taught: Stored,
    expected: Codes,
    found: Codes,
) -> list[TensorComparison]:
    """Comparisons whose differences behind float operations are told apart: mismatches, and rounding ties.

    Args:
        view: in float32, as ``images``.
        taught, expected, found: as for ``compare_evaluation``.
    """
    if not any(t.mismatches for t in comparisons if t.producer == "float"):
        return comparisons
    wide = copy.deepcopy(view).double()
    judged = compare_evaluation(wide, images.double(), taught, expected, found, rounding=ONNX_RUNTIME)
    by_name = {tensor.name: tensor for tensor in judged}
    return [by_name[t.name] if t.producer == "float" else t for t in comparisons]


def count(name: str, producer: Producer, own: npt.NDArray[Any], other: npt.NDArray[Any]) -> TensorComparison:
    """Every difference between two arrays of codes is a mismatch."""
    other = other.reshape(own.shape)
    if np.array_equal(own, other):
        return TensorComparison(name, producer, own.size, 0, 0, 0, 0)
    differ = own != other
    steps = np.abs(own[differ].astype(np.int64) - other[differ].astype(np.int64))
    return TensorComparison(name, producer, own.size, steps.size, 0, 0, int(steps.max(initial=0)))


def count_floats(name: str, own: Float32, other: Float32) -> TensorComparison:
    """Every float32 of an integer kernel that is not the same bit for bit is a mismatch."""
    patterns = (np.ascontiguousarray(floats).view(np.int32) for floats in (own, other.reshape(own.shape)))
    return count(name, "integer", *patterns)


@torch.no_grad()
def compare_view(view: fx.GraphModule, images: Tensor, engine: Observation) -> list[TensorComparison]:
    """Deploy view, in the dtype of ``images``, against the engine, each tensor on the codes before it."""
    values = {LOGITS: engine.logits, **engine.values}
    rounding = IN_FLOATS if images.dtype == torch.float32 else ONNX_RUNTIME
    student = _Student(view, engine.codes, values, rounding)
    student.run(images)
    return student.comparisons


@torch.no_grad()
def compare_evaluation(
    view: fx.GraphModule,
    images: Tensor,
    taught: Stored,
    expected: Codes,
    found: Codes,
    values: Floats | None = None,
    *,
    rounding: Rounding = IN_FLOATS,
) -> list[TensorComparison]:
    """Two sets of codes, both computed from ``taught`` ones, against each other.

    Args:
        view: in float64, with ``images`` of that dtype: it tells how far each value lies from a tie.
        expected, found: by tensor name, with the same zero points or without.
        values: float32 results of products that were found, by tensor name.
        rounding: of what was found.
    """
    student = _Student(view, taught, values or {}, rounding, pair=(expected, found))
    student.run(images)
    return student.comparisons


class _Student(fx.Interpreter):
    """Computes every code itself, notes the difference, and goes on with the taught ones.

    Args:
        values: float32 results of products to compare its own with, by name.
        rounding: of what its own codes and values are compared with.
        pair: what to compare in place of its own codes and the taught ones.
    """

    def __init__(
        self,
        view: fx.GraphModule,
        taught: Stored,
        values: Floats,
        rounding: Rounding,
        *,
        pair: tuple[Codes, Codes] | None = None,
    ) -> None:
        super().__init__(view, garbage_collect_values=False)
        self.view, self.taught, self.values = view, taught, values
        self.rounding, self.pair = rounding, pair
        self.named, self.kinds = float_results(view), producers(view)
        self.comparisons: list[TensorComparison] = []

    @cached_property
    def bounds(self) -> ErrorBounds:
        return ErrorBounds(self.view, self.env, self.rounding)

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
        pair = (torch.from_numpy(codes[name]).reshape(result.shape) for codes in self.pair or ())
        own, other = pair if self.pair is not None else (result, taught)
        self.comparisons.append(self._compare(n, module, own, other))
        return taught

    def _compare_floats(self, node: fx.Node, own: Tensor) -> TensorComparison:
        """Floats farther apart than roundings explain are mismatches of one step."""
        name = self.named[node]
        other = torch.from_numpy(self.values[name]).reshape(own.shape)
        differ = int((~self.bounds.spans(node, other)).sum())
        return TensorComparison(name, self.kinds[name], own.numel(), differ, 0, 0, int(differ > 0))

    def _compare(self, node: fx.Node, module: Quantize, own: Tensor, other: Tensor) -> TensorComparison:
        name = tensor_name(str(node.target))
        differ, width = own != other, module.maximum - module.minimum
        if not bool(differ.any()):
            return TensorComparison(name, self.kinds[name], own.numel(), 0, 0, 0, 0, width)
        steps = (own[differ].int() - other[differ].int()).abs()
        ties = differ & self.bounds.at_ties(node)
        # To float32: equal accumulators at different places differ in the last bits of a float64 convolution.
        values = self.env[node.all_input_nodes[0]][ties].float().unique().numel()
        counts = (int((differ & ~ties).sum()), int(ties.sum()), values, int(steps.max()))
        return TensorComparison(name, self.kinds[name], own.numel(), *counts, width)


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
        max(a.steps, b.steps),
    )
