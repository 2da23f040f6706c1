"""Little QDQ models made by hand: a quantizer of the image, and whatever reads it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Nodes = list[onnx.NodeProto]


def model_of(nodes: Nodes, constants: Mapping[str, Any], shape: tuple[int | str, ...]) -> onnx.ModelProto:
    """A model from ``image`` to ``logits``."""
    graph = helper.make_graph(
        nodes,
        "little",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def quantizer(source: str, name: str, scale: str | None = None) -> Nodes:
    """QuantizeLinear and DequantizeLinear with the constants ``<name>_scale`` and ``<name>_zero``."""
    constants = [scale or f"{name}_scale", f"{name}_zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *constants], [f"{name}.codes"], name=f"Q:{name}"),
        helper.make_node("DequantizeLinear", [f"{name}.codes", *constants], [name], name=f"DQ:{name}"),
    ]


def weights(name: str = "w", axis: int = 0) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [name, f"{name}_scale"], [f"{name}_value"], axis=axis)


SIMPLE: dict[str, Any] = {
    "q_scale": np.float32(0.1),
    "q_zero": np.int8(0),
    "w": np.array([[3, -2], [1, 5], [-7, 4]], np.int8),
    "w_scale": np.array([0.5, 0.25, 0.125], np.float32),
}


def activation_model(
    middle: Nodes, constants: Mapping[str, Any], *, stored: str = "q.codes"
) -> onnx.ModelProto:
    """A quantizer of ``image``, nodes, and the DequantizeLinear of ``stored`` as logits."""
    first = quantizer("image", "q")[0]
    last = helper.make_node("DequantizeLinear", [stored, "q_scale", "q_zero"], ["logits"])
    return model_of([first, *middle, last], {**SIMPLE, **constants}, ("N", 2, 4, 4))
