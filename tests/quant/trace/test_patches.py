"""Patches cut out and put together: the same numbers as unfold and fold, without either."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saq_qat.quant.trace.tracer import trace

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


class Unfolds(nn.Module):
    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        return F.unfold(x, **self.given)


class Folds(nn.Module):
    def __init__(self, side: tuple[int, int], **given: Any) -> None:
        super().__init__()
        self.cut, self.join = nn.Unfold(**given), nn.Fold(side, **given)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.join(self.cut(x) * 1.5)
        return joined


@settings(max_examples=40, deadline=None)
@given(kernel=PAIR, stride=PAIR, dilation=PAIR, padding=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_patches_are_those_of_torch(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], padding: tuple[int, int]
) -> None:
    image = (2, 7, 9)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = zip(image[1:], padding, spans, strict=True)
    assume(all(size + 2 * pad >= span for size, pad, span in sizes))
    settings_ = {"kernel_size": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    images = torch.randn(2, *image)
    for model in (Unfolds(**settings_), Folds(image[1:], **settings_)):
        network = trace(model, image)
        assert not any("unfold" in str(node.target) or node.target is F.fold for node in network.graph.nodes)
        torch.testing.assert_close(network(images), model(images))


def test_patches_side_by_side_are_moved_and_no_more() -> None:
    network = trace(Unfolds(kernel_size=4, stride=4), (3, 8, 12))
    assert {node.target for node in network.graph.nodes if node.op == "call_method"} == {"reshape", "permute"}


def test_patches_that_are_joined_as_they_were_cut_are_written_out_too() -> None:
    class JoinsAtOnce(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2)

    network, images = trace(JoinsAtOnce(), (2, 8, 8)), torch.randn(3, 2, 8, 8)
    assert not any(node.target in (F.fold, F.unfold) for node in network.graph.nodes)
    torch.testing.assert_close(network(images), images)


@pytest.mark.parametrize("side", [5, 6])
def test_where_patches_overlap_they_are_added(side: int) -> None:
    model = Folds((side, side), kernel_size=3, stride=2, padding=1)
    images = torch.randn(3, 2, side, side)
    torch.testing.assert_close(trace(model, (2, side, side))(images), model(images))


@pytest.mark.parametrize(
    "given",
    [
        {"size": (5, 11), "mode": "bicubic"},
        {"size": 4, "mode": "bicubic", "align_corners": True},
        {"scale_factor": 1.7, "mode": "bicubic"},
        {"scale_factor": (2, 0.5), "mode": "bicubic", "recompute_scale_factor": True},
        {"size": (3, 4), "mode": "bilinear", "antialias": True},
        {"size": (3, 4), "mode": "bicubic", "antialias": True, "align_corners": False},
    ],
)
def test_resizing_is_two_products_of_matrices(given: dict[str, Any]) -> None:
    class Resizes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, **given)

    network, images = trace(Resizes(), (2, 7, 9)), torch.randn(3, 2, 7, 9)
    assert not any(node.target is F.interpolate for node in network.graph.nodes)
    torch.testing.assert_close(network(images), Resizes()(images))


def test_a_bicubic_upsampling_layer_is_written_out() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Upsample(scale_factor=2, mode="bicubic"))
    network, images = trace(model, (2, 4, 5)), torch.randn(2, 2, 4, 5)
    assert [str(node.target) for node in network.graph.nodes if node.op == "call_module"] == ["0"]
    torch.testing.assert_close(network(images), model(images))
