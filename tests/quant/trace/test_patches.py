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


@pytest.mark.parametrize("side", [5, 6])
def test_where_patches_overlap_they_are_added(side: int) -> None:
    model = Folds((side, side), kernel_size=3, stride=2, padding=1)
    images = torch.randn(3, 2, side, side)
    torch.testing.assert_close(trace(model, (2, side, side))(images), model(images))
