"""The comparisons of a graph for TensorRT: its numbers, its integers, its evaluation in floats.

No engine runs here. What is proved is that the file an engine is built from states the trained integers.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from torch import Tensor, fx

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat_export.graph.attention import Attention, with_attention
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.comparison import Comparison, exact_comparison, tied_comparison
from saq_qat_export.proof.half_structure import structural_differences
from saq_qat_export.proof.probe import TeacherForcedProbe
from saq_qat_export.proof.stated_numbers import StatedNumbers, compare_numbers
from saq_qat_export.proof.teacher import Taught, Teacher
from saq_qat_export.proof.tensors import (
    Producer,
    TensorComparison,
    compare_evaluation,
    count,
    count_floats,
    explain,
    merge,
    producers,
)
from saq_qat_export.reference.deploy_view import Reference, Stored, run_reference, tensor_name
from saq_qat_export.reference.integer_math import Codes, Float32
from saq_qat_export.reference.qdq_reading import QdqReading
from saq_qat_export.reference.qdq_reference import read_qdq

__all__ = ["TensorRtGraphs", "tensorrt_comparisons"]

_NUMBERS = "numbers of the TensorRT graph = deploy view"
_READ = "TensorRT graph read as integers = integer reference"
_FLOAT32 = "TensorRT graph in float32 = integer reference"
_FLOAT16 = "TensorRT graph in float16 = integer reference"
_STRUCTURE = "operations of the TensorRT graph in float16 = those in float32"

Kinds = dict[str, Producer]

# Trained and random networks differ in 0.2 to 0.8 % of their codes: each scale is off by up to 2^-11.
_FLOAT16_MISMATCHES = 0.02


@dataclass(frozen=True)
class TensorRtGraphs:
    """The graph for TensorRT in float32, and in float16 where that is what ships.

    Attributes:
        attention: what both compute products of two activations in.
    """

    float32: OnnxGraph
    float16: OnnxGraph | None = None
    attention: Attention = "float"


@dataclass(frozen=True)
class _Sample:
    """Images with the codes that ONNX Runtime's integer kernels computed, and the reference from those.

    taught: stored, zero points included. codes, reference: without zero points. values: float32 results of
    the reference's products, logits among them. All by tensor name.
    """

    images: Tensor
    taught: dict[str, Stored]
    codes: dict[str, Codes]
    reference: dict[str, Codes]
    values: dict[str, Float32]


def tensorrt_comparisons(
    view: fx.GraphModule,
    graph: OnnxGraph,
    tensorrt: TensorRtGraphs,
    batches: Iterable[Tensor],
    adversarial: Tensor,
    teacher: Teacher | None = None,
) -> list[Comparison]:
    """Compare a graph for TensorRT with the deploy view it came from, and with the integer reference.

    Args:
        view: float32 deploy view, with every product of codes that ONNX Runtime runs.
        graph: for ONNX Runtime, whose codes teach every tensor.
        batches: real images, float32 (N, C, H, W); a few are enough.
        adversarial: images made of rounding ties, whose ties are not counted; to float16, with other scales
            and ties, they mean nothing.
        teacher: of ``view`` and ``graph``, where others ask it too.
    """
    teacher = teacher or Teacher(view, graph)
    zero_points = {tensor_name(n): m.zero_point for n, m in view.named_modules() if isinstance(m, Quantize)}
    whole, view = view, with_attention(view, tensorrt.attention)
    batches_taught = (teacher.teach(images) for images in (adversarial, *batches))
    ties, *samples = (
        _sample(taught, zero_points, taught.reference if view is whole else _reference(view, taught))
        for taught in batches_taught
    )
    content = tensorrt.float32.content
    try:
        readings = [
            read_qdq(content, sample.images.numpy(), sample.codes, zero_points) for sample in (ties, *samples)
        ]
    except ArtifactError as error:
        return [Comparison(_NUMBERS, True, False, 0, 0, str(error))]
    kinds = producers(view)
    read = [
        _count_reading(view, kinds, sample, reading)
        for sample, reading in zip((ties, *samples), readings, strict=True)
    ]
    comparisons = [
        _number_comparison(compare_numbers(view, readings[0])),
        exact_comparison(_READ, merge(read)),
    ]
    comparisons.append(_float32_comparison(view, TeacherForcedProbe(tensorrt.float32), ties, samples))
    if tensorrt.float16 is not None:
        comparisons.append(_structure_comparison(tensorrt.float32, tensorrt.float16))
        comparisons.append(_float16_comparison(kinds, TeacherForcedProbe(tensorrt.float16), samples))
    return comparisons


def _reference(view: fx.GraphModule, taught: Taught) -> Reference:
    """Of another view than the teacher's."""
    return run_reference(view, taught.images.numpy(), taught.seen.codes)


def _sample(taught: Taught, zero_points: dict[str, int], reference: Reference) -> _Sample:
    codes, own = (
        {name: array.astype(np.int32) - zero_points[name] for name, array in stored.items()}
        for stored in (taught.seen.codes, reference.codes)
    )
    return _Sample(taught.images, taught.seen.codes, codes, own, reference.values)


def _count_reading(
    view: fx.GraphModule, kinds: Kinds, sample: _Sample, reading: QdqReading
) -> list[TensorComparison]:
    codes = _with_lacking(sample, {name: tensor.codes for name, tensor in reading.tensors.items()})
    floats, unknown = {LOGITS: reading.logits, **reading.values}, np.float32(np.nan)
    compared = _count_all(kinds, sample, codes) + [
        count_floats(name, own, floats.get(name, np.full(own.shape, unknown)))
        for name, own in sample.values.items()
    ]
    return explain(compared, view, sample.images, sample.taught, sample.reference, codes)


def _count_all(kinds: Kinds, sample: _Sample, found: dict[str, Codes]) -> list[TensorComparison]:
    """Every difference."""
    return [count(name, kinds[name], codes, found[name]) for name, codes in sample.reference.items()]


def _with_lacking(sample: _Sample, found: dict[str, Codes]) -> dict[str, Codes]:
    """A tensor that a graph lacks differs everywhere."""
    nowhere = np.iinfo(np.int32).max
    lacking = {name: np.full(codes.shape, nowhere, np.int32) for name, codes in sample.reference.items()}
    return lacking | found


def _number_comparison(numbers: list[StatedNumbers]) -> Comparison:
    compared, differing = sum(n.compared for n in numbers), sum(n.differing for n in numbers)
    wrong = (f"first at {n.name}: {n.differing} of {n.compared}" for n in numbers if n.differing)
    return Comparison(_NUMBERS, True, not differing, compared, differing, next(wrong, ""))


def _float32_comparison(
    view: fx.GraphModule, probe: TeacherForcedProbe, ties: _Sample, samples: list[_Sample]
) -> Comparison:
    wide = copy.deepcopy(view).double()

    def compare(sample: _Sample) -> list[TensorComparison]:
        found, values = probe.run(sample.images.numpy(), sample.codes)
        codes = _with_lacking(sample, found)
        return compare_evaluation(
            wide, sample.images.double(), sample.taught, sample.reference, codes, values
        )

    uncounted = [replace(tensor, ties=0, tie_values=0) for tensor in compare(ties)]
    return tied_comparison(_FLOAT32, merge([uncounted, *map(compare, samples)]), hard=True, in_floats=True)


def _structure_comparison(single: OnnxGraph, half: OnnxGraph) -> Comparison:
    """Hard, where codes of float16 can only be bounded."""
    found = list(structural_differences(single.content, half.content))
    compared = len(onnx.load_from_string(half.content).graph.node)
    return Comparison(
        _STRUCTURE, True, not found, compared, len(found), f"first at {found[0]}" if found else ""
    )


def _float16_comparison(kinds: Kinds, probe: TeacherForcedProbe, samples: list[_Sample]) -> Comparison:
    tensors = merge(
        _count_all(kinds, sample, probe.run(sample.images.numpy(), sample.codes)[0]) for sample in samples
    )
    compared, differing = sum(t.compared for t in tensors), sum(t.mismatches for t in tensors)
    largest = max((t.largest_step for t in tensors), default=0)
    passed = differing <= _FLOAT16_MISMATCHES * compared and largest <= 1
    detail = f"{differing} of {compared} codes differ, by at most {largest}"
    return Comparison(_FLOAT16, False, passed, compared, differing, detail, tuple(tensors))
