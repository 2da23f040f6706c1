"""A QDQ file read as integers equals the integer reference, and node by node what ONNX says of codes."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.proof.codes import tie_images
from saq_qat_export.proof.probe import Probe
from saq_qat_export.reference.deploy_view import run_reference, tensor_name
from saq_qat_export.reference.integer_math import CodeRange
from saq_qat_export.reference.qdq_operators import call
from saq_qat_export.reference.qdq_reference import read_qdq
from tests.export.networks import SIDE, Lowered, built_in, small, smooth_images
from tests.export.onnx_models import Array
from tests.export.photos import photos
from tests.export.qdq_models import SIMPLE, activation_model, model_of, quantizer


def zero_points(found: Lowered) -> dict[str, int]:
    modules = found.view.named_modules()
    return {tensor_name(name): m.zero_point for name, m in modules if isinstance(m, Quantize)}


def assert_reads_as_reference(found: Lowered, images: Array) -> None:
    """Both graphs, free and taught by ONNX Runtime; codes, bounds and logits."""
    offsets = zero_points(found)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    engine, _ = Probe(found.graph).run(images)
    taught = {name: stored.astype(np.int32) - offsets[name] for name, stored in engine.items()}
    free, forced = run_reference(found.view, images), run_reference(found.view, images, engine)
    for content in (found.graph.content, export_tensorrt(found.view, shape).content):
        for expected, codes in ((free, None), (forced, taught)):
            reading = read_qdq(content, images, codes, offsets)
            assert reading.tensors.keys() == expected.codes.keys()
            for name, stored in expected.codes.items():
                np.testing.assert_array_equal(reading.tensors[name].codes, stored - np.int32(offsets[name]))
            np.testing.assert_array_equal(reading.logits, expected.logits)
            assert not reading.rescaled


@pytest.mark.parametrize("bits", [(2, 2), (4, 4), (8, 8)], ids=str)
def test_every_pattern_reads_as_the_integer_reference(bits: tuple[int, int]) -> None:
    found = small(*bits)
    assert_reads_as_reference(found, smooth_images(4, SIDE, seed=1).numpy())
    assert_reads_as_reference(found, tie_images(found.view, (3, SIDE, SIDE)).numpy())


@pytest.mark.slow  # three networks at five bit-widths
@pytest.mark.parametrize("bits", [(2, 2), (3, 3), (4, 4), (4, 8), (8, 8)], ids=str)
@pytest.mark.parametrize(("name", "side"), [("resnet20", 32), ("resnet18", 64), ("mobilenet_v2", 64)])
def test_built_in_networks_read_as_the_integer_reference(name: str, side: int, bits: tuple[int, int]) -> None:
    assert_reads_as_reference(built_in(name, *bits, side), photos(4, side, seed=1).numpy())


def test_the_layers_of_a_file_are_those_of_the_view() -> None:
    found = small()
    reading = read_qdq(found.graph.content, smooth_images(1, SIDE).numpy())
    layer = found.view.get_submodule("branch.0.0")
    operands = reading.layers["branch.0.0.weight"]
    np.testing.assert_array_equal(operands.weight, layer.weight.numpy())  # type: ignore[operator]  # torch: Tensor or Module
    np.testing.assert_array_equal(operands.bias, layer.bias.numpy())  # type: ignore[operator]  # torch: Tensor or Module
    assert reading.tensors["relu.codes"].range == CodeRange(0, 15)


IMAGES = np.linspace(-20, 20, 64, dtype=np.float32).reshape(2, 2, 4, 4)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_clips_of_codes_and_zero_points_of_either_type(dtype: type[np.generic]) -> None:
    zero = np.asarray(7, dtype)
    clip = helper.make_node("Clip", ["q.codes", "low", "high"], ["q.clipped"])
    bounds = {"low": np.asarray(2, dtype), "high": np.asarray(100, dtype), "q_zero": zero}
    reading = read_qdq(activation_model([clip], bounds, stored="q.clipped"), IMAGES)
    codes = np.clip(np.rint(IMAGES / np.float32(0.1)), -5, 93).astype(np.int32)
    assert list(reading.tensors) == ["q.clipped"]
    assert reading.tensors["q.clipped"].range == CodeRange(-5, 93)
    np.testing.assert_array_equal(reading.tensors["q.clipped"].codes, codes)
    np.testing.assert_array_equal(reading.logits, codes.astype(np.float32) * np.float32(0.1))


CARRIERS: dict[str, tuple[onnx.NodeProto, Callable[[Array], Array]]] = {
    "transpose": (
        helper.make_node("Transpose", ["q.codes"], ["moved"], perm=[0, 2, 3, 1]),
        lambda x: x.transpose(0, 2, 3, 1),
    ),
    "flatten": (helper.make_node("Flatten", ["q.codes"], ["moved"]), lambda x: x.reshape(2, -1)),
    "max pool": (
        helper.make_node("MaxPool", ["q.codes"], ["moved"], kernel_shape=[2, 2], strides=[2, 2]),
        lambda x: x.reshape(2, 2, 2, 2, 2, 2).max(axis=(3, 5)),
    ),
}


@pytest.mark.parametrize("name", CARRIERS)
def test_codes_move_before_and_after_dequantizing(name: str) -> None:
    node, move = CARRIERS[name]
    codes = np.clip(np.rint(IMAGES / np.float32(0.1)), -128, 127).astype(np.int32)
    before = read_qdq(activation_model([node], {}, stored="moved"), IMAGES)
    np.testing.assert_array_equal(before.logits, move(codes).astype(np.float32) * np.float32(0.1))
    after = onnx.NodeProto.FromString(node.SerializeToString())
    after.input[0], after.output[0] = "q", "logits"
    model = model_of([*quantizer("image", "q"), after], SIMPLE, ("N", 2, 4, 4))
    np.testing.assert_array_equal(read_qdq(model, IMAGES).logits, before.logits)


def test_codes_that_no_dequantizer_reads_have_no_meaning() -> None:
    node = helper.make_node("Cast", ["q.codes"], ["wide"], to=TensorProto.FLOAT)
    model = model_of([quantizer("image", "q")[0], node], SIMPLE, ("N", 2, 4, 4))
    with pytest.raises(
        ArtifactError, match=r"q.codes: codes are read by an operator without integer meaning"
    ):
        read_qdq(model, IMAGES)


def test_other_operators_compute_in_float32_on_dequantized_values() -> None:
    nodes = [*quantizer("image", "q"), helper.make_node("Sigmoid", ["q"], ["s"]), *quantizer("s", "y")]
    nodes.append(helper.make_node("Identity", ["y"], ["logits"]))
    constants = SIMPLE | {"y_scale": np.float32(1 / 127), "y_zero": np.int8(0)}
    reading = read_qdq(model_of(nodes, constants, ("N", 2, 4, 4)), IMAGES)
    values = reading.tensors["q.codes"].codes * np.float32(0.1)
    expected = np.rint(1 / (1 + np.exp(-values.astype(np.float64))) / np.float32(1 / 127))
    np.testing.assert_array_equal(reading.tensors["y.codes"].codes, expected)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_samples_of_a_grid_are_torchs(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, grid = (
        torch.randn(2, 3, 5, 6, generator=generator),
        torch.rand(2, 4, 4, 2, generator=generator) * 2 - 1,
    )
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode)
    (found,) = call(node, {"x": x.numpy(), "grid": grid.numpy()}, {"": 19})
    expected = F.grid_sample(x, grid, mode, align_corners=False)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_what_is_taught_reaches_later_nodes_alone() -> None:
    found = small()
    images = smooth_images(2, SIDE, seed=1).numpy()
    own = read_qdq(found.graph.content, images)
    zeros = {"stem_2.codes": np.zeros_like(own.tensors["stem_2.codes"].codes)}
    taught = read_qdq(found.graph.content, images, zeros)
    np.testing.assert_array_equal(taught.tensors["stem_2.codes"].codes, own.tensors["stem_2.codes"].codes)
    assert not taught.tensors["pool.codes"].codes.any()


def test_dequantizers_that_rescale_are_noted() -> None:
    last = helper.make_node("DequantizeLinear", ["q.codes", "other", "q_zero"], ["logits"])
    model = model_of([quantizer("image", "q")[0], last], SIMPLE | {"other": np.float32(0.2)}, ("N", 2, 4, 4))
    reading = read_qdq(model, IMAGES)
    assert reading.rescaled == ("logits",)
    np.testing.assert_array_equal(
        reading.logits, reading.tensors["q.codes"].codes.astype(np.float32) * np.float32(0.2)
    )
