"""Small networks as ONNX: one quantized as export does it, one in float."""

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["CODES", "LABELS", "SIDE", "float_network", "images", "model_of", "quantized_network", "run_plain"]

SIDE, LABELS = 8, 5
CODES = ("x1_codes",)
"""Tensors of codes that bundles of the quantized network record."""


def constant(name: str, value: NDArray[np.generic] | np.generic) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def model_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A model from `image` (N, 3, SIDE, SIDE) to `logits` (N, LABELS)."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", LABELS])
    graph = helper.make_graph(nodes, "network", [image], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def activation(source: str, name: str, levels: int) -> list[onnx.NodeProto]:
    """Quantize to uint8, clip the codes, dequantize: what ONNX Runtime runs on integer kernels."""
    return [
        helper.make_node("QuantizeLinear", [source, f"{name}_scale", f"{name}_zero"], [f"{name}_raw"]),
        helper.make_node("Clip", [f"{name}_raw", "code_0", f"code_{levels}"], [f"{name}_codes"]),
        helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale", f"{name}_zero"], [name]),
    ]


def weight(name: str, axis: int = 0) -> onnx.NodeProto:
    inputs = [f"{name}_codes", f"{name}_scale", f"{name}_zero"]
    return helper.make_node("DequantizeLinear", inputs, [name], axis=axis)


def quantized_network() -> onnx.ModelProto:
    """Image codes, two 4-bit convolutions, pooled 8-bit features and a linear layer, all of them integer."""
    generator = np.random.default_rng(0)
    nodes, constants = [], []
    for levels in (0, 15, 255):
        constants.append(constant(f"code_{levels}", np.uint8(levels)))
    for name, scale, zero in (("x0", 0.02, 128), ("x1", 0.05, 0), ("x2", 0.05, 0), ("x3", 0.01, 0)):
        constants += [constant(f"{name}_scale", np.float32(scale)), constant(f"{name}_zero", np.uint8(zero))]
    shapes = {"w1": (6, 3, 3, 3), "w2": (7, 6, 3, 3), "w3": (LABELS, 7)}
    for name, shape in shapes.items():
        constants.append(constant(f"{name}_codes", generator.integers(-15, 16, shape).astype(np.int8)))
        constants.append(
            constant(f"{name}_scale", generator.uniform(0.01, 0.02, shape[0]).astype(np.float32))
        )
        constants.append(constant(f"{name}_zero", np.zeros(shape[0], np.int8)))
    nodes += activation("image", "x0", 255)
    for index in (1, 2):
        nodes.append(weight(f"w{index}"))
        nodes.append(
            helper.make_node("Conv", [f"x{index - 1}", f"w{index}"], [f"y{index}"], pads=[1, 1, 1, 1])
        )
        nodes += activation(f"y{index}", f"x{index}", 15)
    nodes.append(helper.make_node("GlobalAveragePool", ["x2"], ["pooled"]))
    nodes += activation("pooled", "x3", 255)[:-1]
    nodes.append(helper.make_node("Flatten", ["x3_codes"], ["feature_codes"]))
    nodes.append(helper.make_node("DequantizeLinear", ["feature_codes", "x3_scale", "x3_zero"], ["features"]))
    bias_scale = np.float32(0.01) * numpy_helper.to_array(constants[-2])
    constants.append(constant("bias_codes", generator.integers(-99, 100, LABELS).astype(np.int32)))
    constants += [constant("bias_scale", bias_scale), constant("bias_zero", np.zeros(LABELS, np.int32))]
    nodes += [weight("w3"), weight("bias")]
    nodes.append(helper.make_node("Gemm", ["features", "w3", "bias"], ["logits"], transB=1, beta=1.0))
    return model_of(nodes, constants)


def float_network() -> onnx.ModelProto:
    """One convolution and a pooled linear layer, without any quantizer."""
    generator = np.random.default_rng(1)
    constants = [
        constant("w1", generator.normal(size=(6, 3, 3, 3)).astype(np.float32)),
        constant("w2", generator.normal(size=(LABELS, 6)).astype(np.float32)),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["y1"]),
        helper.make_node("Relu", ["y1"], ["x1"]),
        helper.make_node("GlobalAveragePool", ["x1"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "w2"], ["logits"], transB=1),
    ]
    return model_of(nodes, constants)


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


def run_plain(
    content: bytes, batch: NDArray[np.float32], codes: tuple[str, ...] = CODES
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.uint8]]]:
    """Logits and codes by ONNX Runtime and the onnx package, without any code of ours."""
    model = onnx.load_from_string(content)
    for name in codes:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits, *found = session.run(["logits", *codes], {"image": batch})
    return logits, dict(zip(codes, found, strict=True))
