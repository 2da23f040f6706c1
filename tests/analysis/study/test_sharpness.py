"""Sharpness of a small network, by a second way to perturb it: quantized weights held as plain numbers."""

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.analysis.study.sharpness import sharpness
from saq_qat.quant.numerics.kinds.table import weight_grid
from saq_qat.quant.numerics.layers import QuantLinear
from saq_qat.quant.numerics.quantizer import Quantizer


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (
            QuantLinear(nn.Linear(*size), Quantizer(weight_grid("saq", 4), bits=4))
            for size in ((12, 8), (8, 3))
        )
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(F.relu(self.norm(self.first(x.flatten(1)))))
        return result


def network() -> Network:
    torch.manual_seed(0)
    return Network().double()


def batches() -> Iterable[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(30, 3, 2, 2, generator=generator).double()
    labels = torch.randint(0, 3, (30,), generator=generator)
    return zip(torch.split(images, 7), torch.split(labels, 7), strict=True)


def loss_at(net: Network, weights: list[Tensor]) -> Tensor:
    """Mean cross entropy of the network with these in the place of its quantized weights."""
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    norm = net.norm
    hidden = F.linear(images.flatten(1), weights[0], net.first.bias)
    hidden = F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return F.cross_entropy(F.linear(hidden.relu(), weights[1], net.last.bias), labels)


@pytest.mark.parametrize("rho", [0.05, 0.4])
def test_the_loss_rises_by_what_it_rises_at_weights_moved_along_their_gradient(rho: float) -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = sharpness(net, batches, rho)
    assert found is not None

    weights = [layer.quantized_weight().detach() for layer in (net.first, net.last)]
    leaves = [weight.clone().requires_grad_() for weight in weights]
    at_rest = loss_at(net.eval(), leaves)
    gradients = torch.autograd.grad(at_rest, leaves)
    loss = float(at_rest.detach())
    length = float(torch.cat([g.flatten() for g in gradients]).norm())
    moved = [w + rho * g / length for w, g in zip(weights, gradients, strict=True)]
    assert found.loss == pytest.approx(loss, rel=1e-9)
    assert found.increase == pytest.approx(float(loss_at(net, moved).detach()) - loss, rel=1e-6)
    assert found.increase > 0
    assert found.weight_norm == pytest.approx(float(torch.cat([w.flatten() for w in weights]).norm()))
    assert (found.rho, found.images) == (rho, 30)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_network_in_full_precision_has_none() -> None:
    assert sharpness(nn.Linear(3, 2), batches, 0.1) is None
