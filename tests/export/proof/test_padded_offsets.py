"""Codes with an offset before zero padding, as in EfficientNet and MobileNetV3: integers on both targets."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.numerics.layers import QuantConv2d
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Override
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.tensorrt import TensorRtGraphs, tensorrt_comparisons
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import CLASSES, Lowered, policy, quantized, smooth_images
from tests.export.onnx_models import session
from tests.export.photos import photos
from tests.quant.networks import Swish

SIDE = 8
TARGETS = ("onnxruntime", "tensorrt")


def trained(model: nn.Module, bits: int, images: Tensor, kind: str = "saq") -> Lowered:
    """A few steps of training, the last in the deploy stage, then the whole way to ONNX."""
    activation = ActivationQuantizer.model_validate({"bits": bits, "kind": kind, "offset": "bounded"})
    *_, name = (name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    last = Override(match=name, weight_bits=bits, activation_bits=bits)
    quant = policy(bits, bits, activation=activation, overrides=(last,))
    network, plan = quantized(model, quant, images, targets=TARGETS)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    labels = torch.arange(len(images)) % 5
    for step in range(3):
        if step == 2:
            fold_batch_norm(network)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network.train()(images), labels).backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        optimizer.step()
    return Lowered(network, plan, deploy_view(network.eval(), Deploy()), images)


@cache
def small(bits: int, kind: str = "saq") -> Lowered:
    torch.manual_seed(0)
    return trained(Swish(), bits, smooth_images(8, SIDE), kind)


def assert_proved(found: Lowered, images: Tensor) -> None:
    """Every comparison of both targets passes, none with a code that differs but at a tie of float32."""
    _, channels, height, width = images.shape
    shape = (channels, height, width)
    batches, ties = torch.split(images, 2), tie_images(found.view, shape)
    graphs = TensorRtGraphs(export_tensorrt(found.view, shape), None)
    comparisons = [
        *code_comparisons(found.view, found.graph, batches, ties),
        *tensorrt_comparisons(found.view, found.graph, graphs, batches, ties),
    ]
    for comparison in comparisons:
        print(
            f"{comparison.name}: {comparison.compared:,} compared, {comparison.mismatches} differ; "
            f"{comparison.detail}"
        )
        assert comparison.passed and not comparison.mismatches, comparison
        assert comparison.compared > 0


def assert_integer(found: Lowered) -> None:
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert kernels.integer == kernels.total == len(found.plan.layers), kernels.by_op


@pytest.mark.parametrize(("bits", "kind"), [(4, "saq"), (8, "saq"), (3, "lsq")])
def test_no_code_differs_and_every_layer_is_an_integer_kernel(bits: int, kind: str) -> None:
    found = small(bits, kind)
    assert sum(tensor.counts_from_zero for tensor in found.plan.tensors) == 2
    assert_proved(found, smooth_images(4, SIDE, seed=1))
    assert_integer(found)


@pytest.mark.parametrize("place", [0.3, -1.3])
def test_wherever_the_offset_lies(place: float) -> None:
    """Above zero and so far below that zero lies above the grid, the padding is its first or last code."""
    torch.manual_seed(0)
    found = trained(Swish(), 4, smooth_images(8, SIDE))
    for name in ("act", "hardswish"):
        quantizer = found.network.get_submodule(f"quantizers.{name}")
        assert isinstance(quantizer, Quantizer) and quantizer.beta is not None
        quantizer.beta.data.copy_(quantizer.alpha.data * place)
    found = replace(found, view=deploy_view(found.network, Deploy()))
    deployed = found.view.get_submodule("quantizers.act")
    assert isinstance(deployed, Quantize)
    assert deployed.zero_point == min(max(-round(15 * place), 0), 15)
    assert_proved(found, smooth_images(4, SIDE, seed=1))
    assert_integer(found)


def test_the_border_of_a_deployed_convolution_is_that_of_the_padded_image() -> None:
    """Against the layer that is given zeros around its float input, and pads nothing itself."""
    found = small(4)
    layer = found.network.get_submodule("depthwise")
    quantizer = found.network.get_submodule("quantizers.act")
    assert isinstance(layer, QuantConv2d) and isinstance(quantizer, Quantizer)
    with torch.no_grad():
        x = nn.functional.silu(torch.randn(2, 6, 5, 5))
        deployed = found.view.get_submodule("depthwise")
        quantize = found.view.get_submodule("quantizers.act")
        assert isinstance(quantize, Quantize)
        offset = found.view.get_buffer("quantizers_act_offset")
        codes = (quantize(x - offset).float() - quantize.zero_point) * quantize.scale
        padded = quantizer(nn.functional.pad(x, (1, 1, 1, 1)))
        expected = nn.functional.conv2d(padded, layer.quantized_weight(), layer.bias, groups=6)
        step = float(deployed.get_buffer("bias_scale").max())
        assert (deployed(codes) - expected).abs().max() <= step


def test_padding_is_the_zero_point_of_an_integer_convolution(tmp_path: Path) -> None:
    found = small(4)
    session(found.graph.content, str(tmp_path / "optimized.onnx"))
    model = onnx.load(tmp_path / "optimized.onnx")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zero_points = [
        int(constants[node.input[2]])
        for node in model.graph.node
        if node.op_type == "QLinearConv" and "depthwise" in node.name
    ]
    quantize = found.view.get_submodule("quantizers.act")
    assert isinstance(quantize, Quantize) and quantize.zero_point > 0
    assert zero_points == [quantize.zero_point]


@pytest.mark.slow  # networks of full size
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0"])
def test_networks_that_are_made_of_this_are_exact(name: str, bits: int) -> None:
    models = pytest.importorskip("torchvision.models")  # their activations are the subject
    torch.manual_seed(0)
    found = trained(getattr(models, name)(num_classes=CLASSES), bits, photos(8, 64))
    assert any(tensor.counts_from_zero for tensor in found.plan.tensors)
    assert_proved(found, photos(4, 64, seed=1))
    assert_integer(found)
