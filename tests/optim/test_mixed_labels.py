"""Labels that are distributions, as mixing makes them, through every step."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.distillation import Distillation
from saq_qat.optim.passes import Objective
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLinear
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import EfficientTraining, Plain, Sam, Saq, Sgd

METHODS: dict[str, Plain | Sam | Saq] = {
    "plain": Plain(kind="plain"),
    "sam": Sam(kind="sam", rho=0.05),
    "saq": Saq(kind="saq", rho=0.3),
    "efficient": Saq(kind="saq", rho=0.3, efficient=EfficientTraining(tau=2)),
}
IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double()
FIRST, SECOND = torch.arange(8) % 4, torch.arange(8).roll(1) % 4
SMOOTHING = 0.1


def make_network() -> nn.Module:
    torch.manual_seed(0)
    weights = [Quantizer(weight_grid("saq", 3), bits=3) for _ in range(2)]
    return nn.Sequential(
        QuantConv2d(nn.Conv2d(3, 5, 3), weights[0], normalize=True),
        nn.ReLU(),
        Quantizer(activation_grid("saq", 4, signed=False), bits=4),
        nn.Flatten(),
        QuantLinear(nn.Linear(80, 4), weights[1]),
    ).double()


def trained(method: str, labels: Tensor, size: int | None = None, *, taught: bool = False) -> nn.Module:
    network = make_network()
    optimizer = build_optimizer(network, Sgd(kind="sgd"))
    set_learning_rate(optimizer, 0.05)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).double().requires_grad_(False)
    loss = partial(F.cross_entropy, label_smoothing=SMOOTHING)
    objective = Objective(network, loss, "float32", size, Distillation(teacher) if taught else None)
    strategy = build_step(objective, optimizer, METHODS[method])
    for _ in range(3):
        strategy.step(IMAGES, labels)
    return network


@pytest.mark.parametrize("taught", [False, True], ids=["labels", "labels and teacher"])
@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_distribution_on_one_class_trains_as_the_class_does(
    method: str, size: int | None, taught: bool
) -> None:
    hard = trained(method, FIRST, size, taught=taught)
    soft = trained(method, F.one_hot(FIRST, 4).double(), size, taught=taught)
    for one, other in zip(hard.parameters(), soft.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_take_their_own_labels(method: str) -> None:
    """Swapping halves of a batch and of its labels swaps micro-batches, whose gradients are averaged."""
    share = 0.3 * F.one_hot(FIRST, 4).double() + 0.7 * F.one_hot(SECOND, 4).double()
    network = trained(method, share, 4)
    swapped = make_network()
    optimizer = build_optimizer(swapped, Sgd(kind="sgd"))
    set_learning_rate(optimizer, 0.05)
    loss = partial(F.cross_entropy, label_smoothing=SMOOTHING)
    strategy = build_step(Objective(swapped, loss, "float32", 4), optimizer, METHODS[method])
    for _ in range(3):
        strategy.step(IMAGES.roll(4, 0), share.roll(4, 0))
    for one, other in zip(network.parameters(), swapped.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_loss_of_mixed_labels_is_the_mixed_loss_of_the_labels() -> None:
    network = make_network()
    logits = network(IMAGES).detach()
    share = 0.3 * F.one_hot(FIRST, 4).double() + 0.7 * F.one_hot(SECOND, 4).double()
    loss = partial(F.cross_entropy, label_smoothing=SMOOTHING)
    optimizer = build_optimizer(network, Sgd(kind="sgd"))
    found = build_step(Objective(network, loss), optimizer, METHODS["plain"]).step(IMAGES, share).loss
    smoothed = [(1 - SMOOTHING) * F.one_hot(labels, 4).double() + SMOOTHING / 4 for labels in (FIRST, SECOND)]
    first, second = (-(each * logits.log_softmax(dim=1)).sum(dim=1).mean() for each in smoothed)
    assert found == pytest.approx(float(0.3 * first + 0.7 * second), rel=1e-9)
