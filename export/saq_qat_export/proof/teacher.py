"""What ONNX Runtime gives for images, and the integer reference from its codes: once for all comparisons."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, fx

from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.probe import Observation, probe_of
from saq_qat_export.reference.deploy_view import Reference, run_reference

__all__ = ["Taught", "Teacher"]


@dataclass(frozen=True)
class Taught:
    """One batch.

    Attributes:
        images: float32 (N, C, H, W).
        seen: what the engine computed from them.
        reference: each tensor computed from the engine's codes before it.
    """

    images: Tensor
    seen: Observation
    reference: Reference

    @property
    def is_own(self) -> bool:
        """Whether the reference gives the engine's codes: those it would compute without them."""
        own, seen = self.reference.codes, self.seen.codes
        return own.keys() == seen.keys() and all(
            np.array_equal(own[name], codes.reshape(own[name].shape)) for name, codes in seen.items()
        )


class Teacher:
    """Teaches the codes of a graph for ONNX Runtime; view and images must stay as they are.

    Args:
        view: float32 deploy view.
        graph: for ONNX Runtime.
    """

    def __init__(self, view: fx.GraphModule, graph: OnnxGraph) -> None:
        self._view, self._graph = view, graph
        self._taught: list[Taught] = []

    def teach(self, images: Tensor) -> Taught:
        """Computed for the first who asks with this tensor, and kept for the next."""
        for known in self._taught:
            if known.images is images:
                return known
        seen = probe_of(self._graph).observe(images.numpy())
        taught = Taught(images, seen, run_reference(self._view, images.numpy(), seen.codes))
        self._taught.append(taught)
        return taught
