"""Rules TRT001 to TRT020: for each a graph that breaks it and the least mended one that does not."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from saq_qat_export.lint import LintSettings
from saq_qat_runtime.tensorrt.engine_record import Profile
from tests.export.lint.lint_graphs import Net

__all__ = ["CASES", "SETTINGS", "Case"]

Case = Callable[[bool], onnx.ModelProto]

SHAPE = (1, 16, 8, 8)


def opset(good: bool) -> onnx.ModelProto:
    net = Net(opset=24 if good else 25)
    return net.model(net.conv(net.pair(net.input(SHAPE))))


def code_type(good: bool) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input(SHAPE), dtype=np.int8 if good else np.uint8)))


def zero_point(good: bool) -> onnx.ModelProto:
    net = Net()
    zero = net.constant(0 if good else 3, np.int8)
    return net.model(net.conv(net.pair(net.input(SHAPE), zero=zero)))


def constant_scale(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.input(SHAPE)
    largest = net.constant(4.0) if good else net.node("ReduceMax", x, keepdims=0)
    return net.model(net.conv(net.pair(x, scale=net.node("Div", largest, net.constant(127.0)))))


def usable_scale(good: bool) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input(SHAPE), scale=0.1 if good else 0.0)))


def one_number(good: bool) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input(SHAPE), scale=0.1 if good else [0.1])))


def per_channel(good: bool) -> onnx.ModelProto:
    net = Net()
    scale, options = (0.1, {}) if good else (np.full(16, 0.1), {"axis": 1})
    return net.model(net.conv(net.pair(net.input(SHAPE), scale, **options)))


def channel_axis(good: bool) -> onnx.ModelProto:
    net = Net()
    weight = net.weight(16, 16, 3, 3, axis=0 if good else 1)
    return net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))


def both_inputs(good: bool) -> onnx.ModelProto:
    net = Net()
    weight = net.weight(16, 16, 3, 3) if good else net.floats(16, 16, 3, 3)
    return net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))


def plain_weights(good: bool) -> onnx.ModelProto:
    net = Net()
    codes = net.constant(np.ones((16, 16, 3, 3)), np.int8)
    if not good:
        codes = net.node("Clip", codes, net.constant(-127, np.int8), net.constant(127, np.int8))
    weight = net.dequantize(codes, np.full(16, 0.01), axis=0)
    return net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))


def float_bias(good: bool) -> onnx.ModelProto:
    net = Net()
    codes = net.constant(np.ones(16), np.int32)
    bias = net.floats(16) if good else net.dequantize(codes, np.full(16, 0.001), zero=None, axis=0)
    return net.model(net.node("Conv", net.pair(net.input(SHAPE)), net.weight(16, 16, 3, 3), bias))


def integer_operators(good: bool) -> onnx.ModelProto:
    net = Net()
    x, codes = net.quantize(net.input((2, 16))), net.constant(np.ones((16, 32)), np.int8)
    if good:
        return net.model(net.node("MatMul", net.dequantize(x), net.dequantize(codes, 0.01)))
    return net.model(net.node("MatMulInteger", x, codes), dtype=TensorProto.INT32)


def nothing_between(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.input(SHAPE)
    if good:
        return net.model(net.conv(net.pair(net.node("Min", x, net.constant(1.5)))))
    return net.model(net.conv(net.dequantize(net.node("Min", net.quantize(x), net.constant(15, np.int8)))))


def four_bit(good: bool) -> onnx.ModelProto:
    net = Net(opset=21)
    blocks, shape = np.full((2, 32), 0.01), (128, 32)
    scale, options = (blocks, {"block_size": 64, "axis": 0}) if good else (np.full(32, 0.01), {"axis": 1})
    weight = net.dequantize(net.constant(np.ones(shape), ml_dtypes.int4), scale, zero=None, **options)
    return net.model(net.node("MatMul", net.input((4, 128)), weight))


def scalar_data(good: bool) -> onnx.ModelProto:
    net = Net()
    codes = net.constant([5] if good else 5, np.int8)
    return net.model(net.node("Add", net.conv(net.pair(net.input(SHAPE))), net.dequantize(codes)))


def static_channels(good: bool) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input((1, 16 if good else "C", 8, 8)))))


def profile(good: bool) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input(("N", 16, 8 if good else 9, 8)))))


def one_precision(good: bool) -> onnx.ModelProto:
    net = Net()
    x, half = net.input(SHAPE), TensorProto.FLOAT16
    if good:
        x = net.pair(net.node("Cast", x, to=half), precision=np.float16)
    else:
        x = net.node("Cast", net.pair(x), to=half)
    return net.model(net.node("Conv", x, net.weight(16, 16, 3, 3, precision=np.float16)), dtype=half)


def interface(good: bool) -> onnx.ModelProto:
    net = Net()
    x = net.input(SHAPE, dtype=TensorProto.INT32 if good else TensorProto.INT16)
    return net.model(net.conv(net.pair(net.node("Cast", x, to=TensorProto.FLOAT))))


def narrow_weights(good: bool) -> onnx.ModelProto:
    net = Net()
    codes = np.full((16, 16, 3, 3), -127 if good else -128)
    weight = net.dequantize(net.constant(codes, np.int8), np.full(16, 0.01), axis=0)
    return net.model(net.node("Conv", net.pair(net.input(SHAPE)), weight))


CASES: dict[str, Case] = {
    "TRT001": opset,
    "TRT002": code_type,
    "TRT003": zero_point,
    "TRT004": constant_scale,
    "TRT005": usable_scale,
    "TRT006": one_number,
    "TRT007": per_channel,
    "TRT008": channel_axis,
    "TRT009": both_inputs,
    "TRT010": plain_weights,
    "TRT011": float_bias,
    "TRT012": integer_operators,
    "TRT013": nothing_between,
    "TRT014": four_bit,
    "TRT015": scalar_data,
    "TRT016": static_channels,
    "TRT017": profile,
    "TRT018": one_precision,
    "TRT019": interface,
    "TRT020": narrow_weights,
}

_CHANNELS = Profile("image", (1, 16, 8, 8), (1, 16, 8, 8), (1, 16, 8, 8))
SETTINGS: dict[str, LintSettings] = {
    "TRT016": LintSettings(profiles=(_CHANNELS,)),
    "TRT017": LintSettings(profiles=(Profile("image", (1, 16, 8, 8), (2, 16, 8, 8), (8, 16, 8, 8)),)),
    "TRT020": LintSettings(narrow_weights=True),
}
