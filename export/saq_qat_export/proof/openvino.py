"""The comparisons of a graph for OpenVINO: codes, sums and logits read back from its engine on this CPU.

OpenVINO moves and fuses quantizers, so that nothing is taken on trust: codes are read back from the whole
graph, the logits of the graph as it ships are held against those beside the codes, and every layer's sums are
compared on the same codes.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, fx

from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, OnnxGraph
from saq_qat_export.proof.comparison import Comparison, exact_comparison, tied_comparison
from saq_qat_export.proof.layer_sums import compare_sums, cut_at_codes, layer_results
from saq_qat_export.proof.probe import Observation, with_code_outputs
from saq_qat_export.proof.tensors import TensorComparison, compare_evaluation, count_floats, merge
from saq_qat_export.proof.ties import OPENVINO
from saq_qat_export.reference.deploy_view import StoredCodes, run_reference
from saq_qat_export.reference.integer_math import Float32
from saq_qat_runtime.openvino import OpenVinoBackend

__all__ = ["OpenVinoProbe", "openvino_comparisons"]

_CODES = "integer reference = OpenVINO"
_SUMS = "deploy view in float64 = OpenVINO, sums layer by layer"
_SHIPPED = "OpenVINO's logits as it ships = beside its codes"


class OpenVinoProbe:
    """A graph on OpenVINO three times: as it ships, with its codes as further outputs, and cut at its codes.

    Raises:
        BackendUnavailable: openvino is not installed. ModelError: it refuses the graph.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._layers = layer_results(graph)
        self._shipped = OpenVinoBackend(graph.content)
        self._watched = OpenVinoBackend(with_code_outputs(graph))
        self._cut = OpenVinoBackend(cut_at_codes(graph, self._layers))

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
        found = self._cut.run({spec.name: codes[spec.name] for spec in self._cut.inputs})
        return {name: found[name] for name in self._layers}


def openvino_comparisons(
    view: fx.GraphModule, graph: OnnxGraph, batches: Iterable[Tensor], adversarial: Tensor
) -> list[Comparison]:
    """Compare a graph for OpenVINO with the integers it was written from; all are hard.

    Codes may part from the integer reference where float32 cannot tell a value from a rounding tie: those are
    counted apart, and few.

    Args:
        view: float32 deploy view.
        batches: real images, float32 (N, C, H, W); a few are enough.
        adversarial: images made of rounding ties, whose ties are not counted.

    Raises:
        BackendUnavailable: openvino is not installed. ModelError: it refuses the graph.
    """
    probe, wide = OpenVinoProbe(graph), copy.deepcopy(view).double()
    codes: list[list[TensorComparison]] = []
    sums: list[list[TensorComparison]] = []
    shipped: list[list[TensorComparison]] = []
    for images in (adversarial, *batches):
        seen = probe.observe(images.numpy())
        compared = _compare_codes(view, wide, images, seen)
        if images is adversarial:
            compared = [replace(tensor, ties=0, tie_values=0) for tensor in compared]
        codes.append(compared)
        sums.append(compare_sums(wide, images.double(), seen.codes, probe.sums(seen.codes)))
        shipped.append([count_floats(LOGITS, seen.logits, probe.logits(images.numpy()))])
    return [
        tied_comparison(_CODES, merge(codes), hard=True),
        exact_comparison(_SUMS, merge(sums)),
        exact_comparison(_SHIPPED, merge(shipped)),
    ]


def _compare_codes(
    view: fx.GraphModule, wide: fx.GraphModule, images: Tensor, seen: Observation
) -> list[TensorComparison]:
    """Codes of the integer reference and floats of the deploy view, each from the engine's codes before."""
    own = run_reference(view, images.numpy(), taught=seen.codes)
    values = {LOGITS: seen.logits, **seen.values}
    return compare_evaluation(
        wide, images.double(), seen.codes, own.codes, seen.codes, values, rounding=OPENVINO
    )
