"""Compiled steps: the same gradients as eager ones, one program for both passes, and what happens without."""

import warnings
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.compilation import lost_gradients, missing_compiler
from saq_qat.optim.passes import Objective
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.recipe.schema import EfficientTraining, Plain, Sam, Saq, Sgd
from tests.export.networks import policy

needs_compiler = pytest.mark.skipif(
    missing_compiler(torch.device("cpu")) is not None, reason="compares with what a C++ compiler makes"
)
METHODS: dict[str, Plain | Sam | Saq] = {
    "saq": Saq(kind="saq", rho=0.1, efficient=EfficientTraining(tau=2)),
    "plain": Plain(kind="plain"),
    "sam": Sam(kind="sam", rho=0.05),
    "raw case 2, further": Saq(
        kind="saq", rho=0.1, case=2, case2_space="raw", perturb=("weight", "bias", "norm", "clip_level")
    ),
    "case 1": Saq(kind="saq", rho=0.1, case=1),
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Network(nn.Module):
    """A residual block, whose sum is quantized, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.conv(x))
        result: Tensor = self.head(x.mean(dim=(2, 3)))
        return result


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    images = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(count)]
    return [(x.contiguous(memory_format=torch.channels_last), torch.arange(8) % 5) for x in images]


def trained(name: str, *, compiled: bool) -> tuple[dict[str, Tensor], list[list[float | None]]]:
    """Parameters, buffers and numbers of three steps."""
    torch.manual_seed(0)
    network: nn.Module = Network()
    method = METHODS[name]
    if not isinstance(method, Sam):
        network, _ = quantize(network, policy(4, 4), ("onnxruntime",))
        calibrate(network, [batches(1)[0][0]])
    network.train().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, Sgd(kind="sgd"))
    set_learning_rate(optimizer, 0.01)
    step = build_step(Objective(network, F.cross_entropy, compiled=compiled), optimizer, method)
    results = [step.step(*batch) for batch in batches(3)]
    assert all(layer.slot is None and layer.shift is None for layer in quant_layers(network).values())
    numbers = [[r.loss, r.perturbed_loss, r.gradient_norm, r.epsilon_norm, r.cosine] for r in results]
    return network.state_dict(), numbers


def assert_alike(name: str) -> None:
    torch._dynamo.utils.counters.clear()
    expected, expected_numbers = trained(name, compiled=False)
    found, numbers = trained(name, compiled=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for eager, compiled in zip(expected_numbers, numbers, strict=True):
        assert [n is None for n in eager] == [n is None for n in compiled]
        known = [[n for n in of if n is not None] for of in (eager, compiled)]
        assert known[1] == pytest.approx(known[0], rel=1e-5)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6, msg=key)


@needs_compiler
def test_both_passes_of_a_compiled_step_are_one_program_that_trains_as_the_eager_one() -> None:
    assert_alike("saq")


@needs_compiler
@pytest.mark.slow  # the compiler takes a quarter of a minute for each
@pytest.mark.parametrize("name", [name for name in METHODS if name != "saq"])
def test_every_method_compiles_to_one_program_that_trains_as_the_eager_one(name: str) -> None:
    assert_alike(name)


class Branching(Network):
    """What no compiler can make one program of."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.detach().sum()) > -1e9 else x


@needs_compiler
def test_a_network_that_cannot_be_compiled_is_trained_without_and_one_warning_says_so() -> None:
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = Branching()
        optimizer = build_optimizer(network, Sgd(kind="sgd"))
        set_learning_rate(optimizer, 0.01)
        objective = Objective(network, F.cross_entropy, compiled=compiled)
        step = build_step(objective, optimizer, METHODS["plain"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for batch in batches(2):
                step.step(*batch)
        said = [str(warning.message).split(",")[0] for warning in caught]
        assert said == ["The compiler failed on this network"] * compiled
        assert not objective.compiled
        ends.append(network.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


class _Lost(torch.autograd.Function):
    """An identity whose gradient is lost where it is compiled, as torch 2.11 lost a fake-quant's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return upstream[0] * (0.0 if torch.compiler.is_compiling() else 1.0)


class Losing(Network):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Lost.apply(super().forward(x)))


@needs_compiler
def test_a_program_that_lost_gradients_of_the_network_is_refused() -> None:
    torch.manual_seed(0)
    network = Losing()
    objective = Objective(network, F.cross_entropy, compiled=True)
    part = objective.micro_batches(*batches(1)[0])[0]
    with pytest.warns(UserWarning, match="The compiler failed on this network.*7 of 7 gradients are zero"):
        _, found = objective.gradients(part, list(network.parameters()))
    _, expected = Objective(network, F.cross_entropy).gradients(part, list(network.parameters()))
    assert not objective.compiled
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def gradient(*sizes: float) -> list[Tensor]:
    return [torch.full((3,), size) for size in sizes]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (gradient(1.0, 2.0), None),
        (gradient(-1.0, 20.0), None),
        (gradient(0.0, 2.0), "1 of 2 gradients are zero and should not be"),
        (gradient(0.0, 0.0), "2 of 2 gradients are zero and should not be"),
    ],
)
def test_gradients_are_lost_where_they_are_zero_compiled_alone(found: list[Tensor], said: str | None) -> None:
    assert lost_gradients(found, gradient(1.0, 2.0)) == said


def test_what_rounding_leaves_of_a_zero_gradient_may_be_zero_compiled() -> None:
    assert lost_gradients(gradient(0.0, 2.0), gradient(1e-7, 2.0)) is None
    assert lost_gradients(gradient(0.0, 0.0), gradient(0.0, 0.0)) is None


def test_a_machine_without_a_compiler_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert missing_compiler(torch.device("cpu")) == "a C++ compiler (no-such-compiler)"
