"""What the nodes of a traced network are."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from saq_qat.errors import LegalityError
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import groups
from saq_qat.quant.trace.operations import AVERAGING, COPYING, POOLING, RESHAPING, SELECTING
from saq_qat.quant.trace.tracer import trace
from tests.quant.networks import Residual


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Dead(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.sigmoid(x)
        return x.relu()


def nodes_of(model: nn.Module) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    network = trace(model)
    return network, {node.name: node for node in network.graph.nodes}


def test_a_branch_on_values_names_the_model_and_the_fix() -> None:
    with pytest.raises(
        LegalityError, match=r"Branching cannot be traced \(.*test_graph\.py, line \d+: .*torch\.fx\.wrap"
    ):
        trace(Branching())


class TwoHeads(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.relu()


def test_more_than_one_output_is_refused() -> None:
    with pytest.raises(LegalityError, match=r"TwoHeads returns .*logits alone"):
        trace(TwoHeads())


def test_dead_nodes_are_dropped() -> None:
    assert "sigmoid" not in nodes_of(Dead())[1]


def test_groups_hold_the_batch_norm_and_the_relu_that_follow_alone() -> None:
    network = trace(Residual())
    found = [tuple(str(part) for part in (g.head, g.batch_norm, g.activation)) for g in groups(network)]
    assert found == [
        ("x", "None", "None"),
        ("stem", "stem_bn", "stem_relu"),
        ("pool", "None", "None"),
        ("conv1", "bn1", "relu1"),
        ("conv2", "bn2", "None"),
        ("shortcut", "shortcut_bn", "None"),
        ("add", "None", "relu2"),
        ("average", "None", "None"),
        ("flatten", "None", "None"),
        ("fc", "None", "None"),
    ]


def test_a_batch_norm_with_a_second_reader_before_it_stays_apart() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.bn(x) + x  # type: ignore[no-any-return]  # modules return Any

    assert [g.batch_norm for g in groups(trace(Shared()))] == [None] * 4


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [x + y, torch.add(x, y), x.add(y), x + 1, x + self.shift, torch.add(x, y, alpha=2)]


def test_sums_of_two_computed_tensors_are_residual_sums_and_no_others() -> None:
    network = fx.symbolic_trace(Sums())
    sums = [node for node in network.graph.nodes if "add" in node.name]
    assert [graph.is_add(network, node) for node in sums] == [True, True, True, False, False, False]


class Averages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.pair, self.seven = (nn.AdaptiveAvgPool2d(s) for s in (1, (1, 1), 7))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.one(x),
            self.pair(x),
            F.adaptive_avg_pool2d(x, 1),
            x.mean((2, 3)),
            torch.mean(x, dim=[-2, -1], keepdim=True),
            self.seven(x),
            x.mean(1),
            x.mean(),
        ]


def test_a_mean_over_two_of_five_axes_is_no_global_average() -> None:
    class Grouped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, 3, 4, 2, 8).mean((2, 3))

    network = trace(Grouped())
    assert not any(graph.is_global_average(network, node) for node in network.graph.nodes)


def test_every_way_to_write_a_global_average_is_recognised() -> None:
    network = fx.symbolic_trace(Averages())
    calls = [node for node in network.graph.nodes if node.op not in ("placeholder", "output")]
    assert [graph.is_global_average(network, node) for node in calls] == [True] * 5 + [False] * 3


class Signs(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        a = x.relu()
        b = F.relu6(x)
        pooled = F.max_pool2d(a, 2)
        return [a, b, pooled, a + b, torch.sigmoid(x), torch.flatten(pooled), a + x, x * x, -a]


def test_what_cannot_be_negative_is_found_through_carriers_and_sums() -> None:
    network = fx.symbolic_trace(Signs())
    results = network.graph.output_node().all_input_nodes
    assert [graph.is_nonnegative(network, node) for node in results] == [True] * 6 + [False] * 3


class Ranges(nn.Module):
    """Results that cannot be negative, and results that can."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.limited, self.shifted = nn.Hardsigmoid(), nn.Hardtanh(0, 4), nn.Hardtanh(-1, 1)
        self.pool, self.pad = nn.AvgPool2d(2), nn.ZeroPad2d(1)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        a = x.relu()
        nonnegative = [
            self.gate(x), self.limited(x), x.clamp(min=0), torch.clamp(x, 0, 6), self.gate(x) * a,
            torch.cat([a, self.limited(x)], 1), a.chunk(2, 1)[0], self.pool(a), self.pad(a), F.pad(a, (1, 1)),
            a.mean(1), a.unsqueeze(1).squeeze(1), a + 1, a * 2, F.softplus(x), x.softmax(1),
            a.flip(1), torch.flip(a, [1]), a.narrow(1, 0, 1), a.select(1, 0),
        ]  # fmt: skip  # one value a line is a page
        any_sign = [
            self.shifted(x), x.clamp(max=1), a.clamp(min=-1) * x, torch.cat([a, x], 1), x.chunk(2, 1)[0],
            self.pool(x), F.pad(a, (1, 1), value=-1.0), x.mean(1), a + -1, a * -2, F.gelu(x), a - 1,
            torch.add(a, a, alpha=-1), F.elu(x), -a, x.flip(1), torch.mul(a, other=-1.0),
            torch.add(a, other=-1.0),
        ]  # fmt: skip  # one value a line is a page
        return nonnegative, any_sign


def test_signs_are_followed_through_gates_joins_and_pools() -> None:
    network = fx.symbolic_trace(Ranges())
    results: Any = network.graph.output_node().args[0]
    nonnegative, any_sign = results
    assert [str(n) for n in nonnegative if not graph.is_nonnegative(network, n)] == []
    assert [str(n) for n in any_sign if graph.is_nonnegative(network, n)] == []


@pytest.mark.parametrize(
    ("clipped", "bound"),
    [
        (nn.Hardtanh(0, 4), 4.0),
        (nn.Hardtanh(-1, 1), None),
        (lambda x: x.clamp(0, 6), 6.0),
        (lambda x: torch.clamp(x, min=0), float("inf")),
        (lambda x: torch.clamp(x, max=3), None),
        (lambda x: F.hardtanh(x, 0.0, 2.0), 2.0),
    ],
)
def test_clipping_at_zero_is_a_relu(clipped: Callable[[Tensor], Tensor], bound: float | None) -> None:
    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = clipped if isinstance(clipped, nn.Module) else None

        def forward(self, x: Tensor) -> Tensor:
            return clipped(x)

    network = fx.symbolic_trace(Clipped())
    assert graph.activation_bound(network, network.graph.output_node().all_input_nodes[0]) == bound


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if self.training else x * 1


class Depth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(()) if self.training else x


def test_stochastic_depth_hands_values_on_whoever_wrote_it() -> None:
    network = trace(nn.Sequential(StochasticDepth(0.5, "row"), Depth(), Noisy(), nn.Dropout1d(), nn.ReLU()))
    calls = [node for node in network.graph.nodes if node.op == "call_module"]
    assert [graph.is_identity(network, node) for node in calls] == [True, True, False, True, False]


def test_asking_for_a_shape_keeps_nothing_from_being_one_group() -> None:
    class Shaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return F.relu(self.norm(x)).reshape(x.shape[0], -1)

    found = [(str(g.head), str(g.batch_norm), str(g.activation)) for g in groups(trace(Shaped()))]
    assert ("conv", "norm", "relu") in found


def test_bounds_of_activations() -> None:
    network = fx.symbolic_trace(Signs())
    nodes = {node.name: node for node in network.graph.nodes}
    bounds = [graph.activation_bound(network, nodes[name]) for name in ("relu", "relu6", "sigmoid")]
    assert bounds == [float("inf"), 6.0, None]


class Shapes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), x.shape[1], -1)


def test_shape_queries_read_no_values() -> None:
    network, nodes = nodes_of(Shapes())
    assert [name for name, node in nodes.items() if graph.is_shape_query(node)] == ["size", "getattr_1"]
    assert nodes["getitem"].target is operator.getitem
    assert graph.is_reshape(network, nodes["reshape"])


def test_uses_walk_through_carriers_and_name_the_node_that_is_read() -> None:
    network, nodes = nodes_of(Residual())
    found = [(reader.name, carrier.name) for reader, carrier in graph.uses(network, nodes["stem_relu"])]
    assert found == [("conv1", "pool"), ("shortcut", "pool")]
    assert graph.source_of(network, nodes["conv1"]) is nodes["stem_relu"]


def test_operations_have_one_name_however_they_are_written() -> None:
    assert POOLING.names == {"maxpool2d"}
    assert AVERAGING.names == {"adaptiveavgpool2d", "avgpool2d", "mean"}
    assert {"reshape", "view", "transpose", "flatten"} < RESHAPING.names
    assert SELECTING.names == COPYING.names | AVERAGING.names
