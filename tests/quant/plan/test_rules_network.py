"""Weights and products that no quantizer reaches are named before training."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.plan.rules_network import findings
from saq_qat.quant.trace.tracer import trace


class Standardized(nn.Conv2d):
    """Computes its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Multiplies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


class Causal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


class Scales(nn.Module):
    """Positions and scales, which are added and multiplied by element."""

    def __init__(self) -> None:
        super().__init__()
        self.position, self.gain = nn.Parameter(torch.randn(1, 4, 4)), nn.Parameter(torch.ones(4, 1))
        self.norm = nn.LayerNorm((4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm((x + self.position) * self.gain), self.position.expand(2, -1, -1)])


FLOAT = {
    r"NET001 \w+: ConvTranspose2d computes with float weights \(0\.weight": nn.ConvTranspose2d(3, 4, 2),
    r"NET001 .*Conv1d computes": nn.Conv1d(3, 4, 2),
    r"NET001 .*conv2d computes with float weights \(computed ones\)": Standardized(3, 4, 2),
    r"NET001 .*matmul computes with float weights \(0\.matrix \(4, 4\)\)": Multiplies(),
    r"NET002 .*scaled_dot_product_attention multiplies activations in float": Causal(),
    r"Conv1d \(2 times\) computes": nn.Sequential(nn.Conv1d(3, 3, 2), nn.Conv1d(3, 3, 2)),
}


@pytest.mark.parametrize(
    ("message", "network"), FLOAT.items(), ids=[type(n).__name__ for n in FLOAT.values()]
)
def test_what_stays_float_though_it_multiplies_is_named_once(message: str, network: nn.Module) -> None:
    (finding,) = findings(trace(nn.Sequential(network)))
    assert finding.level == "warning" and finding.fix
    assert re.search(message, str(finding)), str(finding)


@pytest.mark.parametrize(
    ("message", "network"),
    {
        r"NET004 0: BatchNorm2d without running": nn.BatchNorm2d(3, track_running_stats=False),
        r"NET004 0: InstanceNorm2d with running": nn.InstanceNorm2d(3, track_running_stats=True),
    }.items(),
)
def test_layers_deployed_otherwise_than_trained_are_errors(message: str, network: nn.Module) -> None:
    found = [one for one in findings(trace(nn.Sequential(network))) if one.level == "error"]
    assert len(found) == 1 and re.search(message, str(found[0])), found


class WeightsOfEachImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(2, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        weights = (x.mean((1, 2, 3))[:, None, None, None, None] * self.weights).flatten(0, 1)
        grouped = F.conv2d(x.reshape(1, batch * channels, height, width), weights, groups=batch)
        return grouped.reshape(batch, 2, height - 2, width - 2)


def test_weights_of_each_image_are_an_error_that_names_the_call() -> None:
    (found,) = [one for one in findings(trace(WeightsOfEachImage(), (3, 8, 8))) if one.level == "error"]
    assert re.search(r"NET004 conv2d: conv2d has as many groups as there are images", str(found)), found


@pytest.mark.parametrize(
    "network", [nn.InstanceNorm2d(3), nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3)], ids=repr
)
def test_norms_of_one_image_or_of_all_are_no_errors(network: nn.Module) -> None:
    assert [one for one in findings(trace(nn.Sequential(network))) if one.level == "error"] == []


@pytest.mark.parametrize("network", [nn.Linear(4, 4), nn.Conv2d(3, 4, 2), Scales(), nn.PReLU(4)], ids=repr)
def test_layers_that_get_codes_and_work_by_element_are_not(network: nn.Module) -> None:
    assert findings(trace(nn.Sequential(network))) == []
