"""The step for loops of one's own takes the very steps that a recipe takes."""

import copy
from functools import partial
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, AdamW
from torch.optim.lr_scheduler import StepLR

from saq_qat.errors import ArtifactError, DivergedError, RecipeError
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
    with pytest.warns(UserWarning, match=r"skipped, because its loss \(nan\)") as warned:
        for _ in range(9):
            assert not torch.tensor(
                step(lambda: F.cross_entropy(network(images), labels) * float("nan"))
            ).isfinite()
    assert len(warned) == 1 and warned[0].filename == __file__
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


def test_what_is_no_closure_is_refused(network: nn.Module) -> None:
    step = SAQ(network, sgd(network), rho=0.2)
    images, labels = batch(0)
    loss = loss_of(network, images, labels)
    with pytest.raises(
        RecipeError, match=r"takes a closure.*got a tensor of shape \(\)\. Write step\(lambda"
    ):
        step(loss)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("objective", ["sum", "vql"])
def test_a_closure_that_calls_backward_is_told_that_the_step_does(network: nn.Module, objective: Of) -> None:
    step = SAQ(network, sgd(network), rho=0.2, objective=objective)
    before = copy.deepcopy(network.state_dict())

    def closure() -> Tensor:
        loss = loss_of(network, *batch(0))
        torch.autograd.backward(loss)
        return loss

    with pytest.raises(RecipeError, match="The step calls backward itself"):
        step(closure)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_other_errors_of_torch_in_a_backward_pass_come_through(network: nn.Module) -> None:
    step = SAQ(network, sgd(network), rho=0.2)

    def closure() -> Tensor:
        logits = network(batch(0)[0]).exp()
        loss: Tensor = logits.sum()
        logits.zero_()
        return loss

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step(closure)


def test_a_float_network_is_to_be_quantized_first() -> None:
    network = SmallNetwork(10)
    with pytest.raises(RecipeError, match=r"SmallNetwork has no quantized layer\. Quantize it first"):
        SAQ(network, sgd(network), rho=0.2)


def test_an_optimizer_that_calls_the_closure_itself_is_refused(network: nn.Module) -> None:
    with pytest.raises(RecipeError, match=r"LBFGS\.step needs closure"):
        SAQ(network, LBFGS(network.parameters()), rho=0.2)


def test_an_optimizer_with_a_schedule_is_taken(network: nn.Module) -> None:
    optimizer = AdamW(network.parameters(), lr=1e-3)
    schedule = StepLR(optimizer, 1)
    SAQ(network, optimizer, rho=0.2)(partial(loss_of, network, *batch(0)))
    schedule.step()


def test_the_state_of_something_else_is_refused(network: nn.Module) -> None:
    step = SAQ(network, sgd(network), rho=0.2)
    with pytest.raises(ArtifactError, match="it has nothing and lacks t, skipped_in_a_row"):
        step.load_state_dict({})
    with pytest.raises(ArtifactError, match="The network and the optimizer load their own"):
        step.load_state_dict(network.state_dict())
