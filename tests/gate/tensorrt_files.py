"""Mutants of the file for TensorRT alone; the file for ONNX Runtime is right."""

import onnx

from tests.gate.edits import (
    Edit,
    add_to,
    attribute,
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
from tests.gate.files import next_float, one_place
from tests.gate.harness import Mutant

__all__ = ["MUTANTS"]


def clip_without_upper_bound(output: str) -> Edit:
    """A Relu where a Clip had two bounds."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, output)
        node.op_type = "Relu"
        del node.input[1:]

    return edit


_CNN: tuple[tuple[str, Edit, str], ...] = (
    ("one code off by one", constant("mix.0.weight", one_place), r"mix"),
    ("codes of the last layer negated", constant("head.fc.weight", flip_sign), r"head\.fc|logits"),
    ("biases zeroed", constant("depthwise.0.bias", zeroed), r"depthwise"),
    ("one bias a hundredth larger", constant("branch.1.bias", add_to((2,), 0.01)), r"branch\.1"),
    ("biases one float further", constant("stem.0.bias", next_float), r"stem\.0"),
    ("bias of another layer", swapped("branch.1.bias", "shortcut.0.bias"), r"branch|shortcut"),
    ("scale of weights times 1.0001", constant("branch.0.0.weight_scale", times(1.0001)), r"branch"),
    ("scale of an activation times 1.0001", constant("quantizers.relu.scale", times(1.0001)), r"relu"),
    ("scale of the image one float further", constant("quantizers.image.scale", next_float), r"image"),
    (
        "another quantizer's scale",
        read_instead("depthwise_2.values", 1, "quantizers.relu.scale"),
        r"depthwise_2",
    ),
    ("upper bound", own_constant("stem_2.bounded", 2, times(14 / 15)), r"stem_2"),
    ("upper bound dropped", clip_without_upper_bound("branch_0_2.bounded"), r"branch_0_2"),
    ("Clip dropped", bypassed("stem_2.bounded"), r"stem_2"),
    ("padding", attribute("branch.0.0", pads=[2, 2, 0, 0]), r"branch"),
    (
        "average pool for max pool",
        operation("pool", "AveragePool", keep=("kernel_shape", "strides")),
        r"pool",
    ),
    ("subtraction for addition", operation("add", "Sub"), r"add|relu"),
    ("zero point", own_constant("image.codes", 2, lambda v: v + 1), r"image.codes: zero point is not 0"),
    ("number that no record has", unused_constant("stray"), r"stray"),
)
_VIT: tuple[tuple[str, Edit, str], ...] = (
    ("one code off by one, transformer", constant("fc1.weight", one_place), r"fc1"),
    ("queries' and keys' codes swapped", swapped("q.weight", "k.weight"), r"\bq\b|\bk\b"),
    ("one bias zeroed", constant("v.bias", zeroed), r"\bv\b"),
    ("epsilon of a LayerNorm", attribute("norm2", epsilon=1e-3), r"norm2"),
    ("weight of a LayerNorm", constant("norm1.weight", times(1.001)), r"norm1"),
    ("softmax over the wrong axis", attribute("softmax", axis=-2), r"softmax|matmul_1"),
    ("constant of the GELU", own_constant("act", 1, times(1.001)), r"act"),
    ("offset dropped", constant("quantizers_act_offset", zeroed), r"act"),
    ("sign of an offset", operation("sub", "Add"), r"sub|act"),
    ("token of the classifier", own_constant("gather", 1, lambda v: v + 1), r"gather|getitem_5"),
    ("positions negated", constant("position", flip_sign), r"position|norm1"),
)

MUTANTS = (
    *(Mutant(name, "cnn", "tensorrt", change, named) for name, change, named in _CNN),
    *(Mutant(name, "vit", "tensorrt", change, named) for name, change, named in _VIT),
)
