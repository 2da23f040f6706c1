"""Codes against codes, tensor by tensor: how many differ, by how much, and whether a rounding tie explains it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from saq_qat.quant import ops
from saq_qat.quant.integer_modules import IntegerLayer, Quantize
from saq_qat_export.reference import run_reference

__all__ = ["Producer", "TensorComparison", "compare_reference", "compare_view", "merge", "producers"]

Producer = Literal["integer", "float"]
Stored = Mapping[str, npt.NDArray[np.uint8]]

# Kernels scale an accumulator by float32 multipliers: at most four roundings of relative size 2^-24 stand between the real
# number that is rounded to a code and the one the kernel rounds. Twice that is the width within which a tie may fall
# either way.
_TIE_WIDTH = 8 * 2.0**-24


@dataclass(frozen=True)
class TensorComparison:
    """One quantized tensor.

    Attributes:
        producer: ``integer`` if integer kernels compute everything between its codes and the codes before it.
        mismatches: codes that differ and no rounding tie explains.
        ties: codes that differ because float32 cannot tell the value from a tie.
        largest_step: largest difference, in codes.
    """

    name: str
    producer: Producer
    compared: int
    mismatches: int
    ties: int
    largest_step: int


def producers(view: fx.GraphModule) -> dict[str, Producer]:
    """For each code tensor, what computes it once deployed."""
    found: dict[str, Producer] = {}
    for node in view.graph.nodes:
        module = view.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Quantize):
            source = node.all_input_nodes[0]
            found[_tensor_name(node)] = "integer" if _is_integer(view, source) else "float"
    return found


def _is_integer(view: fx.GraphModule, source: fx.Node) -> bool:
    if source.op == "placeholder" or source.target is ops.DEQUANTIZE:
        return True
    if len(source.users) > 1:
        return False
    if source.op == "call_module" and isinstance(
        module := view.get_submodule(str(source.target)), IntegerLayer
    ):
        return module.bias_scale is not None
    parents = [parent for parent in source.all_input_nodes if parent.op != "get_attr"]
    is_known = source.target is ops.GLOBAL_AVERAGE_POOL or "add" in source.name or "pool" in source.name
    return is_known and all(parent.target is ops.DEQUANTIZE for parent in parents)


def _tensor_name(node: fx.Node) -> str:
    return str(node.target).removeprefix("quantizers.") + ".codes"


def compare_reference(
    view: fx.GraphModule, images: npt.NDArray[np.float32], engine: Stored
) -> list[TensorComparison]:
    """Integer reference against the engine's stored codes, each tensor on the engine's codes before it. No ties: exact."""
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
        name, producer, own.size, int(np.count_nonzero(step)), 0, int(step.max(initial=0))
    )


@torch.no_grad()
def compare_view(view: fx.GraphModule, images: Tensor, engine: Stored) -> list[TensorComparison]:
    """Deploy view (in the dtype of ``images``) against the engine's stored codes, each tensor on the codes before it."""
    student = _Student(view, engine)
    student.run(images)
    return student.comparisons


class _Student(fx.Interpreter):
    """Computes every code itself, notes the difference, and goes on with the engine's."""

    def __init__(self, view: fx.GraphModule, engine: Stored) -> None:
        super().__init__(view, garbage_collect_values=False)
        self.engine = engine
        self.kinds = producers(view)
        self.comparisons: list[TensorComparison] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if not isinstance(module, Quantize):
            return result
        name = _tensor_name(n)
        taught = torch.from_numpy(self.engine[name]).reshape(result.shape)
        self.comparisons.append(self._compare(n, module, result, taught))
        return taught

    def _compare(self, node: fx.Node, module: Quantize, own: Tensor, taught: Tensor) -> TensorComparison:
        name = _tensor_name(node)
        step = (own.int() - taught.int()).abs()
        differ = step > 0
        ties = differ & self._near_tie(node.all_input_nodes[0], module) if bool(differ.any()) else differ
        return TensorComparison(
            name, self.kinds[name], own.numel(), int((differ & ~ties).sum()), int(ties.sum()), int(step.max())
        )

    def _near_tie(self, source: fx.Node, module: Quantize) -> Tensor:
        """Where float32 arithmetic of the size that occurred cannot tell the value from half-way between two codes."""
        value = self.env[source] / module.scale
        size = value.abs()
        parents = [parent for parent in source.all_input_nodes if parent.target is ops.DEQUANTIZE]
        if len(parents) > 1:
            size = (
                sum((self.env[parent].abs() / module.scale for parent in parents), torch.zeros_like(size))
                + 255
            )
        distance = (value - value.floor() - 0.5).abs()
        return distance <= _TIE_WIDTH * size


def merge(parts: Iterable[Iterable[TensorComparison]]) -> list[TensorComparison]:
    """One comparison per tensor over several batches, in the order of the first."""
    total: dict[str, TensorComparison] = {}
    for part in parts:
        for new in part:
            old = total.get(new.name)
            total[new.name] = new if old is None else TensorComparison(
                new.name, new.producer, old.compared + new.compared, old.mismatches + new.mismatches,
                old.ties + new.ties, max(old.largest_step, new.largest_step),
            )  # fmt: skip
    return list(total.values())
