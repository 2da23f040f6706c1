"""Bits of the first and the last layer, wherever they stand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.network import plan_network
from saq_qat.recipe.schema import ActivationQuantizer, Quant, WeightQuantizer

Before = Callable[[Tensor], Tensor]
Behind = Callable[[Tensor, Tensor], Tensor]
QUANT = Quant(weight=WeightQuantizer(kind="saq", bits=4), activation=ActivationQuantizer(kind="saq", bits=4))
SIDE = 8


class Framed(nn.Module):
    """A stem, a layer between, and one or two heads, with operations before and behind them."""

    def __init__(self, before: Before, behind: Behind) -> None:
        super().__init__()
        self.before, self.behind = before, behind
        self.stem, self.between = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head, self.distilled = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.between(F.relu(self.stem(self.before(x))))).mean((2, 3))
        return self.behind(self.head(x), self.distilled(x))


BEFORE: dict[str, Before] = {
    "plain": lambda x: x,
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "zeros": lambda x: F.pad(x, (0, 1, 0, 1)),
    "normalised": lambda x: (x - 0.45) / 0.225,
    "pooled": lambda x: F.avg_pool2d(F.interpolate(x, scale_factor=2), 2),
}
BEHIND: dict[str, Behind] = {
    "two heads": lambda a, b: (a + b) / 2,
    "scaled": lambda a, b: (a + b) * 10,
    "log_softmax": lambda a, b: F.log_softmax(torch.stack([a, b]).mean(0), -1),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("behind", BEHIND)
def test_edges_are_found_through_whatever_stands_before_and_behind(before: str, behind: str) -> None:
    network = Framed(BEFORE[before], BEHIND[behind])
    _, plan = plan_network(network, QUANT, ("onnxruntime",), image=(3, SIDE, SIDE))
    bits = {layer.name: layer.bits for layer in plan.layers}
    assert bits == {"stem": 8, "between": 4, "head": 8, "distilled": 8}


def test_a_finding_names_edges_that_do_not_touch_image_or_output() -> None:
    network = Framed(BEFORE["normalised"], BEHIND["two heads"])
    _, plan = plan_network(network, QUANT, ("onnxruntime",), image=(3, SIDE, SIDE))
    (finding,) = [found for found in plan.findings if found.rule == "NET003"]
    assert finding.level == "note"
    assert "(stem)" in finding.message and "(head, distilled)" in finding.message


def test_edges_that_touch_image_and_output_need_no_finding() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    _, plan = plan_network(network, QUANT, ("onnxruntime",), image=(3, SIDE, SIDE))
    assert plan.findings == ()
