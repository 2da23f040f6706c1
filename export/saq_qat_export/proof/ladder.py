"""The ladder of proof: fake-quant network, deploy view, integer reference and engine, compared pair by pair.

Hard rungs decide whether a bundle may be written: the integer reference equals the engine in every code, the
deploy view in float64 equals it wherever float32 can tell a value from a rounding tie, and deployment keeps
to the recipe's thresholds. Soft rungs bound what else may differ.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.recipe.schema import Cpu, Thresholds
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.comparison import compare_pairs, compare_reference, compare_view, merge
from saq_qat_export.proof.probe import Probe
from saq_qat_export.proof.rungs import Rung, exact_rung, tied_rung

__all__ = [
    "FAKE_QUANT_RUNG",
    "PAIR_RUNG",
    "Agreement",
    "Classifier",
    "Flip",
    "Rung",
    "agree",
    "agreement_rungs",
    "code_rungs",
    "engine_rung",
    "pair_rung",
    "tie_images",
]

Classifier = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Float32 images (N, C, H, W) to logits (N, classes)."""


FAKE_QUANT_RUNG = "top-1 of fake-quant network = ONNX Runtime"
"""The rung that counts answers which deployment changes."""

PAIR_RUNG = "saturating pairs of products = integer reference"
"""The rung that emulates x86 CPUs without VNNI."""

_FLOAT32_MISMATCHES = 1e-5
_FLIPS_LISTED = 50


@dataclass(frozen=True)
class Flip:
    """An image that deployment classifies otherwise."""

    index: int
    label: int
    fake_quant: int
    deployed: int


@dataclass(frozen=True)
class Agreement:
    """Top-1 (percent) of three forms of one network on the same images, and where they part.

    Attributes:
        view_flips: images on which deploy view and engine disagree.
        flips: images on which fake-quant network and engine disagree; ``listed`` holds the first of them.
    """

    images: int
    fake_quant_top1: float
    view_top1: float
    engine_top1: float
    view_flips: int
    flips: int
    listed: tuple[Flip, ...]


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


def code_rungs(
    view: fx.GraphModule, graph: OnnxGraph, batches: Iterable[Tensor], adversarial: Tensor
) -> list[Rung]:
    """Compare codes on float32 images: integer reference, then the deploy view in float64 and in float32.

    Args:
        batches: real images (N, C, H, W).
        adversarial: images made of rounding ties; the hard comparisons hold for them too, but their ties are
            not counted.
    """
    probe = Probe(graph)
    wide = copy.deepcopy(view).double()
    seen = probe.observe(adversarial.numpy())
    reference = [compare_reference(view, adversarial.numpy(), seen)]
    double = [[replace(t, ties=0, tie_values=0) for t in compare_view(wide, adversarial.double(), seen)]]
    single = []
    for images in batches:
        seen = probe.observe(images.numpy())
        reference.append(compare_reference(view, images.numpy(), seen))
        double.append(compare_view(wide, images.double(), seen))
        single.append(compare_view(view, images, seen))
    return [
        exact_rung("integer reference = ONNX Runtime", merge(reference)),
        tied_rung("deploy view in float64 = ONNX Runtime", merge(double), hard=True),
        tied_rung(
            "deploy view in float32 = ONNX Runtime",
            merge(single),
            hard=False,
            mismatches=_FLOAT32_MISMATCHES,
            in_floats=True,
        ),
    ]


def pair_rung(view: fx.GraphModule, batches: Iterable[Tensor], *, cpu: Cpu) -> Rung:
    """The codes of CPUs that add pairs of products in saturating int16, emulated, against the exact ones.

    Hard, and not one may differ; for a recipe for CPUs with VNNI alone, what differs is what plain sessions
    elsewhere get wrong, and is only told.

    Args:
        batches: float32 images (N, C, H, W).
    """
    tensors = merge(compare_pairs(view, images.numpy()) for images in batches)
    compared, differing = sum(t.compared for t in tensors), sum(t.mismatches for t in tensors)
    first = [f"first at {t.name}: {t.mismatches} of {t.compared}" for t in tensors if t.mismatches][:1]
    where = "on x86 CPUs without VNNI, plain sessions give other codes" if differing else ""
    detail = "; ".join([*first, *([where] if where else [])])
    is_hard = cpu == "any"
    passed = differing == 0 or not is_hard
    return Rung(PAIR_RUNG, is_hard, passed, compared, differing, detail, tuple(tensors))


@torch.no_grad()
def agree(
    network: nn.Module,
    view: fx.GraphModule,
    engine: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> Agreement:
    """Classify labelled batches with the fake-quant network, the deploy view and the engine."""
    network.eval()
    seen, right, view_flips, flips = 0, np.zeros(3, dtype=np.int64), 0, 0
    listed: list[Flip] = []
    for images, labels in batches:
        answers = [network(images).numpy(), view(images).numpy(), engine(images.numpy())]
        fake, own, deployed = (answer.argmax(axis=1) for answer in answers)
        truth = labels.numpy()
        right += [int((guess == truth).sum()) for guess in (fake, own, deployed)]
        view_flips += int((own != deployed).sum())
        changed = np.flatnonzero(fake != deployed)
        flips += len(changed)
        listed += [Flip(seen + int(i), int(truth[i]), int(fake[i]), int(deployed[i])) for i in changed]
        seen += len(truth)
    top1 = [100.0 * int(count) / seen for count in right]
    return Agreement(seen, top1[0], top1[1], top1[2], view_flips, flips, tuple(listed[:_FLIPS_LISTED]))


def agreement_rungs(agreement: Agreement, thresholds: Thresholds) -> list[Rung]:
    """The rungs on predictions: engine against deploy view (soft), and against the fake-quant network (hard).

    Both are bounded by the recipe: codes that float32 cannot tell from a tie differ once or twice an image,
    later layers amplify that, and how many answers it turns depends on the network's margins.
    """
    drop = agreement.fake_quant_top1 - agreement.engine_top1
    rate = agreement.flips / agreement.images
    return [
        Rung(
            "top-1 of deploy view = ONNX Runtime",
            False,
            agreement.view_flips <= thresholds.max_flip_rate * agreement.images,
            agreement.images,
            agreement.view_flips,
            f"{agreement.view_top1:.2f} % and {agreement.engine_top1:.2f} %",
        ),
        Rung(
            FAKE_QUANT_RUNG,
            True,
            drop <= thresholds.max_top1_drop and rate <= thresholds.max_flip_rate,
            agreement.images,
            agreement.flips,
            f"{agreement.fake_quant_top1:.2f} % and {agreement.engine_top1:.2f} %; "
            f"{100 * rate:.1f} % of answers differ, {100 * thresholds.max_flip_rate:g} % and a loss of "
            f"{thresholds.max_top1_drop:g} points are allowed",
        ),
    ]


def engine_rung(
    name: str,
    engine: Classifier,
    reference: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    thresholds: Thresholds,
) -> Rung:
    """A TensorRT engine on its GPU against ONNX Runtime, within the recipe's thresholds; GPUs round ties as
    they please.

    Args:
        name: of the engine.
        batches: labelled images (N, C, H, W).
    """
    images, right, flips = 0, np.zeros(2, np.int64), 0
    for batch, labels in batches:
        own, theirs = (classify(batch.numpy()).argmax(axis=1) for classify in (engine, reference))
        right += [int((answer == labels.numpy()).sum()) for answer in (own, theirs)]
        flips += int((own != theirs).sum())
        images += len(labels)
    own_top1, their_top1 = (100.0 * int(count) / images for count in right)
    return Rung(
        f"top-1 of {name} = ONNX Runtime",
        True,
        their_top1 - own_top1 <= thresholds.max_top1_drop and flips <= thresholds.max_flip_rate * images,
        images,
        flips,
        f"{own_top1:.2f} % and {their_top1:.2f} %",
    )
