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

__all__ = ["Producer", "TensorComparison", "compare_reference", "compare_view", "merge", "producers"]

Producer = Literal["integer", "float"]
Stored = Mapping[str, npt.NDArray[np.uint8]]

# Kernels scale an accumulator by float32 multipliers: at most four roundings of relative size 2^-24 stand
# between the real number that is rounded to a code and the one the kernel rounds. Twice that is the width
# within which a tie may fall either way.
_TIE_WIDTH = 8 * 2.0**-24


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
    return [
        _count(name, kinds[name], codes.astype(np.int64), engine[name].astype(np.int64))
        for name, codes in own.items()
    ]


def _count(
    name: str, producer: Producer, own: npt.NDArray[Any], engine: npt.NDArray[Any]
) -> TensorComparison:
    step = np.abs(own - engine.reshape(own.shape))
    return TensorComparison(
        name, producer, own.size, int(np.count_nonzero(step)), 0, 0, int(step.max(initial=0))
    )


@torch.no_grad()
def compare_view(view: fx.GraphModule, images: Tensor, engine: Stored) -> list[TensorComparison]:
    """Deploy view, in the dtype of ``images``, against the engine's codes, each tensor on those before it."""
    student = _Student(view, engine)
    student.run(images)
    return student.comparisons


class _Student(fx.Interpreter):
    """Computes every code itself, notes the difference, and goes on with the engine's."""

    def __init__(self, view: fx.GraphModule, engine: Stored) -> None:
        super().__init__(view, garbage_collect_values=False)
        self.view = view
        self.engine = engine
        self.kinds = producers(view)
        self.comparisons: list[TensorComparison] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if not isinstance(module, Quantize):
            return result
        taught = torch.from_numpy(self.engine[tensor_name(str(n.target))]).reshape(result.shape)
        self.comparisons.append(self._compare(n, module, result, taught))
        return taught

    def _compare(self, node: fx.Node, module: Quantize, own: Tensor, taught: Tensor) -> TensorComparison:
        name = tensor_name(str(node.target))
        source = node.all_input_nodes[0]
        step = (own.int() - taught.int()).abs()
        differ = step > 0
        ties = differ & self._near_tie(name, source, module) if bool(differ.any()) else differ
        # To float32: equal accumulators at different places differ in the last bits of a float64 convolution.
        values = self.env[source][ties].float().unique().numel()
        mismatches, tied = int((differ & ~ties).sum()), int(ties.sum())
        return TensorComparison(
            name, self.kinds[name], own.numel(), mismatches, tied, values, int(step.max())
        )

    def _near_tie(self, tensor: str, source: fx.Node, module: Quantize) -> Tensor:
        """Where float32 arithmetic of the size that occurred cannot tell the value from a rounding tie."""
        value = self.env[source] / module.scale
        size = value.abs()
        layer = graph.module_of(self.view, source)
        if isinstance(layer, IntegerLayer):
            # products and bias may cancel, and the scale of the bias was rounded before
            bias = layer.float_bias().abs() / module.scale
            size = size + bias.reshape(-1, *[1] * (size.dim() - 2))
        if graph.is_add(self.view, source) and self.kinds[tensor] == "integer":
            # the kernel adds stored codes, zero points included
            terms = [self._stored_size(term) / module.scale for term in source.args]
            size = terms[0] + terms[1] + module.zero_point
        distance = (value - value.floor() - 0.5).abs()
        return torch.le(distance, _TIE_WIDTH * size)

    def _stored_size(self, dequantize: Any) -> Tensor:
        """Magnitudes of dequantized codes and of their zero point."""
        _, scale, zero_point = dequantize.args
        return torch.add(self.env[dequantize].abs(), self.env[scale] * zero_point)


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
