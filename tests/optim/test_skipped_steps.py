"""A step whose loss or gradient is not finite leaves no trace in any state, whatever the method."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from saq_qat.errors import DivergedError
from saq_qat.optim.build import build_step
from saq_qat.optim.passes import Objective
from saq_qat.optim.update import TrainingStep
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import EfficientTraining, Plain, Quant, Sam, Saq
from tests.export.networks import policy

METHODS: dict[str, Plain | Sam | Saq] = {
    "plain": Plain(kind="plain"),
    "sam": Sam(kind="sam", rho=0.05),
    "saq": Saq(kind="saq", rho=0.1),
    "saq, every third step": Saq(kind="saq", rho=0.1, efficient=EfficientTraining(tau=3, beta=0.3)),
    "saq, vql": Saq(kind="saq", rho=0.1, objective="vql"),
}
BAD: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": lambda x: x * float("nan"),
    "infinity": lambda x: x + float("inf"),
    "1e38": lambda x: x * 1e38,
}


class Network(nn.Module):
    """BatchNorm, and a dropout that draws from the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False),
            nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * 16, 10),
        )  # fmt: skip  # one value a line is a page

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return result


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator)


def training(name: str) -> tuple[nn.Module, SGD, TrainingStep]:
    torch.manual_seed(0)
    network: nn.Module = Network()
    method = METHODS[name]
    if isinstance(method, Saq):
        quant: Quant = policy(4, 4)
        quantized, _ = quantize(network, quant, ("onnxruntime",))
        calibrate(quantized, [batch(99)[0]])
        network = quantized
    network.train()
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9)
    return network, optimizer, build_step(Objective(network, nn.CrossEntropyLoss()), optimizer, method)


def state(network: nn.Module, optimizer: SGD, step: TrainingStep) -> dict[str, Tensor]:
    momenta = [optimizer.state[p].get("momentum_buffer") for p in network.parameters()]
    return {
        **network.state_dict(),
        **{f"momentum {index}": found for index, found in enumerate(momenta) if found is not None},
        **{f"method {name}": value for name, value in step.state_dict().items()},
        "generator": torch.get_rng_state(),
    }


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", METHODS)
def test_a_run_with_a_bad_batch_is_that_without_it(name: str, bad: str) -> None:
    ends = []
    for with_bad in (False, True):
        network, optimizer, step = training(name)
        torch.manual_seed(1)
        for index in range(5):
            if with_bad and index in (1, 3, 4):
                images, labels = batch(50 + index)
                assert not step.step(BAD[bad](images), labels).finite
            assert step.step(*batch(index)).finite
        ends.append(state(network, optimizer, step))
    assert ends[0].keys() == ends[1].keys()
    assert [key for key in ends[0] if not torch.equal(ends[0][key], ends[1][key])] == []


@pytest.mark.parametrize("name", METHODS)
def test_a_step_that_fails_leaves_no_trace(name: str) -> None:
    network, optimizer, step = training(name)
    before = {key: value.clone() for key, value in state(network, optimizer, step).items()}
    images, labels = batch(0)
    with pytest.raises(IndexError):
        step.step(images, labels + 10)
    after = state(network, optimizer, step)
    assert [key for key in before if not torch.equal(before[key], after[key])] == []


def test_ten_in_a_row_end_the_training_and_name_a_layer() -> None:
    _, _, step = training("saq")
    images, labels = batch(0)
    for _ in range(9):
        assert not step.step(images * float("nan"), labels).finite
    with pytest.raises(DivergedError, match=r"10 steps in a row .*first in body\.0\.weight"):
        step.step(images * float("nan"), labels)


def test_weights_that_were_spoilt_before_are_named_as_the_cause() -> None:
    network, _, step = training("plain")
    name, weight = next(iter(network.named_parameters()))
    with torch.no_grad():
        weight.fill_(3e38)
    images, labels = batch(0)
    with pytest.raises(DivergedError, match="10 steps in a row") as ended:
        for _ in range(10):
            assert not step.step(images, labels).finite
    assert f"Before them {name} held 3e+38" in str(ended.value)
    assert "broken images" not in str(ended.value)
