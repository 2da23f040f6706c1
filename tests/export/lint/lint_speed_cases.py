"""Rules TRT101 to TRT117: for each a graph that breaks it and the least mended one that does not."""

import numpy as np
import onnx
from onnx import external_data_helper

from tests.export.lint.lint_cases import SHAPE, Case
from tests.export.lint.lint_graphs import Net

__all__ = ["SPEED_CASES"]


def residual_input(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.node("Relu", net.input(SHAPE))
    pair = net.pair(x)
    return net.model(net.node("Add", net.conv(pair), pair if good else x))


def float_branch(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.node("Relu", net.conv(net.pair(net.input(SHAPE))))
    pair = net.pair(x)
    other = net.conv(pair)
    return net.model(net.pair(net.node("Add", net.pair(other, 0.2), pair if good else x)))


def pad_meets_conv(good: bool) -> onnx.ModelProto:
    net = Net()
    pair = net.pair(net.input(SHAPE))
    padded = net.node("Pad", pair, net.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    return net.model(net.conv(padded if good else net.pair(padded)))


def double_pair(good: bool) -> onnx.ModelProto:
    net = Net()
    pair = net.pair(net.input(SHAPE))
    return net.model(net.conv(pair if good else net.pair(pair)))


def same_scale(good: bool) -> onnx.ModelProto:
    net = Net()
    codes = net.quantize(net.input(SHAPE), 0.1)
    return net.model(net.conv(net.dequantize(codes, 0.1 if good else 0.2)))


def several_scales(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.input(SHAPE)
    return net.model(net.conv(net.pair(x, 0.1)), net.conv(net.pair(x, 0.1 if good else 0.2)))


def concat_scales(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.input(SHAPE)
    first, second = net.pair(x, 0.1), net.pair(net.node("Relu", x), 0.1 if good else 0.2)
    joined = net.node("Concat", first, second, axis=1)
    return net.model(net.conv(net.pair(net.node("Relu", joined)), channels=32))


def integer_output(good: bool) -> onnx.ModelProto:
    net = Net()
    pooled = net.node("GlobalAveragePool", net.pair(net.input(SHAPE)))
    return net.model(net.pair(pooled) if good else pooled)


def small_layers(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.pair(net.input((8, 16)))
    return net.model(net.node("Relu", net.node("Gemm", x, net.weight(16 if good else 10, 16), transB=1)))


def slow_kinds(good: bool) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input(SHAPE)), group=1 if good else 4))


def attention(good: bool) -> onnx.ModelProto:
    net = Net()
    q, k, v = (net.input((1, 4, 16, 32), name) for name in "qkv")
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    weights = net.node("Softmax", net.node("Mul", scores, net.constant(0.25)), axis=-1)
    return net.model(net.node("MatMul", weights if good else net.pair(weights), v))


def batch_norm_folded(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.pair(net.input(SHAPE)))
    statistics = [net.constant(np.ones(16)) for _ in range(4)]
    return net.model(x if good else net.node("BatchNormalization", x, *statistics))


def activation_before_codes(good: bool) -> onnx.ModelProto:
    net = Net()
    bounds = net.constant(0.0), net.constant(6.0)
    x = net.conv(net.pair(net.input(SHAPE)))
    return net.model(
        net.pair(net.node("Clip", x, *bounds)) if good else net.node("Clip", net.pair(x), *bounds)
    )


def float32_between(good: bool) -> onnx.ModelProto:
    net = Net()
    precision = np.float16 if good else np.float32
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(precision))
    x = net.pair(net.input(SHAPE, dtype=kind), precision=precision)
    return net.model(net.node("Conv", x, net.weight(16, 16, 3, 3, precision=precision)), dtype=kind)


def accumulator(good: bool) -> onnx.ModelProto:
    net = Net()
    terms = 132_104 if good else 132_128
    return net.model(net.node("Gemm", net.pair(net.input((8, terms))), net.weight(16, terms), transB=1))


def few_channels(good: bool) -> onnx.ModelProto:
    net = Net()
    channels = 16 if good else 3
    return net.model(net.conv(net.pair(net.input((1, channels, 8, 8))), channels=channels))


def large_file(good: bool) -> onnx.ModelProto:
    net = Net()
    model = net.model(net.conv(net.pair(net.input(SHAPE))))
    if not good:
        external_data_helper.convert_model_to_external_data(model, location="weights.bin")
        for tensor in model.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                tensor.ClearField("raw_data")
    return model


SPEED_CASES: dict[str, Case] = {
    "TRT101": residual_input,
    "TRT102": float_branch,
    "TRT103": pad_meets_conv,
    "TRT104": double_pair,
    "TRT105": same_scale,
    "TRT106": several_scales,
    "TRT107": concat_scales,
    "TRT108": integer_output,
    "TRT109": small_layers,
    "TRT110": slow_kinds,
    "TRT111": attention,
    "TRT112": batch_norm_folded,
    "TRT113": activation_before_codes,
    "TRT114": float32_between,
    "TRT115": accumulator,
    "TRT116": few_channels,
    "TRT117": large_file,
}
