"""Small models whose cost a look at single sizes misses: by one image that is repeated, and by time alone."""

from itertools import pairwise
from typing import Any

import onnx
from onnx import helper

from tests.faults.load.bombs import Bomb, as_first_step, behind, floats, integers
from tests.runtime.networks import SIDE, constant

__all__ = ["DAYS", "LARGER", "REPEATED", "SUBTRACTED"]


def repeated_images() -> onnx.ModelProto:
    """One image is repeated 400 times by a constant of as many, where a batch of 7 would not fit."""
    names = [f"repeated_{index}" for index in range(60)]
    nodes = [helper.make_node("Mul", ["image", "ones"], [name]) for name in names]
    nodes.append(helper.make_node("Concat", names, ["made"], axis=1))
    return behind(nodes, [constant("ones", floats(1, 400, 1, 1, 1))])


def squeezed_images() -> onnx.ModelProto:
    """One image loses the axis of the batch, and its rows become what each of a constant's meets."""
    nodes = [
        helper.make_node("Squeeze", ["image"], ["squeezed"]),
        helper.make_node("Unsqueeze", ["squeezed", "place"], ["apart"]),
        helper.make_node("Mul", ["apart", "ones"], ["made"]),
    ]
    return behind(nodes, [constant("place", integers(1)), constant("ones", floats(1, 400, 1, 1, 1))])


def enlarged(side: int, *nodes: onnx.NodeProto) -> Bomb:
    """Nodes that read `large`, images of that side."""

    def build() -> onnx.ModelProto:
        pads = constant("pads", integers(0, 0, 0, 0, 0, 0, side - SIDE, side - SIDE))
        return behind([helper.make_node("Pad", ["image", "pads"], ["large"]), *nodes], [pads])

    return build


def subtracted(op_type: str, *inputs: Any) -> Bomb:
    """Constants that double 34 times, behind one whose size below zero makes room for them in a sum."""

    def build() -> onnx.ModelProto:
        names = ["small", *(f"twice_{index}" for index in range(33)), "made"]
        given = [f"given_{index}" if value is not None else "" for index, value in enumerate(inputs)]
        nodes = [helper.make_node(op_type, ["small", *given], ["below"])]
        nodes += [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]
        stored = [constant(name, value) for name, value in zip(given, inputs, strict=True) if name]
        return behind(nodes, [constant("small", floats(1, 1, SIDE, SIDE)), *stored])

    return build


def multiplied(times: int) -> list[onnx.NodeProto]:
    names = ["large", *(f"product_{index}" for index in range(times)), "made"]
    return [helper.make_node("MatMul", [a, a], [b]) for a, b in pairwise(names)]


def walked(times: int) -> list[onnx.NodeProto]:
    names = ["large", *(f"walked_{index}" for index in range(times)), "made"]
    return [helper.make_node("Sin", [a], [b]) for a, b in pairwise(names)]


REPEATED: dict[str, Bomb] = {
    "one image for each of a constant": lambda: as_first_step("Mul", floats(400, 1, 1, 1)),
    "one image for each, with an axis more": repeated_images,
    "one image for each, by Max": lambda: as_first_step("Max", floats(1), floats(400, 1, 1, 1)),
    "one image for each, by MatMul": lambda: as_first_step("MatMul", floats(400, 1, SIDE, 1)),
    "one image for each, by Where": lambda: behind(
        [
            helper.make_node("IsNaN", ["image"], ["bad"]),
            helper.make_node("Where", ["bad", "ones", "image"], ["made"]),
        ],
        [constant("ones", floats(400, 1, 1, 1))],
    ),
    "one image for each, by Equal": lambda: as_first_step("Equal", floats(400, 1, 1, 1)),
    "one image without the batch": squeezed_images,
}

LARGER: dict[str, Bomb] = {
    "PRelu": lambda: as_first_step("PRelu", floats(400, 1, 1, 1, 1)),
    "PRelu of one image": lambda: as_first_step("PRelu", floats(400, 1, 1, 1)),
    "Clip": lambda: as_first_step("Clip", floats(400, 1, 1, 1, 1)),
    "RMSNormalization": lambda: as_first_step("RMSNormalization", floats(400, 1, 1, 1, SIDE)),
    "QuantizeLinear": lambda: as_first_step("QuantizeLinear", floats(400, 1, 1, 1), axis=0),
    "QuantizeLinear along the batch": lambda: as_first_step("QuantizeLinear", floats(400), axis=0),
    "DequantizeLinear": lambda: as_first_step("DequantizeLinear", floats(400, 1, 1, 1, 1)),
}

SUBTRACTED: dict[str, Bomb] = {
    "TopK below zero": subtracted("TopK", integers(-(1 << 60))),
    "Resize below zero": subtracted("Resize", None, None, integers(1, 1, -(1 << 60), SIDE)),
}

DAYS: dict[str, Bomb] = {
    "days of MaxPool": lambda: as_first_step("MaxPool", kernel_shape=[3001, 3001], pads=[3000] * 4),
    "days of AveragePool": lambda: as_first_step("AveragePool", kernel_shape=[2001, 2001], pads=[2000] * 4),
    "days of MaxPool over large images": enlarged(
        1000, helper.make_node("MaxPool", ["large"], ["made"], kernel_shape=[501, 501], pads=[250] * 4)
    ),
    "days of MaxPool that pads as it likes": enlarged(
        1000, helper.make_node("MaxPool", ["large"], ["made"], kernel_shape=[501, 501], auto_pad="SAME_UPPER")
    ),
    "days of LRN": enlarged(2000, helper.make_node("LRN", ["large"], ["made"], size=9999)),
    "days of MatMul": enlarged(2048, *multiplied(40)),
    "days of Sin": enlarged(2048, *walked(2000)),
    "a window larger than its image": lambda: as_first_step("MaxPool", kernel_shape=[99, 1]),
    "a convolution larger than its image": lambda: as_first_step(
        "Conv", floats(4, 3, 3, 3), dilations=[99, 1]
    ),
}
