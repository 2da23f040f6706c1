"""Proves one exported network on a recipe's images: the whole ladder, and how much of it runs as integers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx, nn

from saq_qat.data.batches import val_batches
from saq_qat.data.open import ImageData
from saq_qat.data.sample import sample_validation
from saq_qat.quant.plan import Plan
from saq_qat.recipe.schema import Thresholds
from saq_qat_export.ladder import Agreement, Rung, agree, agreement_rungs, code_rungs, tie_images
from saq_qat_export.onnx_graph import INPUT, OUTPUT, OnnxGraph
from saq_qat_export.tensorrt_proof import TensorRtGraphs, tensorrt_rungs
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.ort import OnnxRuntimeBackend

__all__ = ["Proof", "ProofSize", "prove"]

_CODE_BATCH = 4
_ADVERSARIAL_IMAGES = 2


@dataclass(frozen=True)
class ProofSize:
    """How many validation images to compare codes on, and how many to classify; None takes all."""

    code_images: int = 8
    top1_images: int | None = 1000


@dataclass(frozen=True)
class Proof:
    """Outcome of the ladder. ``passed`` speaks of the hard rungs, ``within_thresholds`` of the soft ones."""

    rungs: tuple[Rung, ...]
    agreement: Agreement
    kernels: IntegerCount

    @property
    def passed(self) -> bool:
        return all(rung.passed for rung in self.rungs if rung.hard)

    @property
    def within_thresholds(self) -> bool:
        return all(rung.passed for rung in self.rungs if not rung.hard)


def prove(
    network: nn.Module,
    view: fx.GraphModule,
    plan: Plan,
    graph: OnnxGraph,
    images: ImageData,
    thresholds: Thresholds,
    size: ProofSize,
    on_step: Callable[[str], None] = lambda _: None,
    tensorrt: TensorRtGraphs | None = None,
) -> Proof:
    """Climb the ladder with ONNX Runtime as the engine.

    Args:
        tensorrt: the graph for TensorRT, to be compared too.
        on_step: told in words what is being compared.
    """
    shape = (images.preprocessing.channels, images.preprocessing.image_size, images.preprocessing.image_size)
    on_step(f"codes of {size.code_images} images and {_ADVERSARIAL_IMAGES} made of rounding ties")
    code_batches = [batch for batch, _ in _batches(images, size.code_images, _CODE_BATCH)]
    adversarial = tie_images(view, shape, _ADVERSARIAL_IMAGES)
    rungs = code_rungs(view, graph, code_batches, adversarial)
    if tensorrt is not None:
        on_step("the graph for TensorRT, read as integers and evaluated in floats")
        rungs += tensorrt_rungs(view, graph, tensorrt, code_batches, adversarial)
    backend = OnnxRuntimeBackend(graph.content)

    def engine(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return backend.run({INPUT: batch})[OUTPUT]

    on_step("predictions of fake-quant network, deploy view and engine")
    agreement = agree(network, view, engine, _batches(images, size.top1_images, 32))
    kernels = backend.integer_count()
    rungs += [*agreement_rungs(agreement, thresholds), _kernel_rung(plan, kernels)]
    return Proof(tuple(rungs), agreement, kernels)


def _batches(images: ImageData, limit: int | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return val_batches(sample_validation(images, limit), batch_size=size)


def _kernel_rung(plan: Plan, kernels: IntegerCount) -> Rung:
    planned = sum(layer.integer for layer in plan.layers)
    return Rung(
        "convolutions and products on integer kernels",
        False,
        kernels.integer >= planned,
        len(plan.layers),
        max(planned - kernels.integer, 0),
        f"{kernels.integer}/{kernels.total} in the optimized graph, {planned} planned",
    )
