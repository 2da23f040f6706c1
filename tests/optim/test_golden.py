"""The SAQ step against an independent reference of the paper's three cases (tests/golden/README.md)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.passes import Objective
from saq_qat.optim.update import TrainingStep
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLinear, quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import EfficientTraining, Saq, Sgd

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "saq_paper_cases.npz")
LEVELS = {
    "aw": lambda layer: f"{layer}.weight_quantizer.alpha",
    "ax": lambda layer: f"{layer}_input.alpha",
}


class GoldenNetwork(nn.Module):
    """conv0 W8 (input not quantized), conv1 W4A4, fc W8A8 on the paper's grids."""

    def __init__(self, *, normalize_fc: bool = False) -> None:
        super().__init__()
        self.conv0 = QuantConv2d(nn.Conv2d(3, 6, 3, padding=1, bias=False), _weights(8), normalize=True)
        self.bn0 = nn.BatchNorm2d(6)
        self.conv1_input = _activations(4)
        conv1 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.conv1 = QuantConv2d(conv1, _weights(4), normalize=True)
        self.bn1 = nn.BatchNorm2d(8)
        self.fc_input = _activations(8)
        self.fc = QuantLinear(nn.Linear(8, 5), _weights(8), normalize=normalize_fc)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv0(x)))
        x = F.relu(self.bn1(self.conv1(self.conv1_input(x))))
        logits: Tensor = self.fc(self.fc_input(x.mean((2, 3))))
        return logits


def _weights(bits: int) -> Quantizer:
    return Quantizer(weight_grid("saq", bits, paper=True), bits=bits)


def _activations(bits: int) -> Quantizer:
    return Quantizer(activation_grid("saq", bits, signed=False, paper=True), bits=bits)


def our_name(name: str) -> str:
    layer, _, kind = name.partition(".")
    return LEVELS[kind](layer) if kind in LEVELS else name


def golden(prefix: str) -> dict[str, Tensor]:
    """Arrays under ``prefix``, by our parameter names."""
    keys = [key for key in GOLDEN.files if key.startswith(prefix)]
    assert keys, prefix
    return {our_name(key.removeprefix(prefix)): torch.from_numpy(np.asarray(GOLDEN[key])) for key in keys}


def network(*, normalize_fc: bool = False) -> GoldenNetwork:
    result = GoldenNetwork(normalize_fc=normalize_fc).double()
    with torch.no_grad():
        for name, value in golden("param0/").items():
            result.get_parameter(name).copy_(value)
    return result


def batch(start: int, size: int = 16) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(GOLDEN["x"][start : start + size])
    return images, torch.from_numpy(GOLDEN["y"][start : start + size])


def build(
    net: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    *,
    micro_batch_size: int | None = None,
    **method: Any,
) -> TrainingStep:
    saq = Saq(kind="saq", rho=float(GOLDEN["hp/rho"]), **method)
    recipe = Sgd(kind="sgd", momentum=0.9, weight_decay=1e-4, decay="all", clip_level_decay=1e-4)
    optimizer = build_optimizer(net, recipe)
    set_learning_rate(optimizer, float(GOLDEN["hp/lr"]))
    return build_step(Objective(net, loss, micro_batch_size=micro_batch_size), optimizer, saq)


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        message = partial("{}: {}".format, name)
        torch.testing.assert_close(actual[name].detach(), value, rtol=1e-9, atol=1e-13, msg=message)


CASES: dict[str, dict[str, Any]] = {
    "case1": {"case": 1},
    "case2": {"case": 2},
    "case2_raw": {"case": 2, "case2_space": "raw"},
    "case3": {"case": 3},
    "case3_fcwn": {"case": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_step_moves_every_parameter_as_the_reference_does(case: str) -> None:
    net = network(normalize_fc=case == "case3_fcwn")
    result = build(net, **CASES[case]).step(*batch(0))
    at = f"w4a4/{case}/step0/"
    assert result.loss == pytest.approx(float(GOLDEN[at + "loss1"]), rel=1e-9)
    assert result.perturbed_loss == pytest.approx(float(GOLDEN[at + "loss2"]), rel=1e-9)
    assert_equal(dict(net.named_parameters()), golden(at + "param_after/"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("objective", "key"), [("vql", "g"), ("pql", "gs")])
def test_both_gradients_equal_the_reference(case: str, objective: str, key: str) -> None:
    net = network(normalize_fc=case == "case3_fcwn")
    build(net, objective=objective, **CASES[case]).step(*batch(0))
    assert_equal(gradients(net), golden(f"w4a4/{case}/step0/{key}/"))


def recording(net: GoldenNetwork, seen: list[dict[str, Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that notes what perturbs each layer at the time of each pass."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        found = {
            name: layer.slot if layer.shift is None else layer.shift
            for name, layer in quant_layers(net).items()
        }
        seen.append({name: value.detach().clone() for name, value in found.items() if value is not None})
        return F.cross_entropy(logits, labels)

    return loss


@pytest.mark.parametrize("case", CASES)
def test_epsilon_and_its_norm_equal_the_reference(case: str) -> None:
    net = network(normalize_fc=case == "case3_fcwn")
    seen: list[dict[str, Tensor]] = []
    result = build(net, recording(net, seen), **CASES[case]).step(*batch(0))
    assert all(not value.any() for value in seen[0].values())
    assert_equal(seen[1], golden(f"w4a4/{case}/step0/eps/"))
    assert result.epsilon_norm == pytest.approx(0.4, rel=1e-9)


def test_micro_batches_have_an_epsilon_each_and_one_mean_gradient() -> None:
    net = network()
    seen: list[dict[str, Tensor]] = []
    build(net, recording(net, seen), micro_batch_size=16).step(*batch(0, 32))
    assert_equal(seen[1], golden("msharp/micro0/eps/"))
    assert_equal(seen[3], golden("msharp/micro1/eps/"))
    assert_equal(gradients(net), golden("msharp/update_grad/"))


def test_efficient_training_follows_the_reference_through_two_reuse_intervals() -> None:
    net = network()
    strategy = build(net, efficient=EfficientTraining(tau=4, beta=0.7))
    for t in range(9):
        result = strategy.step(*batch(16 * t))
        assert (result.perturbed_loss is not None) == (t % 4 == 0)
        if f"et_flat/step{t}/is_sam_step" in GOLDEN.files:
            assert_equal(dict(net.named_parameters()), golden(f"et_flat/step{t}/param_after/"))


@pytest.mark.parametrize("updates", [False, True])
def test_the_second_pass_leaves_running_statistics_alone_unless_asked(updates: bool) -> None:
    net, reference = network(), network()
    build(net, second_pass_statistics=updates).step(*batch(0))
    build(reference, objective="vql").step(*batch(0))
    same = [torch.equal(a, b) for a, b in zip(net.buffers(), reference.buffers(), strict=True)]
    assert all(same) is not updates
