"""Functions become the layers they compute; what follows training and evaluation goes on following them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.deploy.view import fold_batch_norm
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.trace.groups import groups
from saq_qat.quant.trace.modes import FollowsMode
from saq_qat.quant.trace.tracer import trace
from saq_qat.recipe.schema import Quant

POLICY = {"weight": {"kind": "saq", "bits": 4}, "activation": {"kind": "saq", "bits": 4}}


class NormWithActivation(nn.BatchNorm2d):
    """A BatchNorm that normalises by the function, and has children."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, "images")
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        statistics = (self.running_mean, self.running_var, self.weight, self.bias)
        return self.act(F.batch_norm(x, *statistics, self.training, 0.1, self.eps))  # type: ignore[no-any-return]  # modules return Any


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, dilation=self.dilation)


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, bias=self.bias)


class Functional(nn.Module):
    """Parameters of its own in a linear function, and a dropout function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = OwnConv(3, 8, 3, stride=2, dilation=2), NormWithActivation(8)
        self.linear = OwnLinear(8, 6)
        self.matrix, self.shift = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).mean((2, 3))
        return F.linear(F.dropout(self.linear(x), 0.5, self.training), self.matrix, self.shift)


def images() -> Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def called(network: fx.GraphModule) -> dict[str, type[nn.Module]]:
    return {
        str(node.target): type(network.get_submodule(str(node.target)))
        for node in network.graph.nodes
        if node.op == "call_module"
    }


def test_functions_with_one_layers_weight_become_that_layer() -> None:
    network = trace(Functional())
    assert called(network) == {
        "conv": nn.Conv2d,
        "norm.layer": nn.BatchNorm2d,
        "norm.act": nn.ReLU,
        "linear": nn.Linear,
        "dropout_layer": nn.Dropout,
        "linear_layer": nn.Linear,
    }
    names = [(str(g.head), str(g.batch_norm), str(g.activation)) for g in groups(network)]
    assert ("conv", "norm_layer", "norm_act") in names


def test_lifted_layers_share_parameters_and_keep_their_names_once() -> None:
    model = Functional()
    network = trace(model)
    assert network.get_parameter("norm.layer.weight") is model.norm.weight
    assert network.get_parameter("linear_layer.weight") is model.matrix
    renamed = {"matrix": "linear_layer.weight", "shift": "linear_layer.bias"}
    theirs = {renamed.get(name, name.replace("norm.", "norm.layer.")) for name in model.state_dict()}
    assert network.state_dict().keys() == theirs


@pytest.mark.parametrize("training", [False, True])
def test_a_traced_network_computes_what_the_model_does_in_both_modes(training: bool) -> None:
    model = Functional()
    network = trace(model)
    found = []
    for module in (model, network):
        model.norm.reset_running_stats()  # shared with the traced network
        torch.manual_seed(3)
        found.append(module.train(training)(images()))
        assert int(network.get_buffer("norm.layer.num_batches_tracked")) == int(training)
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


def test_tracing_leaves_a_model_as_it_was() -> None:
    class Constant(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.ones(1))

    model = Constant()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trace(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Dropping(nn.Module):
    def __init__(self, function: Any, **arguments: Any) -> None:
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **{"training": self.training, **self.arguments})  # type: ignore[no-any-return]  # modules return Any


def test_functional_dropout_follows_the_mode() -> None:
    network = trace(Dropping(F.dropout2d, p=0.25))
    assert called(network) == {"dropout2d_layer": nn.Dropout2d}
    assert network.get_submodule("dropout2d_layer").p == 0.25
    assert torch.equal(network.eval()(images()), images())


@pytest.mark.parametrize("arguments", [{"p": 0.0}, {"training": False}])
def test_dropout_that_never_drops_is_left_out(arguments: dict[str, Any]) -> None:
    assert [node.op for node in trace(Dropping(F.dropout, **arguments)).graph.nodes] == [
        "placeholder",
        "output",
    ]


def test_dropout_that_is_always_on_is_refused() -> None:
    with pytest.raises(LegalityError, match=r"dropout is on whatever the mode, with p=0\.5.*Use nn\.Dropout"):
        trace(Dropping(F.dropout, training=True))


def test_other_functions_that_are_told_the_mode_follow_it() -> None:
    network = trace(Dropping(F.rrelu))
    assert called(network) == {"rrelu_call": FollowsMode}
    assert torch.equal(network.eval()(images()), F.rrelu(images(), training=False))
    assert not torch.equal(network.train()(images()), network.eval()(images()))


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y + self.other(x) if self.training else y


def test_a_network_that_does_something_else_in_training_is_refused() -> None:
    with pytest.raises(
        LegalityError, match=r"Auxiliary calls other .* in training where it calls .*model\.arg"
    ):
        trace(Auxiliary())


def test_the_part_that_cannot_be_traced_is_named() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.identity = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return x if x.shape[0] > 1 else -x

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Branch()))
    with pytest.raises(
        LegalityError,
        match=r"traced in 1\.0 \(.*test_rewrite\.py, line \d+: return x if x\.shape.* or shapes",
    ):
        trace(model)


def test_whatever_forward_raises_becomes_an_explanation() -> None:
    class Numeric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError(f"missing for {type(x).__name__}")

    with pytest.raises(LegalityError, match="Numeric cannot be traced"):
        trace(Numeric())


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": "same"},
        pytest.param(
            {"kernel_size": 4, "padding": "same"},
            # torch warns of what is tried here: one more column of zeros on one side
            marks=pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
        ),
        {"kernel_size": (3, 5), "padding": "same", "dilation": (1, 2)},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": "same", "padding_mode": "replicate"},
        {"kernel_size": 3, "padding": (0, 1), "padding_mode": "circular"},
    ],
)
def test_padding_in_words_becomes_numbers_or_a_step_of_its_own(settings: dict[str, Any]) -> None:
    conv = nn.Conv2d(3, 4, **settings)
    network = trace(nn.Sequential(conv))
    plain = network.get_submodule("0")
    assert isinstance(plain, nn.Conv2d) and plain.padding_mode == "zeros" and isinstance(plain.padding, tuple)
    assert plain.weight is conv.weight
    torch.testing.assert_close(network(images()), conv(images()))


def test_identities_and_checks_of_shapes_are_no_steps() -> None:
    class Checked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._assert(x.shape[1] == 3, "channels")
            return x * 2

    nodes = [node.name for node in trace(nn.Sequential(nn.Identity(), Checked())).graph.nodes]
    assert nodes == ["x", "_1_mul", "output"]


def test_a_folded_batch_norm_leaves_its_children_in_place() -> None:
    network, _ = quantize(Functional(), Quant.model_validate(POLICY), ())
    calibrate(network, [images()])
    folded = fold_batch_norm(network)
    assert "norm.layer" not in called(folded) and "norm.act" in called(folded)
    folded(images())


class ComputedBias(nn.Linear):
    """A bias of two parts, as attention without a bias of its keys has it."""

    def __init__(self) -> None:
        super().__init__(4, 6, bias=False)
        self.part = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, torch.cat([self.part, self.part * 2]))


def test_a_computed_bias_is_added_behind_its_linear_layer() -> None:
    model = nn.Sequential(ComputedBias())
    network = trace(model)
    assert called(network) == {"0.layer": nn.Linear}
    torch.testing.assert_close(network(torch.eye(4)), model(torch.eye(4)))
    assert "0.part" in dict(network.named_parameters())


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), r"0 \(ParametrizedLinear\) computes it"),
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)), "ParametrizedConv2d.*remove_param"),
        (nn.LazyConv2d(3, 1), "LazyConv2d.*has none before"),
    ],
    ids=["weight norm", "spectral norm", "lazy"],
)
def test_layers_without_a_weight_of_their_own_are_refused(layer: nn.Module, said: str) -> None:
    with pytest.raises(LegalityError, match=said):
        trace(nn.Sequential(layer))
