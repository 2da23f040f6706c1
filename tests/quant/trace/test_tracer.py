"""Tracing: what follows training and evaluation stays one node; optional inputs keep their defaults."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import swin_transformer
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import StochasticDepth

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.tracer import trace


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x) if self.training else x


class Norm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, image: Tensor, mask: Tensor | None = None, double: bool = False) -> Tensor:
        x = self.linear(image if mask is None else image * mask)
        return x + x if double else x  # type: ignore[no-any-return]  # modules return Any


class Pair(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


@pytest.mark.parametrize("module", [Noise(), StochasticDepth(0.5, "row")])
@pytest.mark.parametrize("training", [True, False])
def test_modules_that_depend_on_the_mode_follow_it_after_tracing(module: nn.Module, training: bool) -> None:
    traced = trace(nn.Sequential(nn.Linear(4, 4), module).train(training))
    image = torch.randn(64, 4)
    assert torch.equal(traced.eval()(image), traced(image))
    assert not torch.equal(traced.train()(image), traced(image))


def test_a_layer_norm_is_one_node_whoever_wrote_it() -> None:
    traced = trace(nn.Sequential(nn.Linear(4, 4), Norm(4)))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]


def test_optional_inputs_keep_their_defaults() -> None:
    network = Optional()
    traced = trace(network)
    assert sum(node.op == "placeholder" for node in traced.graph.nodes) == 1
    assert torch.equal(traced(torch.ones(1, 4)), network(torch.ones(1, 4)))


def test_a_second_input_is_refused() -> None:
    with pytest.raises(LegalityError, match="second"):
        trace(Pair())


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.chunk(3, dim=-1),
        lambda x: torch.chunk(x, chunks=3, dim=-1),
        lambda x: x.split([2, 3, 1], dim=-1),
        lambda x: torch.split(x, split_size_or_sections=[2, 2, 2], dim=-1),
    ],
)
def test_parts_of_a_tensor_can_be_looped_over(cut: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    class Loops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([part * index for index, part in enumerate(cut(x))], -1)

    x = torch.randn(2, 6)
    assert torch.equal(trace(Loops())(x), Loops()(x))


def test_parts_of_unknown_number_cannot() -> None:
    class Loops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([part * 2 for part in x.unbind(0)])

    with pytest.raises(LegalityError, match="cannot be traced"):
        trace(Loops())


class InPlace(nn.Module):
    """A convolution whose result something overwrites."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.relu, self.kind = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), kind

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.kind == "function":
            F.relu(y, inplace=True)
        elif self.kind == "method":
            y.relu_()
        elif self.kind == "layer":
            self.relu(y)
        elif self.kind == "alias":
            return y.mul_(2) + y.mean()
        else:
            y = self.relu(y)
            y += 1
        return y


@pytest.mark.parametrize("kind", ["function", "method", "layer", "alias"])
def test_what_overwrites_a_tensor_that_is_read_on_is_refused(kind: str) -> None:
    with pytest.raises(LegalityError, match=r"overwrites conv in place, and .*write x = relu\(x\)"):
        trace(InPlace(kind))


def test_what_works_in_place_on_a_value_of_its_own_is_traced() -> None:
    model, images = InPlace("own").eval(), torch.randn(2, 3, 8, 8)
    assert torch.equal(trace(model).eval()(images), model(images))


@pytest.mark.parametrize("name", ["SwinTransformerBlock", "SwinTransformerBlockV2"])
def test_window_attention_of_torchvision_is_traced_through(name: str) -> None:
    """It is marked to be recorded whole, where its layers could get no quantizers."""
    model = SwinTransformer(
        [4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=3, block=getattr(swin_transformer, name)
    ).eval()
    network = trace(model, (3, 32, 32))
    functions = {getattr(node.target, "__name__", "") for node in network.graph.nodes}
    assert "shifted_window_attention" not in functions and "softmax" in functions
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(x), model(x))
