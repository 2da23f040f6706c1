"""Networks that are right and were once called wrong: the proof passes, and planned layers are integer."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, TensorRt
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.function import function_comparison
from saq_qat_export.proof.tensorrt import TensorRtGraphs, tensorrt_comparisons
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import (
    CLASSES,
    SIDE,
    Head,
    Lowered,
    Small,
    conv_block,
    lower,
    policy,
    quantized,
    smooth_images,
)

SHAPE = (3, SIDE, SIDE)


def assert_proved(found: Lowered) -> None:
    images, ties = smooth_images(2, SIDE, seed=1), tie_images(found.view, SHAPE, 1)
    single = export_tensorrt(found.view, SHAPE, TensorRt(precision="float32"))
    comparisons = [
        function_comparison(found.network, found.view, [images]),
        *code_comparisons(found.view, found.graph, [images], ties),
        *tensorrt_comparisons(found.view, found.graph, TensorRtGraphs(single), [images], ties),
    ]
    assert [
        f"{comparison.name}: {comparison.detail}" for comparison in comparisons if not comparison.passed
    ] == []


class Clipped(nn.Module):
    """A clipping whose bounds are its own, between a convolution and codes."""

    def __init__(self, clipping: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.first, self.second = conv_block(3, 8), nn.Conv2d(8, 8, 3, 1, 1), conv_block(8, 8, 1)
        self.clipping, self.head = clipping, Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.second(self.clipping(self.first(self.stem(x))))))


@pytest.mark.parametrize(
    ("clipping", "bits"),
    [(lambda x: torch.clamp(x, -0.3, 0.7), 4), (nn.Hardtanh(-0.5, 2.0), 8)],
    ids=["clamp", "hardtanh"],
)
def test_a_clipping_that_does_not_start_at_0_is_no_difference_of_bounds(
    clipping: Callable[[Tensor], Tensor], bits: int
) -> None:
    torch.manual_seed(0)
    targets = ("onnxruntime", "tensorrt")
    assert_proved(lower(Clipped(clipping), policy(bits, bits), smooth_images(8, SIDE), targets=targets))


@pytest.mark.parametrize("bits", [4, 8])
def test_values_on_the_bounds_of_a_clipping_with_an_offset_are_no_difference_of_functions(bits: int) -> None:
    """The value of zero is a small difference of offset and codes, which float32 rounds."""
    torch.manual_seed(0)
    activation = ActivationQuantizer(kind="saq", bits=bits, offset="signed")
    found = lower(
        Clipped(nn.Hardtanh(-1, 1)), policy(bits, bits, activation=activation), smooth_images(8, SIDE)
    )
    images = smooth_images(2, SIDE, seed=1)
    comparison = function_comparison(found.network, found.view, [images])
    assert comparison.passed, comparison.detail


def test_a_channel_of_almost_no_gain_has_a_bias_that_float32_does_not_tell_from_its_neighbours() -> None:
    """Between 2^24 and 2^30 units: kept as an integer, and stated as a float for TensorRT."""
    torch.manual_seed(0)
    images, targets = smooth_images(8, SIDE), ("onnxruntime", "tensorrt")
    network, plan = quantized(Small(), policy(4, 4), images, targets=targets)
    norm = cast(nn.BatchNorm2d, network.get_submodule("branch.0.1"))
    norm.weight.data[2], norm.bias.data[2] = 5e-6, 0.37
    view = deploy_view(network, Deploy())
    assert 2**24 < int(cast(IntegerLayer, view.get_submodule("branch.0.0")).bias.abs().max()) < 2**30
    assert_proved(Lowered(network, plan, view, images))


class ReluBehindLinear(nn.Module):
    """ReLUs behind linear layers whose results no quantizer reads: a LayerNorm does, and nothing does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 8, stride=4)
        self.first, self.norm, self.last = nn.Linear(128, 16), nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.last(self.norm(F.relu(self.first(self.stem(x).flatten(1))))))


@pytest.mark.parametrize("placement", ["deploy", "paper"])
def test_a_relu_behind_a_linear_layer_leaves_it_an_integer_kernel(placement: str) -> None:
    torch.manual_seed(0)
    found = lower(ReluBehindLinear(), policy(4, 4, placement=placement), smooth_images(8, SIDE))
    assert_proved(found)
    count = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert count.by_op.get("QGemm", 0) == 2 and "FusedGemm" not in count.by_op
