"""The integer reference's formulas against ONNX Runtime's kernels, one by one: no code may differ."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper

from saq_qat_export.reference import integer_math
from saq_qat_export.reference.integer_math import CodeRange, Stored, Window
from tests.export.onnx_models import Array, dequantize, quantize, run_nodes, weighted
from tests.export.saturating_engine import lost_here

Random = np.random.Generator
ALL_PAIRS = tuple(grid.astype(np.uint8) for grid in np.meshgrid(np.arange(256), np.arange(256)))


def some_scale(random: Random) -> np.float32:
    return np.float32(np.exp(random.uniform(-6, 2)))


def zero_point(random: Random) -> np.uint8:
    return np.uint8(random.choice([0, 128, int(random.integers(256))]))


def unsigned(point: np.uint8) -> CodeRange:
    return CodeRange(-int(point), 255 - int(point))


def centred(stored: Array, point: np.uint8) -> npt.NDArray[np.int32]:
    return stored.astype(np.int32) - np.int32(point)


def sum_constants(random: Random) -> dict[str, Any]:
    """Scales whose ratios are arbitrary, powers of two, or small fractions, where ties abound."""
    a, b = some_scale(random), some_scale(random)
    fraction = np.float32(random.choice([0.5, 1, 2, 3, 1 / 3, 255 / 127]))
    kind = random.integers(3)
    own = np.float32(random.uniform(0.3, 3)) * (a + b) if kind else a * fraction
    return {
        "a_scale": a,
        "b_scale": a * fraction if kind == 2 else b,
        "y_scale": np.float32(own),
        **{f"{name}_zero_point": zero_point(random) for name in "aby"},
    }


def assert_sum_is_exact(a: Array, b: Array, constants: dict[str, Any]) -> None:
    nodes = [dequantize("a"), dequantize("b"), helper.make_node("Add", ["a_value", "b_value"], ["sum"])]
    engine = run_nodes([*nodes, quantize("sum")], {"a": a, "b": b}, constants)
    first, second = (
        Stored(centred(stored, constants[point]), constants[scale], int(constants[point]))
        for stored, scale, point in ((a, "a_scale", "a_zero_point"), (b, "b_scale", "b_zero_point"))
    )
    point = np.uint8(constants["y_zero_point"])
    scale = np.float32(constants["y_scale"])
    own = integer_math.requantize_sum(first, second, scale, int(point), unsigned(point))
    np.testing.assert_array_equal(own + int(point), engine.astype(np.int32), err_msg=str(constants))


@pytest.mark.parametrize("seed", range(40))
def test_sums_of_all_pairs_of_codes_are_exact(seed: int) -> None:
    a, b = ALL_PAIRS
    assert_sum_is_exact(a, b, sum_constants(np.random.default_rng(seed)))


@pytest.mark.parametrize("seed", range(2))
def test_sums_next_to_ties_are_exact(seed: int) -> None:
    """Two of the few configurations in which an unfused offset gives other codes."""
    a, b = ALL_PAIRS
    points = [(237, 128, 157), (178, 128, 128)][seed]
    scales = [(0.11327681, 0.004451321, 0.08420408), (0.09038377, 0.00801092, 0.20469299)][seed]
    constants: dict[str, Any] = {}
    for name, scale, point in zip("aby", scales, points, strict=True):
        constants[f"{name}_scale"] = np.float32(scale)
        constants[f"{name}_zero_point"] = np.uint8(point)
    assert_sum_is_exact(a, b, constants)


SHAPES = [
    *[((1, n), (1, n)) for n in (1, 2, 3, 5, 7, 8, 9, 15, 17, 31, 33, 63, 65, 300_007)],
    ((2, 8, 5, 5), (2, 8, 1, 1)),
    ((2, 8, 1, 1), (2, 8, 5, 5)),
    ((4, 33), (1, 33)),
    ((1, 33), (4, 33)),
    ((300, 1), (1, 300)),
    ((1, 300), (300, 1)),
    ((2, 8, 5, 1), (2, 1, 5, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_sums_are_exact_in_odd_sizes_and_broadcasts(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    random = np.random.default_rng(1)
    for _ in range(12):
        a, b = (random.integers(0, 256, shape).astype(np.uint8) for shape in shapes)
        assert_sum_is_exact(a, b, sum_constants(random))


@pytest.mark.parametrize("seed", range(60))
def test_global_average_is_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (2, int(random.integers(1, 40)), *random.integers(1, 20, 2))).astype(np.uint8)
    scale = some_scale(random)
    own = np.float32(scale * random.choice([1, 0.5, 2, random.uniform(0.2, 3)]))
    points = {name: zero_point(random) for name in "xy"}
    nodes = [dequantize("x"), helper.make_node("GlobalAveragePool", ["x_value"], ["mean"]), quantize("mean")]
    constants = {"x_scale": scale, "y_scale": own, **{f"{n}_zero_point": p for n, p in points.items()}}
    engine = run_nodes(nodes, {"x": x}, constants)
    found = integer_math.requantize_mean(centred(x, points["x"]), scale, own, unsigned(points["y"]))
    np.testing.assert_array_equal(found + int(points["y"]), engine)


@pytest.mark.parametrize("seed", range(60))
def test_requantization_of_every_code_is_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.arange(256, dtype=np.uint8)[None]
    scale = some_scale(random)
    own = np.float32(scale * random.choice([1, 0.5, 2, 3, 17, 85, 255 / 127, random.uniform(0.2, 20)]))
    points = {name: zero_point(random) for name in "xy"}
    constants = {"x_scale": scale, "y_scale": own, **{f"{n}_zero_point": p for n, p in points.items()}}
    engine = run_nodes([dequantize("x"), quantize("x_value")], {"x": x}, constants)
    found = integer_math.requantize_codes(centred(x, points["x"]), scale, own, unsigned(points["y"]))
    np.testing.assert_array_equal(found + int(points["y"]), engine)


@pytest.mark.parametrize("seed", range(20))
def test_quantization_of_half_steps_and_their_neighbours_is_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    scale, point = some_scale(random), zero_point(random)
    ties = ((np.arange(-300, 300) + 0.5) * float(scale)).astype(np.float32)
    infinity = np.float32(np.inf)
    extremes = np.array([0, -0.0, 1e30, -1e30], np.float32)
    rest = random.normal(0, 60 * float(scale), 10_003).astype(np.float32)
    x = np.concatenate([ties, np.nextafter(ties, infinity), np.nextafter(ties, -infinity), extremes, rest])
    constants = {"y_scale": scale, "y_zero_point": point}
    engine = run_nodes([quantize("x")], {"x": x[None]}, constants)[0]
    found = integer_math.quantize_float(x, scale, unsigned(point))
    np.testing.assert_array_equal(found + int(point), engine)


def layer_constants(random: Random, weight: Array) -> dict[str, Any]:
    """Scales and bias of a layer; every third time powers of two, so that sums lie on ties exactly."""
    out = weight.shape[0]
    x_scale, w_scale = some_scale(random) / 8, np.exp(random.uniform(-8, 0, out)).astype(np.float32)
    if random.integers(3) == 0:
        x_scale = np.float32(2.0 ** int(random.integers(-6, 0)))
        w_scale = (2.0 ** random.integers(-8, 0, out)).astype(np.float32)
    step = random.choice([2.0**8, random.uniform(100, 4000)])
    return {
        "x_scale": np.float32(x_scale),
        "x_zero_point": np.uint8(random.choice([0, 128])),
        "w": weight,
        "w_scale": w_scale,
        "w_zero_point": np.zeros(out, np.int8),
        "b": random.integers(-(2**15), 2**15, out).astype(np.int32),
        "b_scale": (np.float32(x_scale) * w_scale).astype(np.float32),
        "y_scale": np.float32(x_scale * np.median(w_scale) * step),
        "y_zero_point": np.uint8(random.choice([0, 128])),
    }


def requantized(accumulator: npt.NDArray[np.int32], c: dict[str, Any]) -> npt.NDArray[np.int32]:
    point = np.uint8(c["y_zero_point"])
    own, channels = np.float32(c["y_scale"]), (1, -1) + (1,) * (accumulator.ndim - 2)
    grid = c["b_scale"].reshape(channels)
    codes = integer_math.requantize_accumulator(accumulator, grid, own, unsigned(point))
    return codes + int(point)


def some_window(random: Random, groups: int) -> Window:
    stride, dilation = ((int(a), int(b)) for a, b in random.integers(1, 4, (2, 2)))
    height, width = random.integers(0, 3, 2)
    return Window(stride, (int(height), int(width)), dilation, groups)


def some_groups(random: Random) -> Iterator[int]:
    """Groups, input channels and output channels of each: dense, grouped or depthwise."""
    if random.random() < 0.3:
        yield from (int(random.integers(2, 40)), 1, 1)
    else:
        yield from (int(random.choice([1, 1, 2, 3])), *(int(n) for n in random.integers(1, 20, 2)))


@pytest.mark.parametrize("seed", range(60))
def test_convolutions_are_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups, depth, out = some_groups(random)
    kernel = int(random.choice([1, 3, 5]))
    weight = random.integers(-127, 128, (groups * out, depth, kernel, kernel)).astype(np.int8)
    x = random.integers(0, 128, (2, groups * depth, *random.integers(13, 20, 2))).astype(np.uint8)
    window = some_window(random, groups)
    c = layer_constants(random, weight)
    layer = weighted(
        "Conv", strides=window.stride, pads=window.padding * 2, dilations=window.dilation, group=groups
    )
    engine = run_nodes([*layer, quantize("sum")], {"x": x}, c)
    codes = centred(x, np.uint8(c["x_zero_point"]))
    own = requantized(integer_math.accumulate_conv(codes, weight, c["b"], window), c)
    np.testing.assert_array_equal(own, engine)


@pytest.mark.parametrize("quantized", [True, False], ids=["codes", "logits"])
@pytest.mark.parametrize("seed", range(60))
def test_linear_layers_are_exact(seed: int, quantized: bool) -> None:
    """Codes of the whole range: without VNNI, less what saturating pairs lose."""
    random = np.random.default_rng(seed)
    weight = random.integers(-127, 128, random.integers(1, 200, 2)).astype(np.int8)
    x = random.integers(0, 256, (int(random.integers(1, 9)), weight.shape[1])).astype(np.uint8)
    c = layer_constants(random, weight)
    nodes = weighted("Gemm", transB=1, beta=1.0)
    nodes += [quantize("sum")] if quantized else [helper.make_node("Identity", ["sum"], ["y"])]
    engine = run_nodes(nodes, {"x": x}, c)
    accumulator = integer_math.accumulate_linear(centred(x, np.uint8(c["x_zero_point"])), weight, c["b"])
    accumulator += lost_here(x, weight.T)
    own = (
        requantized(accumulator, c)
        if quantized
        else integer_math.scale_accumulator(accumulator, c["b_scale"])
    )
    np.testing.assert_array_equal(own, engine)
