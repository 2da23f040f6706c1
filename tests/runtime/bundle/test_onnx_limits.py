"""What a model cannot do to the judge itself: no number, no rank and no equation makes it slow or wrong."""

import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from saq_qat_runtime.bundle.onnx_call import BATCH, Call, TensorFacts, has_room
from saq_qat_runtime.bundle.onnx_einsum import _LARGEST_COUNT
from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.bundle.onnx_limits import refuse_unsafe, sizes_of
from saq_qat_runtime.bundle.onnx_numbers import numbers_of
from saq_qat_runtime.bundle.onnx_tensor import LARGEST_RANK, read_tensor
from saq_qat_runtime.errors import ModelError
from tests.faults.load.bombs import as_first_step, behind, floats, integers
from tests.runtime.networks import LABELS, constant, float_network

LARGEST = (1 << 63) - 1


def product(a: int, b: int, width: int = 8) -> Any:
    facts = tuple(TensorFacts((1,), width, (number,), constant=True) for number in (a, b))
    return numbers_of("Mul", Call(facts, {}, 1), width)


def test_numbers_are_known_as_far_as_an_engine_has_room_for_them() -> None:
    assert product(1 << 31, 1 << 31) == (1 << 62,)
    assert product(1 << 32, 1 << 31) is None
    assert product(1 << 15, 1 << 15, width=4) == (1 << 30,)
    assert product(1 << 16, 1 << 15, width=4) is None


@pytest.mark.parametrize(
    ("number", "width", "fits"),
    [
        (LARGEST, 8, True),
        (LARGEST + 1, 8, False),
        (-LARGEST - 1, 8, True),
        (-LARGEST - 2, 8, False),
        (BATCH * (1 << 31), 4, False),
        (BATCH * ((1 << 31) - 1), 4, True),
        (BATCH * LARGEST, 8, True),
        (BATCH * BATCH * BATCH, 8, False),
        (1e300, 8, True),
    ],
)
def test_room_is_that_of_one_image(number: float, width: int, fits: bool) -> None:
    assert has_room(number, width) is fits


def test_a_number_of_32_bits_that_the_file_gives_larger_is_not_known() -> None:
    def read(number: int) -> Any:
        varint = helper.make_tensor("n", TensorProto.INT64, [1], [number])
        content = varint.SerializeToString().replace(b"\x10\x07\x3a", b"\x10\x06\x2a")
        return read_tensor(memoryview(content)).numbers

    assert read(-5) == (-5,)
    assert read((1 << 32) + 5) is None


@pytest.mark.parametrize("source", ["three", "image"])
def test_squares_of_squares_are_judged_at_once(source: str) -> None:
    squares = [helper.make_node("Mul", [f"s{place}"] * 2, [f"s{place + 1}"]) for place in range(200)]
    first = helper.make_node("Shape", [source], ["s0"])
    last = helper.make_node("Relu", ["image"], ["made"])
    model = behind([first, *squares, last], [constant("three", floats(3))])
    start = time.process_time()
    refuse_unsafe(model.SerializeToString())
    assert time.process_time() - start < 1


SIZES_BELOW_ZERO: dict[str, onnx.ModelProto] = {
    "TopK": behind(
        [helper.make_node("TopK", ["image", "k"], ["made", "places"])], [constant("k", integers(-(1 << 45)))]
    ),
    "Resize": as_first_step("Resize", None, None, integers(-(1 << 45)), axes=[2]),
    "ConvTranspose": as_first_step("ConvTranspose", floats(3, 1, 1, 1), output_shape=[-(1 << 45), 8]),
    "ConvTranspose by groups": as_first_step("ConvTranspose", floats(3, 1, 1, 1), group=-(1 << 30)),
    "MaxPool": as_first_step("MaxPool", kernel_shape=[-(1 << 40), 1], strides=[1 << 41, 1]),
    "AveragePool": as_first_step("AveragePool", kernel_shape=[0, 1]),
}


@pytest.mark.parametrize("model", SIZES_BELOW_ZERO.values(), ids=SIZES_BELOW_ZERO.keys())
def test_a_size_below_zero_is_refused_where_it_is_found(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match=r"sizes are 0 or more|a window has a pixel or more"):
        refuse_unsafe(model.SerializeToString())


def test_a_size_beyond_64_bits_is_refused_though_the_tensor_is_empty() -> None:
    first = helper.make_node("Pad", ["empty", "pads"], ["padded"])
    last = helper.make_node("Concat", ["padded", "padded"], ["made"], axis=1)
    stored = [constant("empty", np.zeros((0, 1), np.float32)), constant("pads", integers(0, 0, 0, LARGEST))]
    with pytest.raises(ModelError, match="longer than 64 bits can tell"):
        refuse_unsafe(behind([first, last], stored).SerializeToString())


def test_a_node_may_give_as_many_axes_as_are_allowed_and_no_more() -> None:
    most = LARGEST_RANK - 4
    allowed = as_first_step("Unsqueeze", integers(*range(most)))
    assert len(sizes_of(parse_graph(allowed.SerializeToString()))["made"].shape) == LARGEST_RANK
    with pytest.raises(ModelError, match=f"its result has {LARGEST_RANK + 1} axes; {LARGEST_RANK} are"):
        refuse_unsafe(as_first_step("Unsqueeze", integers(*range(most + 1))).SerializeToString())


def test_a_tensor_and_an_input_of_too_many_axes_are_refused_at_once() -> None:
    weight = as_first_step("Add", floats(1))
    weight.graph.initializer[-1].dims[:] = [LARGEST] * 60_000
    image = as_first_step("Relu")
    image.graph.input[0].type.tensor_type.shape.dim.extend(
        onnx.TensorShapeProto.Dimension(dim_value=LARGEST) for _ in range(60_000)
    )
    start = time.process_time()
    with pytest.raises(ModelError, match=r"tensor '.*' has 60,000 axes; 16 are allowed"):
        refuse_unsafe(weight.SerializeToString())
    with pytest.raises(ModelError, match=r"input 'image' has 60,004 axes; 16 are allowed"):
        refuse_unsafe(image.SerializeToString())
    assert time.process_time() - start < 5


def einsum(equation: str, more: int) -> bytes:
    node = helper.make_node("Einsum", ["image", *["one"] * more], ["made"], equation=equation)
    return bytes(behind([node], [constant("one", np.float32(1))]).SerializeToString())


def test_an_einsum_multiplies_as_many_tensors_as_are_allowed_and_no_more() -> None:
    most = _LARGEST_COUNT - 1
    refuse_unsafe(einsum("abcd" + "," * most + "->abcd", most))
    with pytest.raises(ModelError, match=f"it multiplies {most + 2} tensors; {_LARGEST_COUNT} are allowed"):
        refuse_unsafe(einsum("abcd" + "," * (most + 1) + "->abcd", most + 1))


def test_a_long_equation_is_judged_at_once() -> None:
    start = time.process_time()
    with pytest.raises(ModelError, match="no list of letters and dots"):
        refuse_unsafe(einsum("a" * 100_000 + "!", 0))
    assert time.process_time() - start < 1


def test_a_refusal_stays_short_whatever_it_quotes() -> None:
    model = as_first_step("Transpose", perm=[0] * 60_000)
    with pytest.raises(ModelError, match=r"perm \(0, 0, .*\.\.\. Export the bundle again") as refused:
        refuse_unsafe(model.SerializeToString())
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (["N", 10**9], r"as \['N', 1000000000\]; its nodes make \['N', 5\]"),
        (["N", 0], r"as \['N', 0\]; its nodes make"),
        (["N", -5], r"as \['N', -5\]; its nodes make"),
        ([], r"with 0 axes; its nodes make \['N', 5\]"),
    ],
)
def test_an_output_is_as_its_nodes_make_it(declared: list[str | int], told: str) -> None:
    model = float_network()
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, declared)
    model.graph.output[0].CopyFrom(output)
    with pytest.raises(ModelError, match=rf"The model declares its output 'logits' {told}"):
        refuse_unsafe(model.SerializeToString())


@pytest.mark.parametrize("declared", [["N", LABELS], ["N", "labels"], [-1, LABELS], [3, LABELS], None])
def test_an_output_may_leave_its_sizes_open(declared: list[str | int] | None) -> None:
    model = float_network()
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, declared)
    model.graph.output[0].CopyFrom(output)
    refuse_unsafe(model.SerializeToString())
