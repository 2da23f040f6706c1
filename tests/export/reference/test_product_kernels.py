"""Formulas of transformers' kernels against ONNX Runtime's: linear layers into int8, products of tensors.

Codes of the whole range, over the pair bound: exact on CPUs with VNNI; elsewhere the engine loses what the
emulation of saturating pairs says.
"""

from typing import Any

import numpy as np
import pytest
from onnx import helper

from saq_qat_export.reference import integer_math
from saq_qat_export.reference.integer_math import CodeRange
from tests.export.onnx_models import Array, dequantize, quantize, run_nodes, weighted
from tests.export.reference.test_kernels import Random, centred, layer_constants, unsigned, zero_point
from tests.export.saturating_engine import lost_here


@pytest.mark.parametrize("seed", range(40))
def test_linear_layers_behind_whose_reshape_stands_int8_are_exact(seed: int) -> None:
    """As the second operand of a product: the kernel writes uint8, and int8 comes of it without a loss."""
    random = np.random.default_rng(seed)
    rows, out, depth = (int(n) for n in random.integers(1, 60, 3))
    weight = random.integers(-127, 128, (out, depth)).astype(np.int8)
    x = random.integers(0, 256, (2 * rows, depth)).astype(np.uint8)
    c = layer_constants(random, weight) | {"y_zero_point": np.int8(0), "tokens": np.array([-1, rows, out])}
    nodes = [*weighted("Gemm", transB=1, beta=1.0), helper.make_node("Reshape", ["sum", "tokens"], ["three"])]
    engine = run_nodes([*nodes, quantize("three")], {"x": x}, c)
    accumulator = integer_math.accumulate_linear(centred(x, np.uint8(c["x_zero_point"])), weight, c["b"])
    accumulator += lost_here(x, weight.T)
    own = integer_math.requantize_accumulator(
        accumulator, c["b_scale"], np.float32(c["y_scale"]), CodeRange(-128, 127)
    )
    assert engine.dtype == np.int8
    np.testing.assert_array_equal(own, engine.reshape(own.shape))


def some_product(random: Random) -> tuple[Array, Array]:
    """uint8 and int8 factors, with axes before the last two that broadcast."""
    rows, columns = (int(n) for n in random.integers(1, 40, 2))
    depth = int(random.choice([1, 7, 64, 197, 2000]))
    left, right = [((2, 3), (2, 3)), ((2, 1), (3,)), ((), (2,)), ((), ())][random.integers(4)]
    a = random.integers(0, 256, (*left, rows, depth)).astype(np.uint8)
    return a, random.integers(-128, 128, (*right, depth, columns)).astype(np.int8)


@pytest.mark.parametrize("quantized", [True, False], ids=["codes", "floats"])
@pytest.mark.parametrize("seed", range(60))
def test_products_of_two_tensors_are_exact(seed: int, quantized: bool) -> None:
    """Also where sums need more than the 24 bits of float32."""
    random = np.random.default_rng(seed)
    a, b = some_product(random)
    scales = [2.0 ** random.integers(-8, 0, 2), np.exp(random.uniform(-6, 1, 2))][seed % 2].astype(np.float32)
    c: dict[str, Any] = {"a_scale": scales[0], "b_scale": scales[1]}
    c |= {"a_zero_point": zero_point(random), "b_zero_point": np.int8(0), "y_zero_point": zero_point(random)}
    c["y_scale"] = np.float32(scales[0] * scales[1] * random.choice([2.0**10, random.uniform(100, 40_000)]))
    nodes = [dequantize("a"), dequantize("b"), helper.make_node("MatMul", ["a_value", "b_value"], ["sum"])]
    nodes += [quantize("sum")] if quantized else [helper.make_node("Identity", ["sum"], ["y"])]
    engine = run_nodes(nodes, {"a": a, "b": b}, c)
    sums = integer_math.accumulate_product(centred(a, c["a_zero_point"]), b.astype(np.int32))
    sums += lost_here(a, b)
    grid = np.asarray(scales[0] * scales[1])
    if not quantized:
        np.testing.assert_array_equal(integer_math.scale_accumulator(sums, grid), engine)
        return
    point = np.uint8(c["y_zero_point"])
    codes = integer_math.requantize_accumulator(sums, grid, c["y_scale"], unsigned(point))
    np.testing.assert_array_equal(codes + int(point), engine)
