"""Rules for sizes: what torch gives, by running it and by its fake tensors."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from saq_qat.models.resnet_cifar import resnet20
from saq_qat.quant.trace import sizes
from saq_qat.quant.trace.size_rules import META, size_rule
from saq_qat.quant.trace.sizes import shapes_of
from saq_qat.quant.trace.tracer import ImageTracer


def of_layer(layer: nn.Module, x: Tensor) -> Any:
    graph = fx.Graph()
    node = graph.call_module("layer", (graph.placeholder("x"),))
    return size_rule(nn.ModuleDict({"layer": layer}), node)(x.to(META))


def of_call(function: Callable[..., Any], *terms: Any, **named: Any) -> Any:
    node = fx.Graph().call_function(function)
    valueless = [term.to(META) if isinstance(term, Tensor) else term for term in terms]
    return size_rule(nn.Module(), node)(*valueless, **named)


def assert_alike(found: Any, expected: Tensor) -> None:
    assert found.device == META
    assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
images = st.tuples(st.integers(1, 3), st.just(4), st.integers(5, 12), st.integers(5, 12))


@settings(max_examples=60, deadline=None)
@given(
    images, pairs, pairs, st.tuples(st.integers(0, 2), st.integers(0, 2)), pairs, st.sampled_from([1, 2, 4])
)
def test_a_convolution_gives_what_torch_gives(
    shape: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    x, layer = torch.zeros(shape), nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)
    try:
        expected = layer(x)
    except RuntimeError:
        assert of_layer(layer, x) is NotImplemented
    else:
        assert_alike(of_layer(layer, x), expected)


@settings(max_examples=60, deadline=None)
@given(
    images, st.integers(1, 4), st.none() | st.integers(1, 4), st.integers(0, 2), st.booleans(), st.booleans()
)
def test_pools_give_what_torch_gives(
    shape: Any, kernel: int, stride: int | None, padding: int, round_up: bool, largest: bool
) -> None:
    padding = min(padding, kernel // 2)
    kind: Any = nn.MaxPool2d if largest else nn.AvgPool2d
    layer, x = kind(kernel, stride, padding, ceil_mode=round_up), torch.zeros(shape)
    assert_alike(of_layer(layer, x), layer(x))


IMAGE, TOKENS = torch.zeros(2, 4, 6, 5), torch.zeros(2, 7, 4)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(4, 3), TOKENS),
        (nn.LayerNorm(4), TOKENS),
        (nn.GELU(), TOKENS),
        (nn.ReLU6(), IMAGE),
        (nn.BatchNorm2d(4), IMAGE),
        (nn.BatchNorm2d(4), IMAGE.to(memory_format=torch.channels_last)),
        (nn.Dropout(0.5), IMAGE),
        (nn.Flatten(), IMAGE),
        (nn.AdaptiveAvgPool2d(1), IMAGE),
        (nn.AdaptiveAvgPool2d((None, 2)), IMAGE),
    ],
)
def test_layers_give_what_torch_gives(layer: nn.Module, x: Tensor) -> None:
    assert_alike(of_layer(layer, x), layer(x))


@pytest.mark.parametrize(
    ("function", "terms", "named"),
    [
        (operator.add, (IMAGE, torch.zeros(4, 1, 5)), {}),
        (operator.mul, (2, TOKENS), {}),
        (operator.mul, (2, 3), {}),
        (torch.add, (IMAGE, IMAGE), {}),
        (torch.cat, ([IMAGE.to(META), torch.zeros(2, 1, 6, 5, device=META)], 1), {}),
        (F.relu, (IMAGE,), {"inplace": True}),
        (F.adaptive_avg_pool2d, (IMAGE, (1, 1)), {}),
        (torch.flatten, (IMAGE, 1), {}),
        (operator.getitem, (IMAGE, (slice(None), 0)), {}),
        (operator.getitem, ((1, 2), 0), {}),
    ],
)
def test_functions_give_what_torch_gives(
    function: Callable[..., Any], terms: tuple[Any, ...], named: dict[str, Any]
) -> None:
    expected = function(*terms, **named)
    found = of_call(function, *terms, **named)
    if isinstance(expected, Tensor):
        assert_alike(found, expected)
    else:
        assert found == expected


class Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)[:, :1]


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Own(4, 8, 1), IMAGE),
        (nn.Conv2d(4, 8, 3, padding="same"), IMAGE),
        (nn.Conv2d(4, 8, 1), IMAGE.to(memory_format=torch.channels_last)),
        (nn.Conv2d(4, 8, 1), IMAGE.double()),
        (nn.Conv2d(3, 8, 1), IMAGE),
        (nn.MaxPool2d(2, return_indices=True), IMAGE),
        (nn.Linear(5, 3), TOKENS),
        (nn.Softmax(1), IMAGE),
    ],
)
def test_what_is_not_certain_is_left_to_torch(layer: nn.Module, x: Tensor) -> None:
    assert of_layer(layer, x) is NotImplemented


@pytest.mark.parametrize(
    ("function", "terms"),
    [
        (operator.add, (IMAGE, IMAGE.double())),
        (operator.iadd, (torch.zeros(4, 1, 5), IMAGE)),
        (operator.add, (IMAGE.to(memory_format=torch.channels_last), IMAGE)),
        (operator.getitem, (IMAGE, torch.tensor([0]))),
        (torch.cat, ([IMAGE.to(META), TOKENS.to(META)],)),
        (getattr, (IMAGE, "device")),
        (torch.zeros, (3,)),
    ],
)
def test_calls_that_are_not_certain_are_left_to_torch(
    function: Callable[..., Any], terms: tuple[Any, ...]
) -> None:
    assert of_call(function, *terms) is NotImplemented


def noted(model: nn.Module) -> list[Any]:
    """Name, shapes, types and strides of every node."""
    graph = ImageTracer((3, 32, 32)).trace(model.eval())
    pairs = ((node.name, shapes_of(node)) for node in graph.nodes if node.op != "output")
    return [(name, [(v.shape, v.dtype, v.stride()) for v in pair or ()]) for name, pair in pairs]


def test_a_network_of_rules_alone_has_the_sizes_that_fake_tensors_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = resnet20(10)
    with monkeypatch.context() as patch:
        patch.setattr(sizes, "Fakes", lambda: pytest.fail("no rule for an operation of a plain network"))
        found = noted(model)
    monkeypatch.setattr(sizes, "size_rule", lambda *_: lambda *_, **__: NotImplemented)
    assert found == noted(model)
    assert all(pair for _, pair in found)
