"""Functions of a network's own that are told the mode: whole if they leave a tensor alone in evaluation."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import dropout

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.graph import is_identity
from saq_qat.quant.trace.modes import FollowsMode, functions_told_the_mode
from saq_qat.quant.trace.tracer import trace


def drop_connect(inputs: Tensor, p: float, training: bool) -> Tensor:
    """Stochastic depth as published EfficientNets have it."""
    if not training:
        return inputs
    kept = 1 - p + torch.rand([inputs.shape[0], 1, 1, 1], dtype=inputs.dtype, device=inputs.device)
    return inputs / (1 - p) * torch.floor(kept)


def checked_drop(x: Tensor, *, training: bool = True) -> Tensor:
    """Computes with the shape before it leaves the tensor alone."""
    return x * torch.rand(x.shape[0] + 0, 1, 1, 1) if training and x.shape[1] else x


def projected(x: Tensor, weight: Tensor, training: bool) -> Tensor:
    """Told the mode, and computes in evaluation too."""
    return F.linear(dropout(x, 0.5, training), weight)


def doubled_in_training(x: Tensor, training: bool) -> Tensor:
    return x.neg().mul(2) if training else x + 1


def in_pairs(x: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    return (x * 2, x) if training else (x, x)


class Block(nn.Module):
    """A residual block whose branch is dropped by a function, in a method beside ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def dropped(self, x: Tensor) -> Tensor:
        return drop_connect(x, 0.5, training=self.training)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.dropped(self.conv(x)) + x).mean((2, 3))
        return projected(x, self.linear.weight, self.training)


class Calls(nn.Module):
    """A layer, and a function behind it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv, self.name = nn.Conv2d(3, 3, 1), name

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        if self.name == "checked_drop":
            return checked_drop(x, training=self.training)
        if self.name == "in_pairs":
            return in_pairs(x, self.training)[0] + drop_connect(x, 0.5, self.training)
        return doubled_in_training(x, self.training)


@pytest.mark.parametrize("image", [None, (3, 4, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_a_dropped_branch_is_one_module_that_follows_the_mode(training: bool, image: Any) -> None:
    model = Block().train(training)
    network = trace(model, image)
    calls = [node for node in network.graph.nodes if node.op == "call_module"]
    kinds = [type(network.get_submodule(str(node.target))) for node in calls]
    assert kinds == [nn.Conv2d, FollowsMode, nn.Dropout, nn.Linear]
    assert is_identity(network, calls[1])
    images = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for mode in (False, True):
        found = []
        for module in (model, network):
            torch.manual_seed(1)
            found.append(module.train(mode)(images))
        torch.testing.assert_close(found[1], found[0])
        assert torch.equal(network(images), network(images)) is not mode


def test_what_a_function_asks_before_it_leaves_the_tensor_alone_is_no_step() -> None:
    network = trace(Calls("checked_drop"), (3, 4, 4))
    assert [node.op for node in network.graph.nodes] == [
        "placeholder",
        "call_module",
        "call_module",
        "output",
    ]


def test_a_function_that_computes_something_else_in_evaluation_is_refused() -> None:
    with pytest.raises(LegalityError, match="must do the same in training as in evaluation"):
        trace(Calls("doubled_in_training"))


def test_a_function_of_several_tensors_is_refused_by_its_name() -> None:
    with pytest.raises(LegalityError, match="one tensor; in_pairs gives a tuple"):
        trace(Calls("in_pairs"))


def test_tracing_leaves_the_functions_of_a_file_as_they_were() -> None:
    before = drop_connect
    trace(Block())
    assert drop_connect is before
    told = functions_told_the_mode(Block())
    assert told >= {drop_connect, projected} and dropout not in told
