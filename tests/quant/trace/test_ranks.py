"""Ranks read from a graph equal those of the tensors that run through it, or are not known."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.trace.ranks import rank_of
from saq_qat.quant.trace.tracer import trace
from tests.quant.networks import images

STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean that keeps": lambda x: x.mean((2, 3), keepdim=True),
    "mean of one axis": lambda x: x.mean(-1),
    "flatten": lambda x: x.flatten(1),
    "flatten the last": lambda x: torch.flatten(x, 2),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "view of sizes": lambda x: x.view(x.size(0), -1),
    "reshape of a shape": lambda x: x.reshape(x.shape[0], x.shape[1], -1),
    "reshape of a tuple": lambda x: x.reshape((-1, 4)),
    "squeeze": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    "unsqueeze": lambda x: x.mean(-1).unsqueeze(1),
    "index": lambda x: x[:, 0],
    "token": lambda x: x.flatten(2)[..., 0],
    "new axis": lambda x: x[:, None],
    "chunk": lambda x: x.chunk(2, 1)[0],
    "sum with a narrower": lambda x: x.mean((2, 3))[:, :, None, None] + x,
    "softmax": lambda x: torch.softmax(x.flatten(2), -1),
}


class Step(nn.Module):
    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.step = nn.Conv2d(3, 4, 1), step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self.conv(x))


def last(network: fx.GraphModule) -> fx.Node:
    return network.graph.output_node().all_input_nodes[0]


@pytest.mark.parametrize("name", STEPS)
def test_the_rank_is_that_of_the_tensor(name: str) -> None:
    network = trace(Step(STEPS[name]))
    assert rank_of(network, last(network)) == network(images()).dim()


@pytest.mark.parametrize("step", [torch.squeeze, lambda x: torch.einsum("nchw->nc", x)])
def test_what_the_graph_does_not_tell_is_not_guessed(step: Callable[[Tensor], Tensor]) -> None:
    network = trace(Step(step))
    assert rank_of(network, last(network)) is None
