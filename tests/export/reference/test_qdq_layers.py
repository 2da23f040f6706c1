"""Convolutions and products of a QDQ file equal integers counted in plain loops; odd operands are refused."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper

from saq_qat.errors import ArtifactError
from saq_qat_export.reference.qdq_layers import read_bias_codes
from saq_qat_export.reference.qdq_reading import QdqReading
from saq_qat_export.reference.qdq_reference import read_qdq
from tests.export.onnx_models import Array
from tests.export.qdq_models import SIMPLE, model_of, quantizer, weights


def fraction_code(acc: int, input_scale: Array, weight_scale: Array, scale: Array) -> int:
    """The kernel's formula on fractions, each float32 rounding by itself."""
    grid = np.float32(Fraction(float(input_scale)) * Fraction(float(weight_scale)))
    multiplier = np.float32(float(grid) / float(scale))
    product = np.float32(Fraction(float(np.float32(acc))) * Fraction(float(multiplier)))
    return round(Fraction(float(product)))


SCALES = st.floats(2**-10, 2**-2, width=32).map(np.float32)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.sampled_from([1, 2]))
    bias = draw(arrays(np.int32, 4, elements=st.integers(-3000, 3000)))
    weight_scale = np.array(draw(st.lists(SCALES, min_size=4, max_size=4)), np.float32)
    image_scale = draw(SCALES)
    return {
        "x": draw(arrays(np.int32, (1, 4, 4, 3), elements=st.integers(-127, 127))),
        "w": draw(arrays(np.int8, (4, 4 // groups, 3, 2), elements=st.integers(-127, 127))),
        "w_scale": weight_scale,
        "bias": bias,
        "b": (bias.astype(np.float32) * (image_scale * weight_scale)).astype(np.float32),
        "q_scale": np.asarray(image_scale),
        "q_zero": np.int8(draw(st.integers(-20, 20))),
        "y_scale": np.asarray(draw(SCALES) * np.float32(50)),
        "y_zero": np.int8(draw(st.integers(-20, 20))),
        "low": np.float32(draw(st.floats(-20, 0, width=32))),
        "high": np.float32(draw(st.floats(0, 20, width=32))),
        "pads": np.array(draw(st.tuples(*[st.integers(0, 2)] * 4))),
        "strides": np.array(draw(st.tuples(*[st.integers(1, 2)] * 2))),
        "groups": np.int64(groups),
    }


def naive_convolution(case: dict[str, Any]) -> Array:
    """int64 sums in plain loops."""
    x, w, (top, left, bottom, right) = case["x"], case["w"].astype(np.int64), case["pads"]
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (down, along), per_group = case["strides"], 4 // int(case["groups"])
    rows, columns = (padded.shape[2] - 3) // down + 1, (padded.shape[3] - 2) // along + 1
    result = np.zeros((1, 4, rows, columns), np.int64)
    for out, i, j in np.ndindex(4, rows, columns):
        first = out // per_group * w.shape[1]
        patch = padded[0, first : first + w.shape[1], i * down : i * down + 3, j * along : j * along + 2]
        result[0, out, i, j] = (patch * w[out]).sum() + case["bias"][out]
    return result


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_a_convolution_equals_sums_in_plain_loops(case: dict[str, Any]) -> None:
    conv = helper.make_node(
        "Conv",
        ["q", "w_value", "b"],
        ["sum"],
        pads=case["pads"].tolist(),
        strides=case["strides"].tolist(),
        group=int(case["groups"]),
    )
    nodes = [*quantizer("image", "q"), weights(), conv]
    nodes += [helper.make_node("Clip", ["sum", "low", "high"], ["bounded"]), *quantizer("bounded", "y")]
    nodes.append(helper.make_node("Identity", ["y"], ["logits"]))
    model = model_of(nodes, {k: v for k, v in case.items() if k not in ("x", "bias")}, (1, 4, 4, 3))
    images = (case["x"] * case["q_scale"]).astype(np.float32)
    reading = read_qdq(model, images, {"q.codes": case["x"]})
    limits = [-128 - int(case["y_zero"]), 127 - int(case["y_zero"])]
    bounds = [
        int(np.clip(np.rint(case[name] / case["y_scale"]), limits[0], limits[1])) for name in ("low", "high")
    ]
    accumulators = naive_convolution(case)
    expected = np.empty(accumulators.shape, np.int64)
    for index in np.ndindex(accumulators.shape):
        scale = case["w_scale"][index[1]]
        code = fraction_code(int(accumulators[index]), case["q_scale"], scale, case["y_scale"])
        expected[index] = min(max(code, bounds[0]), bounds[1])
    np.testing.assert_array_equal(reading.tensors["y.codes"].codes, expected)
    assert (reading.tensors["y.codes"].range.minimum, reading.tensors["y.codes"].range.maximum) == tuple(
        bounds
    )
    np.testing.assert_array_equal(reading.logits, expected.astype(np.float32) * case["y_scale"])


@given(
    st.lists(st.integers(-(2**23), 2**23), min_size=1, max_size=8),
    SCALES,
    st.floats(2**-20, 1, width=32).map(np.float32),
)
def test_a_float_bias_gives_back_its_integers(
    codes: list[int], input_scale: np.float32, weight_scale: np.float32
) -> None:
    scales = np.full(len(codes), weight_scale, np.float32)
    bias = np.array(codes, np.int32).astype(np.float32) * (input_scale * scales)
    np.testing.assert_array_equal(read_bias_codes("layer", bias, input_scale, scales), codes)


@given(
    st.integers(2**21, 2**22 - 1),
    st.integers(0, 9),
    st.sampled_from([-1, 1]),
    SCALES,
    st.floats(2**-20, 1, width=32).map(np.float32),
)
def test_a_long_bias_of_22_significant_bits_gives_back_its_integer(
    digits: int, shift: int, sign: int, input_scale: np.float32, weight_scale: np.float32
) -> None:
    scales = np.full(1, weight_scale, np.float32)
    code = np.array([sign * digits * 2**shift], np.int64).clip(-(2**31 - 1), 2**31 - 1)
    bias = code.astype(np.float32) * (input_scale * scales)
    np.testing.assert_array_equal(read_bias_codes("layer", bias, input_scale, scales), code)


def product(op: str, constants: dict[str, Any], axis: int = 0, **attributes: Any) -> QdqReading:
    """``op`` of two features with weights ``w``, and bias ``b`` if there is one."""
    inputs = ["q", "w_value", *(["b"] if "b" in constants else [])]
    nodes = [
        *quantizer("image", "q"),
        weights(axis=axis),
        helper.make_node(op, inputs, ["logits"], name=op, **attributes),
    ]
    return read_qdq(model_of(nodes, constants, ("N", 2)), np.array([[0.1, -0.2], [1.0, 0.4]], np.float32))


@pytest.mark.parametrize(
    ("op", "transposed", "attributes"),
    [("Gemm", False, {"transB": 1}), ("Gemm", True, {}), ("MatMul", True, {})],
)
def test_products_read_weights_of_either_orientation(
    op: str, transposed: bool, attributes: dict[str, Any]
) -> None:
    constants = SIMPLE | ({"w": SIMPLE["w"].T} if transposed else {})
    reading = product(op, constants, axis=int(transposed), **attributes)
    sums = np.array([[1, -2], [10, 4]], np.int32) @ SIMPLE["w"].astype(np.int32).T
    grid = (SIMPLE["q_scale"] * SIMPLE["w_scale"]).astype(np.float32)
    np.testing.assert_array_equal(reading.logits, sums.astype(np.float32) * grid)
    np.testing.assert_array_equal(reading.layers["w"].weight, SIMPLE["w"])


@pytest.mark.parametrize(
    ("constants", "axis", "attributes", "message"),
    [
        ({"b": np.array([0.05, 0.013, 0], np.float32)}, 0, {"transB": 1}, "Gemm: the bias 0.013.* channel 1"),
        ({"w_scale": np.array([1, 2], np.float32)}, 1, {"transB": 1}, "Gemm: weights need one scale"),
        ({}, 0, {"transB": 1, "alpha": 2.0}, "Gemm: an integer Gemm has transA = 0 and alpha = beta = 1"),
    ],
)
def test_what_has_no_integer_meaning_is_refused_by_name(
    constants: dict[str, Any], axis: int, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        product("Gemm", SIMPLE | constants, axis, **attributes)
