"""The step for loops of one's own takes the very steps that a recipe takes."""

import copy
from functools import partial
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from saq_qat.errors import DivergedError, RecipeError
from saq_qat.optim.build import build_step
from saq_qat.optim.closure import SAQ
from saq_qat.optim.passes import Objective
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import EfficientTraining, Saq
from tests.export.networks import policy
from tests.train.small_network import SmallNetwork

SIDE = 8
Of = Literal["sum", "pql", "vql", "mean"]


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, SIDE, SIDE, generator=generator), torch.randint(10, (8,), generator=generator)


def loss_of(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(network(images), labels)


@pytest.fixture(scope="module")
def calibrated() -> nn.Module:
    torch.manual_seed(0)
    network, _ = quantize(SmallNetwork(10), policy(4, 4), ("onnxruntime",), image=(3, SIDE, SIDE))
    calibrate(network, [batch(99)[0]])
    return network.train()


@pytest.fixture
def network(calibrated: nn.Module) -> nn.Module:
    return copy.deepcopy(calibrated)


def sgd(network: nn.Module) -> SGD:
    return SGD(network.parameters(), lr=0.05, momentum=0.9)


@pytest.mark.parametrize("objective", ["sum", "pql", "vql", "mean"])
@pytest.mark.parametrize("case", [1, 2, 3])
def test_steps_are_those_of_a_recipe_to_the_bit(
    network: nn.Module, objective: Of, case: Literal[1, 2, 3]
) -> None:
    efficient = EfficientTraining(tau=2, beta=0.5) if objective in ("sum", "mean") else None
    method = Saq(kind="saq", rho=0.2, case=case, objective=objective, efficient=efficient)
    other = copy.deepcopy(network)
    of_recipe = build_step(Objective(other, nn.CrossEntropyLoss()), sgd(other), method)
    step = SAQ(network, sgd(network), rho=0.2, case=case, objective=objective, efficient=efficient)
    for seed in range(3):
        images, labels = batch(seed)
        torch.manual_seed(seed)  # dropout
        expected = of_recipe.step(images, labels)
        torch.manual_seed(seed)
        loss = step(partial(loss_of, network, images, labels))
        assert (step.result, loss) == (expected, expected.loss)
    expected_state = other.state_dict()
    assert all(torch.equal(expected_state[name], value) for name, value in network.state_dict().items())


def test_it_goes_on_exactly_where_its_state_was_taken(network: nn.Module) -> None:
    optimizer = sgd(network)
    step = SAQ(network, optimizer, rho=0.2, efficient=EfficientTraining(tau=3, beta=0.5))

    def closure(of: nn.Module, seed: int) -> float:
        images, labels = batch(seed)
        torch.manual_seed(seed)
        return (step if of is network else again)(lambda: F.cross_entropy(of(images), labels))

    closure(network, 0)
    other = copy.deepcopy(network)
    other_optimizer = sgd(other)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = SAQ(other, other_optimizer, rho=0.2, efficient=EfficientTraining(tau=3, beta=0.5))
    again.load_state_dict({name: value.clone() for name, value in step.state_dict().items()})
    assert [closure(network, seed) for seed in (1, 2, 3)] == [closure(other, seed) for seed in (1, 2, 3)]


def test_a_step_whose_loss_is_not_finite_moves_nothing_and_ten_end_the_training(network: nn.Module) -> None:
    step = SAQ(network, sgd(network), rho=0.2)
    images, labels = batch(0)
    before = copy.deepcopy(network.state_dict())
    for _ in range(9):
        assert not torch.tensor(
            step(lambda: F.cross_entropy(network(images), labels) * float("nan"))
        ).isfinite()
    assert step.result is not None and not step.result.finite
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(DivergedError, match="10 steps in a row"):
        step(lambda: F.cross_entropy(network(images), labels) * float("nan"))


def test_parameters_of_other_modules_are_trained_with_the_network(network: nn.Module) -> None:
    beside = nn.Linear(10, 10)
    optimizer = SGD([*network.parameters(), *beside.parameters()], lr=0.05)
    images, labels = batch(0)
    before = beside.weight.detach().clone()
    SAQ(network, optimizer, rho=0.2)(lambda: F.cross_entropy(beside(network(images)), labels))
    assert not torch.equal(before, beside.weight)


def test_an_optimizer_of_the_float_network_is_refused(network: nn.Module) -> None:
    with pytest.raises(RecipeError, match=r"lacks \d+ of \d+: .*quantized network, which is a copy"):
        SAQ(network, sgd(SmallNetwork(10)), rho=0.2)


def test_frozen_parameters_need_no_optimizer(network: nn.Module) -> None:
    head = {id(p) for name, p in network.named_parameters() if name.startswith("head")}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) not in head)
    optimizer = SGD([p for p in network.parameters() if p.requires_grad], lr=0.05)
    images, labels = batch(0)
    SAQ(network, optimizer, rho=0.2)(lambda: F.cross_entropy(network(images), labels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": -1.0}, r"SAQ: rho: must be at least 0 \(got -1\.0\)"),
        ({"rho": 0.1, "case": 4}, r"SAQ: case: must be 1, 2 or 3 \(got 4\)"),
        (
            {"rho": 0.1, "objective": "pql", "efficient": EfficientTraining()},
            "objective must be 'sum' or 'mean'",
        ),
    ],
)
def test_a_setting_that_a_recipe_refuses_is_refused(
    network: nn.Module, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        SAQ(network, sgd(network), **settings)  # type: ignore[arg-type]  # wrong on purpose


def test_a_closure_that_gives_no_loss_is_refused(network: nn.Module) -> None:
    step = SAQ(network, sgd(network), rho=0.2)
    images, labels = batch(0)
    with pytest.raises(RecipeError, match="got float"):
        step(lambda: F.cross_entropy(network(images), labels).item())  # type: ignore[arg-type, return-value]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"got a tensor of shape \(8,\)"):
        step(lambda: F.cross_entropy(network(images), labels, reduction="none"))
    with pytest.raises(RecipeError, match="without gradient"):
        step(lambda: F.cross_entropy(network(images), labels).detach())
