"""Proves one exported network on a recipe's images: the whole proof, and how much of it runs as integers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from saq_qat.data.batches import val_batches
from saq_qat.data.open import ImageData
from saq_qat.data.sample import sample_validation
from saq_qat.errors import GateError, RecipeError
from saq_qat.quant.plan.plan import Plan
from saq_qat.quant.plan.targets import TARGETS
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT
from saq_qat_export.proof.codes import code_comparisons, pair_comparison, tie_images
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.constant_channels import constant_comparison
from saq_qat_export.proof.function import function_comparison
from saq_qat_export.proof.lowered import Lowered
from saq_qat_export.proof.numbers.prove import compare_numbers_of
from saq_qat_export.proof.openvino import openvino_comparisons
from saq_qat_export.proof.predictions import (
    Agreement,
    Classifier,
    agree,
    agreement_comparisons,
    engine_comparison,
)
from saq_qat_export.proof.steps import OnImages, OnStep, Steps
from saq_qat_export.proof.teacher import Teacher
from saq_qat_export.proof.tensorrt import tensorrt_comparisons
from saq_qat_runtime.backend import Backend
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.openvino import OpenVinoBackend

__all__ = ["KERNEL_COMPARISON", "Proof", "ProofSize", "prove", "prove_engine", "prove_integers"]

KERNEL_COMPARISON = "convolutions and products on integer kernels"
"""The comparison that counts them."""

_CODE_BATCH = 4
_TOP1_BATCH = 32
_ADVERSARIAL_IMAGES = 2


@dataclass(frozen=True)
class ProofSize:
    """How many validation images to compare codes on, and how many to classify; None takes all.

    Raises:
        RecipeError: one of them is no whole number of at least 1.
    """

    code_images: int = 8
    top1_images: int | None = 1000

    def __post_init__(self) -> None:
        wrong = [] if _is_count(self.code_images) else [f"code_images={self.code_images!r}"]
        if self.top1_images is not None and not _is_count(self.top1_images):
            wrong.append(f"top1_images={self.top1_images!r}")
        if wrong:
            raise RecipeError(
                "ProofSize: numbers of images must be whole and at least 1, or top1_images=None for all; got "
                f"{', '.join(wrong)}."
            )


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


@dataclass(frozen=True)
class Proof:
    """Outcome of the proof. ``passed`` speaks of the hard comparisons, the recipe's thresholds among them.

    Attributes:
        kernels: products on integer kernels, in the graph of the first of ONNX Runtime and OpenVINO that is a
            target; None where none is.
    """

    comparisons: tuple[Comparison, ...]
    agreement: Agreement
    kernels: IntegerCount | None

    @property
    def passed(self) -> bool:
        return all(comparison.passed for comparison in self.comparisons if comparison.hard)


def prove(lowered: Lowered, size: ProofSize, on_step: OnStep = lambda _: None) -> Proof:
    """Run the proof with ONNX Runtime as the engine, on a run's own images and thresholds.

    Args:
        on_step: told in words what is being compared, the how-manieth comparison that is of how many, and
            how long the images still take.
    """
    steps = Steps(on_step, _steps_of(lowered))
    view, graph, images = lowered.view, lowered.graph, lowered.restored.images
    comparisons = prove_integers(lowered, size.code_images, steps)
    backend = OnnxRuntimeBackend(graph.content, exact_pairs=bool(graph.over_pair_bound))
    steps("predictions of fake-quant network, deploy view and engine")
    agreement = agree(
        lowered.network, view, _classifier(backend), _counted(images, size.top1_images, steps.images)
    )
    comparisons += agreement_comparisons(agreement, lowered.restored.recipe.deploy.thresholds)
    counts = {}
    if "onnxruntime" in lowered.targets:
        counts["onnxruntime"] = backend.integer_count()
    if lowered.openvino is not None:
        engine = OpenVinoBackend(lowered.openvino.content)
        steps("predictions of OpenVINO")
        comparisons.append(prove_engine(lowered, "OpenVINO", _classifier(engine), size, steps.images))
        counts["openvino"] = engine.integer_count()
    comparisons += [_kernel_comparison(lowered.plan, target, count) for target, count in counts.items()]
    return Proof(tuple(comparisons), agreement, next(iter(counts.values()), None))


def prove_integers(
    lowered: Lowered,
    code_images: int,
    on_step: OnStep = lambda _: None,
    *,
    adversarial_images: int = _ADVERSARIAL_IMAGES,
    brief: bool = False,
) -> list[Comparison]:
    """All of the proof that asks for no accuracy: numbers, function and codes.

    Args:
        code_images: validation images whose codes are compared.
        adversarial_images: as many made of rounding ties.
        brief: leave out what takes time and refuses nothing, which is sums of saturating pairs where every
            product keeps their bound (rule ORT005), and the deploy view in float32.
    """
    view, graph, images = lowered.view, lowered.graph, lowered.restored.images
    side = images.preprocessing.image_size
    on_step(f"codes of {code_images} images and {adversarial_images} made of rounding ties")
    code_batches = [batch for batch, _ in _batches(images, code_images, _CODE_BATCH)]
    adversarial = tie_images(view, (images.preprocessing.channels, side, side), adversarial_images)
    teacher = Teacher(view, graph)
    comparisons = code_comparisons(
        view, graph, code_batches, adversarial, in_float32=not brief, teacher=teacher
    )
    if "onnxruntime" in lowered.targets and not (brief and not graph.over_pair_bound):
        on_step("codes of CPUs that add products in saturating pairs")
        cpu = lowered.restored.recipe.deploy.onnxruntime.cpu
        batches = [*code_batches, adversarial]
        comparisons.append(pair_comparison(view, batches, cpu=cpu, teacher=teacher))
    on_step("what every layer of the trained network computes, beside its integers")
    comparisons.append(function_comparison(lowered.network, view, code_batches))
    thresholds = lowered.restored.recipe.deploy.thresholds
    comparisons.append(constant_comparison(view, thresholds.max_constant_channels))
    if lowered.tensorrt is not None:
        on_step("the graph for TensorRT, read as integers and evaluated in floats")
        comparisons += tensorrt_comparisons(view, graph, lowered.tensorrt, code_batches, adversarial, teacher)
    if lowered.openvino is not None:
        on_step("codes and sums of OpenVINO, read back from its engine")
        comparisons += openvino_comparisons(view, lowered.openvino, code_batches, adversarial)
    on_step("every number of the graphs that ship, beside the checkpoint's")
    comparisons += compare_numbers_of(lowered)
    return comparisons


def prove_engine(
    lowered: Lowered,
    name: str,
    engine: Classifier,
    size: ProofSize,
    on_images: OnImages = lambda _done, _total: None,
) -> Comparison:
    """Predictions of another engine beside those of ONNX Runtime: of OpenVINO, or of TensorRT on its GPU.

    Args:
        name: of the engine.
    """
    graph = lowered.graph
    backend = OnnxRuntimeBackend(graph.content, exact_pairs=bool(graph.over_pair_bound))
    reference = _classifier(backend)
    batches = _counted(lowered.restored.images, size.top1_images, on_images)
    thresholds = lowered.restored.recipe.deploy.thresholds
    return engine_comparison(name, engine, reference, batches, thresholds)


def _classifier(backend: Backend) -> Classifier:
    def classify(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            return backend.run({INPUT: images})[OUTPUT]
        except SessionError as error:
            raise GateError(
                f"The exported graph refuses images of the recipe, so nothing is proved: {error}"
            ) from error

    return classify


def _batches(images: ImageData, limit: int | None, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return val_batches(sample_validation(images, limit), batch_size=size)


def _counted(images: ImageData, limit: int | None, on_images: OnImages) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches to classify, each told of when the next is asked for."""
    total = len(images.val) if limit is None else min(limit, len(images.val))
    done = 0
    for batch, labels in _batches(images, limit, _TOP1_BATCH):
        yield batch, labels
        done += len(labels)
        on_images(done, total)


def _steps_of(lowered: Lowered) -> int:
    """How many comparisons ``prove`` tells of."""
    with_openvino = 2 if lowered.openvino is not None else 0
    return 4 + ("onnxruntime" in lowered.targets) + (lowered.tensorrt is not None) + with_openvino


def _kernel_comparison(plan: Plan, target: str, kernels: IntegerCount) -> Comparison:
    products = len(plan.products) if TARGETS[target].products else 0
    planned = sum(layer.integer_on(target) for layer in plan.layers) + products
    return Comparison(
        KERNEL_COMPARISON if target == "onnxruntime" else f"{KERNEL_COMPARISON} of {target}",
        False,
        kernels.integer >= planned,
        len(plan.layers) + len(plan.products),
        max(planned - kernels.integer, 0),
        f"{kernels.integer}/{kernels.total} in the optimized graph, {planned} planned",
    )
