"""Mutants of the file for ONNX Runtime alone, made after everything else was right."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.gate.edits import (
    Array,
    Edit,
    add_to,
    attribute,
    bound,
    bypassed,
    constant,
    flip_sign,
    node_of,
    operation,
    own_constant,
    read_instead,
    swapped,
    times,
    unused_constant,
    zeroed,
)
from tests.gate.harness import Mutant

__all__ = ["MUTANTS"]


def nibbles_swapped(values: Array) -> Array:
    """Two codes share a byte: in the wrong order."""
    return values.reshape(-1, 2)[:, ::-1].reshape(values.shape)


def one_place(values: Array) -> Array:
    changed = values.copy()
    first = changed.reshape(-1)[0]
    changed.reshape(-1)[0] = first - 1 if first > 0 else first + 1
    return changed


def next_float(values: Array) -> Array:
    return np.nextafter(values, np.float32(np.inf), dtype=np.float32)


def next_of_last(values: Array) -> Array:
    changed = values.copy()
    changed[-1] = np.nextafter(changed[-1], np.float32(0), dtype=np.float32)
    return changed


def rolled(values: Array) -> Array:
    return np.roll(values, 1, axis=0)


def tokens_swapped(values: Array) -> Array:
    changed = values.copy()
    changed[:, [3, 4]] = changed[:, [4, 3]]
    return changed


def inputs_exchanged(output: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, output)
        node.input[0], node.input[1] = node.input[1], node.input[0]

    return edit


def inserted(before: str, op_type: str, value: float) -> Edit:
    """What the node that writes ``before`` reads first goes through ``op_type`` with a number."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, before)
        name = f"{before}.inserted"
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{name}.number"))
        index = list(model.graph.node).index(node)
        added = helper.make_node(op_type, [node.input[0], f"{name}.number"], [name], name=name)
        node.input[0] = name
        model.graph.node.insert(index, added)

    return edit


def channels_of_image_reversed(model: onnx.ModelProto) -> None:
    """Blue for red."""
    order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), "order")
    model.graph.initializer.append(order)
    model.graph.node.insert(0, helper.make_node("Gather", ["image", "order"], ["bgr"], axis=1))
    node_of(model, "image.codes").input[0] = "bgr"


def weight_zero_point(path: str) -> Edit:
    return constant(f"{path}.weight_zero_point", add_to((0,), 1))


def bias_as_float(model: onnx.ModelProto) -> None:
    """A bias in float32 in place of codes: another kernel, and no integer."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    value = held["mix.0.bias"] * held["mix.0.bias_scale"]
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), "mix.0.bias.float"))
    node_of(model, "mix.0").input[2] = "mix.0.bias.float"


def unread_output(model: onnx.ModelProto) -> None:
    """One more output than anybody asked for."""
    model.graph.output.append(helper.make_tensor_value_info("stem.0", TensorProto.FLOAT, None))


_CNN: tuple[tuple[str, Edit, str], ...] = (
    ("one bias off by one", constant("stem.0.bias", add_to((3,), 1)), r"stem\.0|stem_2"),
    ("all biases of a layer zero", constant("mix.0.bias", zeroed), r"mix"),
    ("last layer's bias off by one", constant("head.fc.bias", add_to((0,), 1)), r"head\.fc|logits"),
    ("biases moved by one channel", constant("shortcut.0.bias", rolled), r"shortcut"),
    ("bias of another layer", swapped("branch.1.bias", "shortcut.0.bias"), r"branch|shortcut"),
    ("one code off by one", constant("stem.0.weight", one_place), r"stem\.0|stem_2"),
    ("codes negated", constant("head.fc.weight", flip_sign), r"head\.fc|logits"),
    (
        "packed nibbles swapped",
        constant("branch.0.0.weight_packed", nibbles_swapped),
        r"branch\.0\.0|branch_0_2",
    ),
    ("one packed code off by one", constant("mix.0.weight_packed", one_place), r"mix"),
    ("step of packed codes", constant("mix.0.weight_step", lambda v: v + 1), r"mix"),
    ("lowest packed code", constant("mix.0.weight_low", lambda v: v + 1), r"mix"),
    ("packed weight transposed", constant("mix.0.weight_packed", lambda v: v.transpose(1, 0, 2, 3)), r"mix"),
    (
        "packed weights of two layers swapped",
        swapped("branch.0.0.weight_scale", "branch.1.weight_scale"),
        r"branch",
    ),
    (
        "scale of weights times 1.0001",
        constant("branch.1.weight_scale", times(1.0001)),
        r"branch\.1|branch_2",
    ),
    (
        "scale of weights one float further",
        constant("branch.1.weight_scale", next_float),
        r"branch\.1|branch_2",
    ),
    ("one channel's scale one float less", constant("mix.0.weight_scale", next_of_last), r"mix"),
    ("scale of biases times 1.0001", constant("mix.0.bias_scale", times(1.0001)), r"mix"),
    ("scale of an activation times 1.0001", constant("quantizers.relu.scale", times(1.0001)), r"relu"),
    ("scale of an activation one float further", constant("quantizers.relu.scale", next_float), r"relu"),
    ("scale of the image times 1.02", constant("quantizers.image.scale", times(1.02)), r"image"),
    (
        "a consumer reads another quantizer's scale",
        read_instead("depthwise_2.values", 1, "quantizers.relu.scale"),
        r"depthwise_2|mix",
    ),
    (
        "a quantizer writes with another's scale",
        read_instead("depthwise_2.unclipped", 1, "quantizers.relu.scale"),
        r"depthwise_2",
    ),
    ("zero point of weights", weight_zero_point("shortcut.0"), r"shortcut"),
    (
        "zero point of a quantizer",
        own_constant("branch_2.codes", 2, lambda v: v - 1),
        r"zero point of quantizer branch_2",
    ),
    ("zero point of a dequantizer", own_constant("branch_2.values", 2, lambda v: v - 1), r"branch_2|relu"),
    (
        "zero point of the image",
        own_constant("image.codes", 2, lambda v: v + 1),
        r"zero point of quantizer image .*: 128 by the checkpoint, 129 in the file",
    ),
    ("upper bound of codes one less", bound("relu.codes", 2, -1), r"relu"),
    ("upper bound of codes one more", bound("relu.codes", 2, 1), r"relu"),
    ("lower bound of codes one more", bound("relu.codes", 1, 1), r"relu"),
    ("upper bound of the average", bound("head_pool.codes", 2, -1), r"head_pool"),
    ("Clip dropped", bypassed("depthwise_2.codes"), r"depthwise_2"),
    ("stride and padding", attribute("branch.0.0", strides=[1, 1], pads=[0, 0, 0, 0]), r"branch|add"),
    ("padding at the other end", attribute("branch.0.0", pads=[0, 0, 2, 2]), r"branch"),
    ("padding moved to one side", attribute("depthwise.0", pads=[2, 2, 0, 0]), r"depthwise"),
    ("dilation", attribute("branch.1", dilations=[1, 1], pads=[1, 1, 1, 1]), r"branch\.1|branch_2"),
    ("groups", attribute("branch.1", group=1), r"branch\.1|branch_2"),
    (
        "average pool for max pool",
        operation("pool", "AveragePool", keep=("kernel_shape", "strides")),
        r"pool",
    ),
    ("window of the pool", attribute("pool", kernel_shape=[1, 1]), r"pool"),
    (
        "maximum for average at the end",
        operation("globalaveragepool", "GlobalMaxPool"),
        r"globalaveragepool|head_pool",
    ),
    ("subtraction for addition", operation("add", "Sub"), r"add|relu"),
    ("one addend for both", read_instead("add", 1, "branch_2.values"), r"add|relu"),
    ("residual before its pool", read_instead("shortcut.0", 0, "image.values"), r"shortcut|add"),
    ("Gemm times 1.0001", attribute("logits", alpha=1.0001), r"logits|head\.fc"),
    ("Gemm without its bias", attribute("logits", beta=0.0), r"logits|head\.fc"),
    ("number that no record has", unused_constant("stray"), r"stray"),
    ("multiplication inserted", inserted("mix.0", "Mul", 1.0001), r"mix"),
    ("addition inserted before the image's quantizer", inserted("image.codes", "Add", 0.01), r"image"),
    ("channels of the image reversed", channels_of_image_reversed, r"image|order"),
    ("bias as a float", bias_as_float, r"mix"),
    ("one more output", unread_output, r"stem\.0|output"),
)
_VIT: tuple[tuple[str, Edit, str], ...] = (
    ("one bias off by one, transformer", constant("fc1.bias", add_to((60,), 1)), r"fc1|act"),
    ("packed nibbles swapped, transformer", constant("fc2.weight_packed", nibbles_swapped), r"fc2"),
    ("queries' and keys' codes swapped", swapped("q.weight_packed", "k.weight_packed"), r"\bq\b|\bk\b"),
    ("values' and keys' biases swapped", swapped("v.bias", "k.bias"), r"\bv\b|\bk\b"),
    ("scale of a query one float further", constant("q.weight_scale", next_float), r"\bq\b|mul"),
    (
        "scale of attention's weights times 1.0001",
        constant("quantizers.softmax.scale", times(1.0001)),
        r"softmax",
    ),
    ("softmax over the wrong axis", attribute("softmax", axis=-2), r"softmax"),
    ("order of heads", attribute("transpose_4", perm=[0, 1, 2, 3]), r"transpose_4|matmul_1|proj|reshape"),
    ("epsilon of a LayerNorm", attribute("norm2", epsilon=1e-3), r"norm2"),
    ("weight of a LayerNorm", constant("norm2.weight", times(1.001)), r"norm2"),
    ("bias of a LayerNorm", constant("norm1.bias", zeroed), r"norm1"),
    ("positions swapped", constant("position", tokens_swapped), r"position|norm1"),
    ("class token's sign", constant("class_token", flip_sign), r"class_token|norm1"),
    ("token of the classifier", own_constant("gather", 1, lambda v: v + 1), r"gather|getitem_5"),
    ("GELU by its tanh formula", attribute("act", approximate="tanh"), r"act"),
    ("offset dropped", constant("quantizers_act_offset", zeroed), r"act"),
    ("sign of an offset", operation("sub", "Add"), r"sub|act"),
    ("value of an offset one float further", constant("quantizers_act_offset", next_float), r"act"),
    (
        "zero point of int8 codes",
        own_constant("transpose_2.values", 2, lambda v: v + 1),
        r"transpose_2|\bv\b|matmul_1",
    ),
    ("lower bound of int8 codes", bound("k.codes", 1, 1), r"\bk\b"),
    ("inputs of a residual sum", read_instead("add_2", 0, "add"), r"add_2|norm3|getitem_5"),
    ("LayerNorm over other axes", attribute("norm3", axis=-2), r"norm3|getitem_5"),
)
_OFFSETS: tuple[tuple[str, Edit, str], ...] = (
    ("offset behind padding dropped", constant("quantizers_stem_2_4bit_0_offset", zeroed), r"stem_2_4bit_0"),
    (
        "offset of codes behind codes",
        constant("quantizers_spread_1_4bit_offset", times(1.02)),
        r"spread_1_4bit",
    ),
    (
        "zero point behind padding",
        own_constant("stem_2_4bit_0.values", 2, lambda v: v + 1),
        r"stem_2_4bit_0|spread",
    ),
    ("bias without its offset", constant("reduce.0.bias", lambda v: v // 2), r"reduce"),
    ("scale of pooled codes", read_instead("pool.codes", 1, "quantizers.reduce_1.scale"), r"pool"),
    ("Hardswish for ReLU", operation("expand.2", "Relu"), r"expand"),
)


MUTANTS = (
    *(Mutant(name, "cnn", "onnxruntime", change, named) for name, change, named in _CNN),
    *(Mutant(name, "vit", "onnxruntime", change, named) for name, change, named in _VIT),
    *(Mutant(name, "offsets", "onnxruntime", change, named) for name, change, named in _OFFSETS),
)
