"""The comparisons of predictions: fake-quant network, deploy view and engine on the same labelled images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from saq_qat.recipe.schema import Thresholds
from saq_qat_export.proof.comparison import Comparison

__all__ = [
    "FAKE_QUANT_COMPARISON",
    "Agreement",
    "Classifier",
    "Flip",
    "agree",
    "agreement_comparisons",
    "engine_comparison",
]

Classifier = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Float32 images (N, C, H, W) to logits (N, classes)."""

FAKE_QUANT_COMPARISON = "top-1 of fake-quant network = ONNX Runtime"
"""The comparison that counts answers which deployment changes."""

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
        fake_quant: what the fake-quant network answers, image by image; verify.json leaves it out.
    """

    images: int
    fake_quant_top1: float
    view_top1: float
    engine_top1: float
    view_flips: int
    flips: int
    listed: tuple[Flip, ...]
    fake_quant: tuple[int, ...] = ()


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
    given: list[int] = []
    for images, labels in batches:
        answers = [network(images).numpy(), view(images).numpy(), engine(images.numpy())]
        fake, own, deployed = (answer.argmax(axis=1) for answer in answers)
        truth = labels.numpy()
        right += [int((guess == truth).sum()) for guess in (fake, own, deployed)]
        view_flips += int((own != deployed).sum())
        changed = np.flatnonzero(fake != deployed)
        given += fake.tolist()
        flips += len(changed)
        listed += [Flip(seen + int(i), int(truth[i]), int(fake[i]), int(deployed[i])) for i in changed]
        seen += len(truth)
    top1 = [100.0 * int(count) / seen for count in right]
    shown = tuple(listed[:_FLIPS_LISTED])
    return Agreement(seen, top1[0], top1[1], top1[2], view_flips, flips, shown, tuple(given))


def agreement_comparisons(agreement: Agreement, thresholds: Thresholds) -> list[Comparison]:
    """The engine against the deploy view (soft), and against the fake-quant network (hard).

    Both are bounded by the recipe: codes that float32 cannot tell from a tie differ once or twice an image,
    later layers amplify that, and how many answers it turns depends on the network's margins.
    """
    drop = agreement.fake_quant_top1 - agreement.engine_top1
    rate = agreement.flips / agreement.images
    return [
        Comparison(
            "top-1 of deploy view = ONNX Runtime",
            False,
            agreement.view_flips <= thresholds.max_flip_rate * agreement.images,
            agreement.images,
            agreement.view_flips,
            f"{agreement.view_top1:.2f} % and {agreement.engine_top1:.2f} %",
        ),
        Comparison(
            FAKE_QUANT_COMPARISON,
            True,
            drop <= thresholds.max_top1_drop and rate <= thresholds.max_flip_rate,
            agreement.images,
            agreement.flips,
            f"{agreement.fake_quant_top1:.2f} % and {agreement.engine_top1:.2f} %; "
            f"{100 * rate:.1f} % of answers differ, {100 * thresholds.max_flip_rate:g} % and a loss of "
            f"{thresholds.max_top1_drop:g} points are allowed",
        ),
    ]


def engine_comparison(
    name: str,
    engine: Classifier,
    reference: Classifier,
    batches: Iterable[tuple[Tensor, Tensor]],
    thresholds: Thresholds,
) -> Comparison:
    """Another engine against ONNX Runtime, within the recipe's thresholds: its float operations, and all of a
    GPU, round ties as they please.

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
    return Comparison(
        f"top-1 of {name} = ONNX Runtime",
        True,
        their_top1 - own_top1 <= thresholds.max_top1_drop and flips <= thresholds.max_flip_rate * images,
        images,
        flips,
        f"{own_top1:.2f} % and {their_top1:.2f} %",
    )
