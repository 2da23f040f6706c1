"""The comparisons of a graph for OpenVINO: codes, sums and logits read back from its engine on this CPU.

OpenVINO moves and fuses quantizers, so that nothing is taken on trust. Codes are read back from the whole
graph. Who reads codes keeps them from being overwritten, and a sum from being one kernel with a convolution:
so the graph is cut at its codes too, where every layer's sums and the codes of those kernels are compared on
the same codes. Of the graph as it ships, OpenVINO's list of kernels must show that each quantizer rounds, and
the logits must be those that the same kernels give one after the other.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx

from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, OnnxGraph
from saq_qat_export.proof.comparison import Comparison, exact_comparison, tied_comparison
from saq_qat_export.proof.layer_sums import (
    codes_given_as,
    compare_sums,
    cut_at_codes,
    layer_results,
    repeated_codes,
    summed_codes,
)
from saq_qat_export.proof.probe import Observation, with_code_outputs
from saq_qat_export.proof.tensors import TensorComparison, compare_evaluation, count, count_floats, merge
from saq_qat_export.proof.ties import OPENVINO
from saq_qat_export.reference.deploy_view import Reference, StoredCodes, run_reference
from saq_qat_export.reference.integer_math import Float32
from saq_qat_runtime.openvino import OpenVinoBackend

__all__ = ["OpenVinoProbe", "openvino_comparisons"]

_CODES = "integer reference = OpenVINO"
_SUMS = "deploy view in float64 = OpenVINO, sums layer by layer"
_KERNELS = "integer reference = OpenVINO, sums of codes in one kernel with a convolution"
_KEPT = "quantizers that OpenVINO rounds by = all"
_SHIPPED = "OpenVINO's logits as it ships = beside its codes"
_CHAINED = "OpenVINO's logits as it ships = behind its codes of sums"


class OpenVinoProbe:
    """A graph on OpenVINO: as it ships, with its codes as further outputs, and cut at its codes.

    Attributes:
        summed: codes of sums that it may compute in one kernel with a convolution, in graph order.

    Raises:
        BackendUnavailable: openvino is not installed. ModelError: it refuses the graph.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._layers = layer_results(graph)
        self.summed = summed_codes(graph)
        self._shipped = OpenVinoBackend(graph.content)
        self._watched = OpenVinoBackend(with_code_outputs(graph), any_operators=True)
        self._cut = OpenVinoBackend(cut_at_codes(graph, self._layers), any_operators=True)
        self._kernels = self._stages = None
        if self.summed:
            stages = cut_at_codes(graph, (*self.summed, OUTPUT), at=self.summed)
            self._kernels = OpenVinoBackend(cut_at_codes(graph, self.summed), any_operators=True)
            self._stages = OpenVinoBackend(stages, any_operators=True)

    def logits(self, images: Float32) -> Float32:
        """Of float32 images (N, C, H, W), by the graph as it ships."""
        logits: Float32 = self._shipped.run({INPUT: images})[OUTPUT]
        return logits

    def observe(self, images: Float32) -> Observation:
        """Codes, float results and logits of float32 images (N, C, H, W)."""
        seen = self._watched.run({INPUT: images})
        codes = {name: seen[name] for name in self._graph.code_tensors}
        values = {name: seen[name] for name in self._graph.float_results}
        return Observation(codes, values, seen[OUTPUT])

    def sums(self, codes: StoredCodes) -> dict[str, Float32]:
        """What every layer on codes writes, in graph order, each computed from given codes."""
        found = _from_codes(self._cut, codes)
        return {name: found[name] for name in self._layers}

    def sums_of_codes(self, codes: StoredCodes) -> StoredCodes:
        """Codes of the sums ``summed``, each computed from given codes."""
        return {} if self._kernels is None else _from_codes(self._kernels, codes)

    def logits_behind_sums(self, images: Float32, codes: StoredCodes) -> Float32:
        """Logits of a graph cut at the codes ``summed`` alone, each of which runs in one kernel there.

        Which codes it makes of a sum depends on those before: given other codes, it is run again with what it
        made of them, as often as there are sums at most.

        Args:
            codes: where to begin, such as those of `observe`.
        """
        if self._stages is None:
            return self.logits(images)
        given = {name: codes[name] for name in self.summed}
        for _ in range(len(self.summed) + 1):
            found = _from_codes(self._stages, {INPUT: images, **given})
            if all(np.array_equal(found[name], given[name]) for name in given):
                break
            given = {name: found[name] for name in given}
        logits: Float32 = found[OUTPUT]
        return logits

    def lost_quantizers(self) -> frozenset[str]:
        """Codes that no kernel of the graph as it ships rounds to: of quantizers that OpenVINO left out, or
        whose rounding it did, because a sum and another quantizer follow in one kernel."""
        computed, unrounded = set[str](), set[str]()
        for nodes in self._shipped.kernels():
            operators = [node.partition(":")[0] for node in nodes]
            for place, node in enumerate(nodes):
                if operators[place] == "QuantizeLinear":
                    behind = operators[place + 1 :]
                    is_rounded = not {"Add", "QuantizeLinear"} <= set(behind)
                    (computed if is_rounded else unrounded).add(node.partition(":")[2])
        return frozenset(self._graph.code_tensors) - (computed - unrounded) - repeated_codes(self._graph)


def _from_codes(cut: OpenVinoBackend, given: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Outputs of a graph that was cut at its codes, from codes and images by name."""
    return cut.run({spec.name: given[codes_given_as(spec.name)] for spec in cut.inputs})


def openvino_comparisons(
    view: fx.GraphModule, graph: OnnxGraph, batches: Iterable[Tensor], adversarial: Tensor
) -> list[Comparison]:
    """Compare a graph for OpenVINO with the integers it was written from; all are hard.

    Codes may part from the integer reference where float32 cannot tell a value from a rounding tie: those are
    counted apart, and few. Where sums of codes run in one kernel with a convolution, their ties may fall
    otherwise than beside codes that are read: then logits are compared with those behind the codes of these
    kernels.

    Args:
        view: float32 deploy view.
        batches: real images, float32 (N, C, H, W); a few are enough.
        adversarial: images made of rounding ties, whose ties are not counted.

    Raises:
        BackendUnavailable: openvino is not installed. ModelError: it refuses the graph.
    """
    probe, wide = OpenVinoProbe(graph), copy.deepcopy(view).double()
    found = [
        _compare(view, wide, images, probe, count_ties=images is not adversarial)
        for images in (adversarial, *batches)
    ]
    codes, sums, kernels, shipped = (merge(parts) for parts in zip(*found, strict=True))
    return [
        tied_comparison(_CODES, codes, hard=True),
        exact_comparison(_SUMS, sums),
        exact_comparison(_KEPT, _kept(graph, probe.lost_quantizers())),
        *([tied_comparison(_KERNELS, kernels, hard=True)] if probe.summed else []),
        exact_comparison(_CHAINED if probe.summed else _SHIPPED, shipped),
    ]


def _compare(
    view: fx.GraphModule, wide: fx.GraphModule, images: Tensor, probe: OpenVinoProbe, *, count_ties: bool
) -> tuple[list[TensorComparison], ...]:
    """Of one batch: codes of the whole graph, sums of layers, codes of sums in one kernel, and logits."""
    seen = probe.observe(images.numpy())
    own = run_reference(view, images.numpy(), taught=seen.codes)
    codes = _compare_codes(wide, images, own, seen)
    sums = compare_sums(wide, images.double(), seen.codes, probe.sums(seen.codes))
    kernels = _compare_kernels(wide, images, own, seen, probe.sums_of_codes(seen.codes))
    expected = probe.logits_behind_sums(images.numpy(), seen.codes) if probe.summed else seen.logits
    shipped = [count_floats(LOGITS, expected, probe.logits(images.numpy()))]
    if not count_ties:
        codes, kernels = ([replace(t, ties=0, tie_values=0) for t in some] for some in (codes, kernels))
    return codes, sums, kernels, shipped


def _compare_codes(
    wide: fx.GraphModule, images: Tensor, own: Reference, seen: Observation
) -> list[TensorComparison]:
    """Codes of the integer reference and floats of the deploy view, each from the engine's codes before."""
    values = {LOGITS: seen.logits, **seen.values}
    return compare_evaluation(
        wide, images.double(), seen.codes, own.codes, seen.codes, values, rounding=OPENVINO
    )


def _compare_kernels(
    wide: fx.GraphModule, images: Tensor, own: Reference, seen: Observation, found: StoredCodes
) -> list[TensorComparison]:
    """Codes of sums that were computed from the engine's codes, as ``found`` and by the integer reference."""
    counted = [count(name, "integer", own.codes[name], codes) for name, codes in found.items()]
    if not any(tensor.mismatches for tensor in counted):
        return counted
    codes = {**seen.codes, **found}
    judged = compare_evaluation(wide, images.double(), seen.codes, own.codes, codes, rounding=OPENVINO)
    return [tensor for tensor in judged if tensor.name in found]


def _kept(graph: OnnxGraph, lost: frozenset[str]) -> list[TensorComparison]:
    return [
        TensorComparison(name, "integer", 1, int(name in lost), 0, 0, int(name in lost))
        for name in graph.code_tensors
    ]
