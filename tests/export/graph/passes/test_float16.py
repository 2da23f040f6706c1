"""A graph in float16 keeps its codes, its weights and its interface; what float16 cannot hold is refused."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from saq_qat.errors import LegalityError
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.graph.passes.float16 import to_float16
from tests.export.networks import SIDE, small, smooth_images
from tests.export.onnx_models import Array
from tests.export.qdq_models import SIMPLE, model_of, quantizer, weights


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    rewritten = ir.from_proto(model)
    to_float16(rewritten)
    proto = ir.to_proto(rewritten)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@cache
def graphs() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The small network for TensorRT, in float32 and in float16."""
    model = onnx.load_from_string(export_tensorrt(small().view, (3, SIDE, SIDE)).content)
    return model, halved(model)


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_images_and_logits_stay_float32_and_so_does_the_opset() -> None:
    single, half = graphs()
    for entries in (half.graph.input, half.graph.output):
        assert [entry.type.tensor_type.elem_type for entry in entries] == [TensorProto.FLOAT]
    assert [entry.name for entry in half.graph.output] == ["logits"]
    assert half.opset_import == single.opset_import


def test_integer_tensors_are_the_same_bytes() -> None:
    single, half = (constants(model) for model in graphs())
    integers = {name: array for name, array in single.items() if array.dtype.kind != "f"}
    assert {"stem.0.weight", "head.fc.weight"} <= integers.keys()
    for name, array in integers.items():
        assert half[name].tobytes() == array.tobytes()


def test_every_float_constant_is_rounded_once() -> None:
    single, half = (constants(model) for model in graphs())
    for name, array in single.items():
        if array.dtype == np.float32:
            assert half[name].dtype == np.float16
            np.testing.assert_array_equal(half[name], array.astype(np.float16))


def test_the_image_and_its_codes_share_one_grid() -> None:
    _, half = graphs()
    stated = constants(half)
    nodes = {node.output[0]: node for node in half.graph.node}
    written = stated[nodes["image.codes"].input[1]]
    read = stated[nodes["image.values"].input[1]]
    assert (written.dtype.name, read.dtype.name) == ("float32", "float16")
    assert written == read.astype(np.float32)
    others = [node for node in half.graph.node if node.op_type == "QuantizeLinear"][1:]
    assert {stated[node.input[1]].dtype.name for node in others} == {"float16"}


def test_two_rewrites_are_the_same_bytes_and_answer_alike() -> None:
    single, half = graphs()
    assert halved(single).SerializeToString(deterministic=True) == half.SerializeToString(deterministic=True)
    images = smooth_images(8, SIDE, seed=1).numpy()
    answers = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"image": images}
        )[0]
        for model in (single, half)
    ]
    assert answers[1].dtype == np.float32
    np.testing.assert_allclose(answers[1], answers[0], atol=0.1 * float(np.abs(answers[0]).max()))


def little(changes: dict[str, Any], *, extra: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """A quantized product of two features, with ``changes`` of its constants."""
    product = helper.make_node("Gemm", ["q", "w_value", "b"], ["logits"], transB=1)
    stated = {**SIMPLE, "b": np.zeros(3, np.float32), **changes}
    model = model_of([*quantizer("image", "q"), weights(), *(extra or []), product], stated, ("N", 2))
    model.graph.output[0].type.tensor_type.shape.CopyFrom(
        helper.make_tensor_value_info("", TensorProto.FLOAT, ("N", 3)).type.tensor_type.shape
    )
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_scale": np.float32(1e-5)}, "q_scale: float16 holds scales of 6.1e-05 to 65504; got 9.9"),
        ({"q_scale": np.float32(1e-9)}, "q_scale: float16 holds scales"),
        ({"q_scale": np.float32(7e4)}, "q_scale: float16 holds scales"),
        ({"w_scale": np.array([0.5, 1e-5, 0.1], np.float32)}, "w_scale: .* got 9.9"),
        ({"b": np.array([0, 1e5, 0], np.float32)}, "b: float16 holds numbers of 0 to 65504; got 100000.0"),
    ],
)
def test_what_float16_cannot_hold_is_refused_with_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LegalityError, match=message + r".* Set deploy\.tensorrt\.precision: float32\."):
        halved(little(changes))


def test_small_biases_may_vanish() -> None:
    assert not constants(halved(little({"b": np.full(3, 1e-9, np.float32)})))["b"].any()


@given(st.integers(1, 4), st.integers(-7, 7), st.floats(2**-18, 2**-15, width=32))
def test_a_power_of_two_moves_from_codes_to_a_scale_too_small(power: int, code: int, scale: float) -> None:
    """The weights stay what they are up to one rounding of their scales; all of one layer move together."""
    codes = np.array([[2 * code + 1, 3], [-5, 1], [0, 0]], np.int8) * np.int8(2**power)
    scales = np.array([scale, 0.25, 1e-9], np.float32)
    model = little({"w": codes, "w_scale": scales})
    if scale * 2**power < np.finfo(np.float16).smallest_normal:
        with pytest.raises(LegalityError, match="w_scale"):
            halved(model)
        return
    found = constants(halved(model))
    np.testing.assert_array_equal(found["w"].astype(np.int64) * 2**power, codes)
    np.testing.assert_array_equal(found["w_scale"][:2], (scales[:2] * 2**power).astype(np.float16))
    assert found["w_scale"][2] == 1


def test_weights_whose_scales_fit_are_not_touched() -> None:
    codes = np.array([[8, 16], [24, -8], [0, 8]], np.int8)
    np.testing.assert_array_equal(constants(halved(little({"w": codes})))["w"], codes)


def float_case(
    nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], stated: dict[str, Any]
) -> onnx.ModelProto:
    model = model_of(nodes, stated, shape)
    return onnx.shape_inference.infer_shapes(model)


FLOAT_OPERATORS: dict[str, Callable[[], onnx.ModelProto]] = {
    "a convolution that reads the image": lambda: float_case(
        [helper.make_node("Conv", ["image", "kernel"], ["logits"])],
        ("N", 1, 4, 4),
        {"kernel": np.ones((1, 1, 3, 3), np.float32)},
    ),
    "a constant node": lambda: float_case(
        [
            helper.make_node(
                "Constant", [], ["half"], value=helper.make_tensor("", TensorProto.FLOAT, [], [0.5])
            ),
            helper.make_node("Mul", ["image", "half"], ["logits"]),
        ],
        ("N", 2),
        {},
    ),
    "a cast": lambda: float_case(
        [
            helper.make_node("Greater", ["image", "zero"], ["mask"]),
            helper.make_node("Cast", ["mask"], ["ones"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["image", "ones"], ["logits"]),
        ],
        ("N", 2),
        {"zero": np.float32(0)},
    ),
    "a resize": lambda: float_case(
        [helper.make_node("Resize", ["image", "", "factors"], ["logits"], mode="nearest")],
        ("N", 1, 2, 2),
        {"factors": np.array([1, 1, 2, 2], np.float32)},
    ),
}


@pytest.mark.parametrize("name", FLOAT_OPERATORS)
def test_float_operators_run_in_float16(name: str) -> None:
    model = FLOAT_OPERATORS[name]()
    shape = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    images = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 3
    answers = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"image": images}
        )[0]
        for m in (model, halved(model))
    ]
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-3)
