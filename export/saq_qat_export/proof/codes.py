"""The comparisons of codes: integer reference and deploy view with the engine, on images and rounding ties.

Hard ones decide whether a bundle may be written: the integer reference equals the engine in every code, and
the deploy view in float64 equals it wherever float32 can tell a value from a rounding tie.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, fx

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.recipe.schema import Cpu
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.comparison import Comparison, exact_comparison, tied_comparison
from saq_qat_export.proof.teacher import Taught, Teacher
from saq_qat_export.proof.tensors import (
    TensorComparison,
    compare_computed,
    compare_pairs,
    compare_view,
    merge,
)
from saq_qat_export.reference.deploy_view import Reference

__all__ = ["PAIR_COMPARISON", "code_comparisons", "pair_comparison", "tie_images"]

PAIR_COMPARISON = "saturating pairs of products = integer reference"
"""The comparison that emulates x86 CPUs without VNNI."""

_FLOAT32_MISMATCHES = 1e-5


def tie_images(view: fx.GraphModule, shape: tuple[int, int, int], count: int = 2) -> Tensor:
    """Float32 images (count, C, H, W) that are hard to round, in a fixed shuffle.

    Half-steps of the image grid, their float32 neighbours, both saturations and zeros.
    """
    scales = [m.scale for m in view.modules() if isinstance(m, Quantize)]
    scale = scales[0].double() if scales else torch.tensor(1 / 64, dtype=torch.float64)
    ties = ((torch.arange(-130, 130, dtype=torch.float64) + 0.5) * scale).float()
    infinity = torch.full_like(ties, torch.inf)
    neighbours = (torch.nextafter(ties, infinity), torch.nextafter(ties, -infinity))
    values = torch.cat([ties, *neighbours, torch.tensor([0.0, -0.0, 1e4, -1e4])])
    generator = torch.Generator().manual_seed(0)
    return values[torch.randint(len(values), (count, *shape), generator=generator)]


def code_comparisons(
    view: fx.GraphModule,
    graph: OnnxGraph,
    batches: Iterable[Tensor],
    adversarial: Tensor,
    *,
    in_float32: bool = True,
    teacher: Teacher | None = None,
) -> list[Comparison]:
    """Compare codes on float32 images: integer reference, then the deploy view in float64 and in float32.

    Args:
        batches: real images (N, C, H, W).
        adversarial: images made of rounding ties; the hard comparisons hold for them too, but their ties are
            not counted.
        in_float32: the last too, which decides nothing.
        teacher: of this view and graph, where others ask it too.
    """
    teacher, wide = teacher or Teacher(view, graph), copy.deepcopy(view).double()
    ties = teacher.teach(adversarial)
    reference = [_compare_reference(view, ties)]
    double = [[replace(t, ties=0, tie_values=0) for t in compare_view(wide, adversarial.double(), ties.seen)]]
    single = []
    for images in batches:
        taught = teacher.teach(images)
        seen = taught.seen
        reference.append(_compare_reference(view, taught))
        double.append(compare_view(wide, images.double(), seen))
        if in_float32:
            single.append(compare_view(view, images, seen))
    comparisons = [
        exact_comparison("integer reference = ONNX Runtime", merge(reference)),
        tied_comparison("deploy view in float64 = ONNX Runtime", merge(double), hard=True),
    ]
    if in_float32:
        comparisons.append(
            tied_comparison(
                "deploy view in float32 = ONNX Runtime",
                merge(single),
                hard=False,
                mismatches=_FLOAT32_MISMATCHES,
                in_floats=True,
            )
        )
    return comparisons


def _compare_reference(view: fx.GraphModule, taught: Taught) -> list[TensorComparison]:
    return compare_computed(view, taught.images.numpy(), taught.reference, taught.seen)


def pair_comparison(
    view: fx.GraphModule, batches: Iterable[Tensor], *, cpu: Cpu, teacher: Teacher | None = None
) -> Comparison:
    """The codes of CPUs that add pairs of products in saturating int16, emulated, against the exact ones.

    Hard, and not one may differ; for a recipe for CPUs with VNNI alone, what differs is what plain sessions
    elsewhere get wrong, and is only told.

    Args:
        batches: float32 images (N, C, H, W).
        teacher: of this view, where others ask it too.
    """
    tensors = merge(compare_pairs(view, images.numpy(), _exact(teacher, images)) for images in batches)
    compared, differing = sum(t.compared for t in tensors), sum(t.mismatches for t in tensors)
    first = [f"first at {t.name}: {t.mismatches} of {t.compared}" for t in tensors if t.mismatches][:1]
    where = "on x86 CPUs without VNNI, plain sessions give other codes" if differing else ""
    detail = "; ".join([*first, *([where] if where else [])])
    is_hard = cpu == "any"
    passed = differing == 0 or not is_hard
    return Comparison(PAIR_COMPARISON, is_hard, passed, compared, differing, detail, tuple(tensors))


def _exact(teacher: Teacher | None, images: Tensor) -> Reference | None:
    """The integer reference from its own codes, where the teacher's is that."""
    taught = None if teacher is None else teacher.teach(images)
    return taught.reference if taught is not None and taught.is_own else None
